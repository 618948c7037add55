"""Tests of attention itself: permutation, adversarial and uniform attention, other models, a guided token model."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.attention_tests import (
    ADVERSARIAL_DIVERGENCE,
    ATTENTION_DIVERGENCE,
    COMPARED,
    MAX_ATTENTION,
    MEASURES,
    PER_TEXT,
    PERMUTATION_CHANGE,
    START_DEVIATION,
    Held,
    adversarial_divergence,
    held_head,
    permutation_change,
    row_draws,
    uniform_attention,
)
from attn_lightning.evaluation.diagnostic import (
    Recipe,
    guided_metrics,
    random_weights,
    steps_of,
    uniform_weights,
)
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.out_of_domain import teach_new_words
from attn_lightning.evaluation.subject import (
    Explained,
    ProgressCallback,
    Ragged,
    Split,
    Subject,
    attention_of,
    weights_digest,
)
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.prediction import ACCURACY, F1, MACRO_F1
from attn_lightning.types import UNLABELED, AttentionOutput, Batch

BINS = {"0-0.25": (0.0, 0.25), "0.25-0.5": (0.25, 0.5), "0.5-0.75": (0.5, 0.75), "0.75-1": (0.75, np.inf)}
"""Ranges of the largest weight of a text, the upper end excluded but for the last."""

_BINNED = (PERMUTATION_CHANGE, ADVERSARIAL_DIVERGENCE, ATTENTION_DIVERGENCE)
_PERMUTATIONS, _STARTS, _GUIDES, _TRAINING_GUIDES = range(4)
DIAGNOSTIC = {
    of.name: of.called(f"diagnostic_{of.name}", f"{of.meaning}, of a token model trained with the given weights")
    for of in (ACCURACY, F1, MACRO_F1)
}
"""What is measured of the token-level models, by its name in `metrics.prediction`."""

Values = dict[str, NDArray[np.float64]]


class AttentionTests(Family):
    """The tests of Jain and Wallace 2019 and of Wiegreffe and Pinter 2019, with the hidden states held.

    - `max_attention`: largest weight of a text, which the rows with that setting are sorted by.
    - `permutation_change`: median over random permutations of the weights of the total variation distance of the
      predictions, which is `|Delta p|` of class 1 for two classes.
    - `adversarial_divergence`: largest Jensen-Shannon divergence from the attention that a search finds under
      predictions within `threshold`; a lower bound of what is possible.
    - `uniform_change`, `uniform_flip`: total variation distance, and share of other decisions, under uniform weights.
    - `accuracy`: of the model with its own and with uniform weights, and of other models.
    - `attention_divergence`, `prediction_change`: Jensen-Shannon divergence of attention and total variation distance
      of predictions between this and other models: trained with other seeds, adversarially, with uniform attention.
    - `diagnostic_accuracy`, `diagnostic_f1`, `diagnostic_macro_f1`: of token-level models trained with given weights:
      this model's, other models', uniform, random, or their own ("learned").

    Values about the weights of a text are NaN for texts of one token, which has nothing to choose from.

    Args:
        num_permutations: of every text.
        num_candidates: of the adversarial search, per text.
        num_steps: of the search.
        learning_rate: of the search.
        threshold: largest total variation distance of predictions that counts as the same prediction, in [0, 1).
        adversarial: whether to search; by far the dearest of the tests on the head.
        diagnostic: whether to train token-level models on the training split.
        others: models of the same data and classes on the subject's device, by a name for their rows; several models
            under one name, such as other seeds, are averaged.

    Raises:
        ConfigurationError: an option is out of its range.

    Cost: one pass through the encoder of every model over both splits; 4 bytes per token, model and guide are kept
    for the diagnostic.
    """

    name: ClassVar[str] = "attention_tests"
    heading: ClassVar[str] = "Tests of attention: does the prediction depend on these weights?"
    measures: ClassVar[Mapping[str, Measure]] = by_name((*MEASURES, ACCURACY, *DIAGNOSTIC.values()))

    def __init__(
        self,
        num_permutations: int = 100,
        num_candidates: int = 5,
        num_steps: int = 500,
        learning_rate: float = 0.01,
        threshold: float = 0.01,
        adversarial: bool = True,
        diagnostic: bool = True,
        others: Mapping[str, Backbone | Sequence[Backbone]] | None = None,
    ) -> None:
        check_numbers(
            self, at_least=1, num_permutations=num_permutations, num_candidates=num_candidates, num_steps=num_steps
        )
        check_numbers(self, at_least=0, below=1, threshold=threshold)
        check_numbers(self, above=0, advice="0.01 is usual", learning_rate=learning_rate)
        self.num_permutations = num_permutations
        self.num_candidates = num_candidates
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.threshold = threshold
        self.adversarial = adversarial
        self.diagnostic = diagnostic
        self._others = {
            name: [given] if isinstance(given, Backbone) else list(given) for name, given in (others or {}).items()
        }
        # Public, so that stored results are not taken for those of other models of the same names.
        self.others = {name: [weights_digest(model)[:16] for model in models] for name, models in self._others.items()}

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`.

        Raises:
            ConfigurationError: another model has another number of classes.
        """
        for other in chain(*self._others.values()):
            teach_new_words(other, subject.examples)
        trains = self.diagnostic and subject.training is not None
        count = len(subject.examples)
        progress = _Progress(advance, count, self._units(subject) if trains else count)
        with ExitStack() as stack:
            # All models in one mode for the whole family, since the tests go back and forth between them.
            for model in [subject.model, *(m for models in self._others.values() for m in models)]:
                stack.enter_context(differentiable(model))
            stack.enter_context(torch.no_grad())
            values, attention = self._measure(subject, explained, progress)
            rows = self._rows(values)
            if self.diagnostic:
                rows += self._diagnose(subject, Split(subject.examples, explained.labels, attention, -1), progress)
        progress.finish()
        return rows

    def _measure(
        self, subject: Subject, explained: Explained, advance: ProgressCallback
    ) -> tuple[Values, dict[str, Ragged]]:
        """(N,) numbers by metric, or by metric and name of other models; and the attention of every guide."""
        values: Values = {}
        attention = {guide: Ragged.empty(subject.examples.lengths) for guide in self._guides(subject)}
        for batch in subject.batches():
            rows, mask = to_array(batch.rows), to_array(batch.mask)
            output, labels = subject.model(batch.tokens, batch.mask), explained.labels[rows]
            others = {
                name: [self._pass(name, model, batch, output) for model in models]
                for name, models in self._others.items()
            }
            found = self._head_tests(subject, batch, output, labels) | self._compare(others, output, labels)
            for name, numbers in found.items():
                values.setdefault(name, np.full(len(subject.examples), np.nan))[rows] = numbers
            for kept, one in zip(attention.values(), [output, *chain(*others.values())], strict=True):
                kept.put(rows, to_array(one.attention), mask)
            advance(len(rows))
        return values, attention

    def _head_tests(
        self, subject: Subject, batch: Batch, output: AttentionOutput, labels: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        head, mask = held_head(subject.model, output), batch.mask
        lengths, tokens = mask.sum(1), mask.numel()

        def draws(count: int, purpose: int) -> Tensor:
            return row_draws(subject, batch.rows, lengths, (count, mask.shape[1]), purpose)

        # Permutations of every text that are in memory at once, each as large as the batch.
        chunk = subject.token_budget // tokens
        changes = permutation_change(head, output, draws(self.num_permutations, _PERMUTATIONS), chunk)
        uniform = head(uniform_attention(mask).to(output.attention).unsqueeze(1))[:, 0]
        held = Held(head, output, uniform)
        found = {metric.name: to_array(measure(held)).astype(np.float64) for metric, measure in PER_TEXT.items()}
        # The median over permutations, as published: a few that hit the one important token would carry a mean.
        found[PERMUTATION_CHANGE.name] = np.median(to_array(changes), 1)
        if self.adversarial:
            start = START_DEVIATION * draws(self.num_candidates, _STARTS)
            options = (self.num_steps, self.learning_rate, self.threshold)
            found[ADVERSARIAL_DIVERGENCE.name] = to_array(adversarial_divergence(head, output, start, *options))
        # One token has weight 1 whatever is permuted; counting its 0 would flatter the model.
        alone = to_array(lengths) < 2
        choosing = {name: np.where(alone, np.nan, numbers) for name, numbers in found.items()}
        # Accuracy counts all texts: those of one token are predicted as others are.
        own = {"accuracy/model": _correct(output, labels)}
        return choosing | own | {"accuracy/uniform": _right(to_array(uniform), labels)}

    def _compare(
        self, others: Mapping[str, list[AttentionOutput]], output: AttentionOutput, labels: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, passes in others.items():
            per_metric = {
                metric.name: [measure(output, other) for other in passes] for metric, measure in COMPARED.items()
            }
            per_metric["other_accuracy"] = [_correct(other, labels) for other in passes]
            found |= {f"{metric}/{name}": np.mean(numbers, 0) for metric, numbers in per_metric.items()}
        return found

    def _pass(self, name: str, model: Backbone, batch: Batch, output: AttentionOutput) -> AttentionOutput:
        other: AttentionOutput = model(batch.tokens, batch.mask)
        if other.logits.shape != output.logits.shape:
            raise ConfigurationError(
                f"Expected the other model {name!r} to have {output.logits.shape[1]} classes as the evaluated one has, "
                f"but got {other.logits.shape[1]}; compare models that were trained on the same data."
            )
        return other

    def _rows(self, values: Values) -> list[Row]:
        rows = []
        for metric in dict.fromkeys([MAX_ATTENTION, PERMUTATION_CHANGE, ADVERSARIAL_DIVERGENCE, *PER_TEXT]):
            if metric.name in values:
                rows += _by_weight(metric, values[metric.name], values)
        rows += [
            Row.of("accuracy", MODEL, values[f"accuracy/{weights}"], attention=weights)
            for weights in ("model", "uniform")
        ]
        for name in self._others:
            for metric in COMPARED:
                rows += _by_weight(metric, values[f"{metric.name}/{name}"], values, other=name)
            rows.append(Row.of("accuracy", MODEL, values[f"other_accuracy/{name}"], other=name))
        return rows

    def _diagnose(self, subject: Subject, test: Split, advance: ProgressCallback) -> list[Row]:
        count = len(subject.examples)
        if subject.training is None:
            reason = {"weights": "model", "missing": "no training split"}
            return [Row("diagnostic_accuracy", MODEL, None, None, 0, count, reason)]
        recipe, own = Recipe(), subject.learned_from
        others = {name: model for name, model in self._guides(subject).items() if name != "model"}
        train = attention_of(subject, subject.training, others, advance) if others else own
        train = replace(own, weights={**own.weights, **train.weights})
        test, train = _with_controls(subject, test, _GUIDES), _with_controls(subject, train, _TRAINING_GUIDES)
        labelled = int((test.labels != UNLABELED).sum())
        rows = []
        for guide in (*test.weights, None):
            metrics = guided_metrics(subject, train, test, guide, recipe, advance)
            for metric, declared in DIAGNOSTIC.items():
                if metric in metrics:
                    value = metrics[metric] if np.isfinite(metrics[metric]) else None
                    setting = {"weights": guide or "learned"}
                    rows.append(Row(declared.name, MODEL, value, None, labelled, count, setting))
        return rows

    def _guides(self, subject: Subject) -> dict[str, Backbone]:
        guides = {"model": subject.model}
        for name, models in self._others.items():
            several = len(models) > 1
            # Numbered only where there are several, so that a single other model keeps its plain name.
            guides |= {f"other {name}{f' {i}' if several else ''}": model for i, model in enumerate(models)}
        return guides

    def _units(self, subject: Subject) -> int:
        """Examples that will be told to `advance` in all."""
        assert subject.training is not None
        count, learned = len(subject.examples), steps_of(subject.training, Recipe()) * Recipe().batch_size
        # Three are no models: uniform and random weights, and those that a guided model learns itself.
        guides = len(self._guides(subject)) + 3
        return count + len(subject.training) + guides * (learned + count)


class _Progress:
    """Tells of many examples as if they were few, so that a family that goes over splits several times shows one bar.

    Args:
        advance: to be told of `shown` examples in all.
        shown: examples of the split.
        units: how many examples will be reported to this object in all, about.
    """

    def __init__(self, advance: ProgressCallback, shown: int, units: int) -> None:
        self._advance = advance
        self._shown = shown
        self._units = units
        self._done = 0
        self._told = 0

    def __call__(self, finished: int) -> None:
        self._done += finished
        # What is left is told by `finish`: the last batches of a training epoch are smaller than foreseen.
        tell = min(self._shown, self._done * self._shown // self._units) - self._told
        self._told += tell
        self._advance(tell)

    def finish(self) -> None:
        """Tell of what is left."""
        self._advance(self._shown - self._told)


def _with_controls(subject: Subject, split: Split, purpose: int) -> Split:
    lengths = np.asarray(split.examples.lengths)
    controls = {
        "uniform": uniform_weights(lengths),
        "random": random_weights(lengths, subject.generator(purpose)),
    }
    return Split(split.examples, split.labels, {**split.weights, **controls}, split.largest_id)


def _by_weight(metric: Measure, numbers: NDArray[np.float64], values: Values, **setting: Any) -> list[Row]:
    """The row of a metric, and where it is of interest one per range of the largest weight: of (N,) numbers.

    Texts of one token are in no range.
    """
    rows, largest = [Row.of(metric.name, MODEL, numbers, **setting)], values[MAX_ATTENTION.name]
    for name, (low, high) in BINS.items() if metric in _BINNED else ():
        inside = numbers[(largest >= low) & (largest < high)]
        rows.append(Row.of(metric.name, MODEL, inside, **setting, max_attention=name))
    return rows


def _correct(output: AttentionOutput, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return _right(to_array(output.logits), labels)


def _right(logits: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(B,) 1 where the highest logit is the label's, NaN without a label."""
    return np.where(labels == UNLABELED, np.nan, (logits.argmax(1) == labels).astype(np.float64))
