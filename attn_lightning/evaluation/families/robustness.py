"""How a model holds under attack at test time: on attention scores, on word embeddings, and by words."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.backbone.importance import differentiable
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.agreement import jensen_shannon
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.robustness import AREAS, CURVES, area_under_curve, correct, unchanged
from attn_lightning.perturbation.attacks import (
    NUM_STEPS,
    Place,
    clean_pass,
    embedding_place,
    harm_gradient,
    one_step,
    pgd,
    random_noise,
    score_place,
    select_rows,
)
from attn_lightning.perturbation.neighbors import NeighborCache, word_table
from attn_lightning.perturbation.substitution import NUM_TRIALS, Vocabulary, substitute_words
from attn_lightning.types import UNLABELED, AttentionOutput, Batch

logger = logging.getLogger(__name__)

Attack = Literal["random", "one_step", "pgd"]
Target = Literal["prediction", "label"]

PLACES = {"scores": score_place, "embeddings": embedding_place}
"""Where noise can be added, with what makes a `Place` of it."""


class Curve:
    """What one attack does to every example at every strength.

    Args:
        setting: `where`, `attack` and `target` of its rows.
        axis: name of the strength in its rows.
        strengths: K rising numbers above 0; the clean model is put before them, at 0.
        num_examples: N.

    Attributes:
        values: (metrics, K + 1, N) float32, NaN where undefined.
    """

    def __init__(self, setting: Mapping[str, str], axis: str, strengths: Sequence[float], num_examples: int) -> None:
        self.setting = setting
        self.axis = axis
        self.strengths = (type(strengths[0])(0), *strengths)
        self.values = np.full((len(CURVES), len(self.strengths), num_examples), np.nan, np.float32)

    def areas(self) -> Iterator[Row]:
        """One row per metric: the mean height of the curve."""
        for area, values in zip(AREAS, self.values, strict=True):
            yield Row.of(area.name, MODEL, area_under_curve(values.T, np.asarray(self.strengths)), **self.setting)

    def points(self) -> Iterator[Row]:
        """One row per metric and strength."""
        for metric, values in zip(CURVES, self.values, strict=True):
            for strength, numbers in zip(self.strengths, values, strict=True):
                yield Row.of(metric.name, MODEL, numbers, **self.setting, **{self.axis: strength})


Curves = dict[tuple[str, str, str], Curve]
"""By where, attack and target."""


class Job(NamedTuple):
    """Examples of a batch that are attacked together.

    Attributes:
        rows: (b,) their places in the batch; an example may come twice, with two classes.
        classes: (b,) the class that each attack leads away from.
        serves: for every kind of target, (b,) bool: whose result it is.
    """

    rows: Tensor
    classes: Tensor
    serves: Mapping[str, NDArray[np.bool_]]


class Finding(NamedTuple):
    """What one attack of one strength found; `level` is the place of the strength on its curve."""

    where: str
    attack: str
    level: int
    job: Job
    logits: Tensor
    attention: Tensor


@dataclass(frozen=True)
class CleanBatch:
    """A batch together with what the unperturbed model says of it."""

    batch: Batch
    output: AttentionOutput

    @property
    def predicted(self) -> Tensor:
        """(B,) classes, the first of equals."""
        return self.output.logits.argmax(-1)

    def everything(self) -> Job:
        """All examples, for what leads away from no class, and for no attack at all."""
        rows = torch.arange(len(self.batch.rows), device=self.batch.rows.device)
        return Job(rows, self.predicted, {"none": np.ones(len(rows), np.bool_)})

    def jobs(self, targets: Sequence[Target], token_budget: int) -> list[Job]:
        """Every example with every class to lead away from, once: both targets of most examples are the same class.

        Args:
            targets: which are wanted; an example without a label is not attacked for it.
            token_budget: the most tokens of a job, padding included; one example may be longer.
        """
        labels, predicted = self.batch.labels, self.predicted
        everyone = torch.arange(len(labels), device=labels.device)
        first = everyone if "prediction" in targets else everyone[:0]
        second = everyone[:0]
        if "label" in targets:
            second = everyone[(labels != UNLABELED) & ((labels != predicted) | ("prediction" not in targets))]
        rows, classes = torch.cat([first, second]), torch.cat([predicted[first], labels[second]])
        serves = {
            "prediction": torch.arange(len(rows), device=rows.device) < len(first),
            "label": classes == labels[rows],
        }
        most = max(1, token_budget // self.batch.mask.shape[1])
        parts = [slice(start, start + most) for start in range(0, len(rows), most)]
        return [
            Job(rows[part], classes[part], {target: to_array(serves[target][part]) for target in targets})
            for part in parts
        ]

    def record(self, curves: Curves, finding: Finding) -> None:
        """Put what was found where it belongs."""
        job = finding.job
        values, rows = self._measure(job.rows, finding.logits, finding.attention), to_array(self.batch.rows[job.rows])
        for target, served in job.serves.items():
            curve = curves[finding.where, finding.attack, target]
            curve.values[:, finding.level, rows[served]] = values[:, served]

    def record_clean(self, curves: Curves) -> None:
        """The start of every curve; one for the label has no place for examples without."""
        everything = self.everything()
        values = self._measure(everything.rows, self.output.logits, self.output.attention)
        rows, labeled = to_array(self.batch.rows), to_array(self.batch.labels) != UNLABELED
        for (_, _, target), curve in curves.items():
            served = labeled if target == "label" else np.ones_like(labeled)
            curve.values[:, 0, rows[served]] = values[:, served]

    def _measure(self, rows: Tensor, logits: Tensor, attention: Tensor) -> NDArray[np.float64]:
        """(metrics, b), one line for each of `CURVES`."""
        predicted, mask = to_array(logits.argmax(-1)), to_array(self.batch.mask[rows])
        return np.stack(
            [
                correct(predicted, to_array(self.batch.labels[rows])),
                unchanged(predicted, to_array(self.predicted[rows])),
                jensen_shannon(to_array(self.output.attention[rows]), to_array(attention), mask),
            ]
        )


class Robustness(Family):
    """Accuracy, share of unchanged predictions and shift of attention under attack, over the strength of the attack.

    `scores` and `embeddings` are attacked by noise of at most epsilon (L2, per example, over its real tokens; see
    `attn_lightning.perturbation.attacks`), `words` by replacing some of them by near ones (see
    `attn_lightning.perturbation.substitution`). An attack leads away from the `prediction` of the unperturbed model or
    from the gold `label`; random noise has no target ("none"). Every curve starts with the clean model at 0, and each
    metric has the mean height of its curve as a row `..._area`.

    Epsilon is in the units of the scores or word vectors of the model at hand. A model can scale them up, so that the
    same epsilon means less to it: look at the attacks by words too, which do not depend on a scale.

    Without words (segments, or a model without a table of word vectors) the rows of `words` are undefined, with 0 valid
    examples, and the log says why; so are rows with the target `label` for examples that have none.

    Cost: one clean pass per batch. Scores cost `attend` only. Embeddings cost, per epsilon and with the default
    attacks, 12 passes through the whole model, 9 of them with a gradient; where label and prediction agree, both
    targets are one attack. Words cost a gradient and `num_trials` passes per replacement.

    Args:
        score_epsilons: radii of the noise on attention scores; empty leaves that place out.
        embedding_epsilons: radii of the noise on word embeddings; empty leaves that place out.
        attacks: among `random`, `one_step`, `pgd`.
        targets: among `prediction`, `label`.
        num_steps: steps of PGD.
        random_start: start PGD from the noise of the random attack instead of from none.
        substitutions: the most words that may be replaced: numbers of words, or shares of the words of a text (below
            1, rounded up), not both; empty leaves words out.
        num_neighbors: the nearest words that may replace a word.
        num_trials: replacements per round that are tried by a forward pass.

    Raises:
        ConfigurationError: an option is out of range.
    """

    name: ClassVar[str] = "robustness"
    heading: ClassVar[str] = (
        "Prediction and attention under white-box attacks at test time, per example; epsilon is an L2 norm."
    )
    measures: ClassVar[Mapping[str, Measure]] = by_name((*AREAS, *CURVES))
    # No explanation is judged here, and a linear model is not attacked.
    uncontrolled: ClassVar[frozenset[str]] = frozenset(measures)

    def __init__(
        self,
        score_epsilons: Sequence[float] = (0.5, 1.0, 2.0, 5.0),
        embedding_epsilons: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
        attacks: Sequence[Attack] = ("random", "one_step", "pgd"),
        targets: Sequence[Target] = ("prediction", "label"),
        num_steps: int = NUM_STEPS,
        random_start: bool = False,
        substitutions: Sequence[float] = (1, 2, 3),
        num_neighbors: int = 8,
        num_trials: int = NUM_TRIALS,
    ) -> None:
        _check_names("attacks", attacks, get_args(Attack))
        _check_names("targets", targets, get_args(Target))
        _check_counts(num_steps=num_steps, num_neighbors=num_neighbors, num_trials=num_trials)
        _check_substitutions(substitutions)
        if not (score_epsilons or embedding_epsilons or substitutions):
            raise ConfigurationError(
                "Expected at least one of `score_epsilons`, `embedding_epsilons` and `substitutions` of the robustness "
                "family not to be empty; leave the family out of the suite to measure nothing."
            )
        self.score_epsilons = _rising("score_epsilons", score_epsilons)
        self.embedding_epsilons = _rising("embedding_epsilons", embedding_epsilons)
        self.attacks = tuple(attacks)
        self.targets = tuple(targets)
        self.num_steps = num_steps
        self.random_start = random_start
        # A number of words is named as a whole number in the rows, whatever the configuration made of it.
        self.substitutions = tuple(
            int(value) if value >= 1 else value for value in _rising("substitutions", substitutions)
        )
        self.num_neighbors = num_neighbors
        self.num_trials = num_trials

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        curves = self._curves(len(subject.examples))
        with differentiable(subject.model):
            vocabulary = self._vocabulary(subject) if self.substitutions else None
            for batch in subject.batches():
                clean = CleanBatch(batch, clean_pass(subject.model, batch.tokens, batch.mask))
                clean.record_clean(curves)
                for finding in self._findings(subject, clean, vocabulary):
                    clean.record(curves, finding)
                advance(len(batch.rows))
        found = list(curves.values())
        return [row for curve in found for row in curve.areas()] + [row for curve in found for row in curve.points()]

    def _curves(self, num_examples: int) -> Curves:
        kinds = [("random", "none")] if "random" in self.attacks else []
        kinds += [(attack, target) for attack in self._aimed() for target in self.targets]
        strengths: dict[tuple[str, str, str], tuple[str, tuple[float, ...]]] = {
            (where, *kind): ("epsilon", epsilons) for where, epsilons in self._epsilons().items() for kind in kinds
        }
        for target in self.targets if self.substitutions else ():
            strengths["words", "substitution", target] = ("budget", self.substitutions)
        return {
            key: Curve(dict(zip(("where", "attack", "target"), key, strict=True)), axis, values, num_examples)
            for key, (axis, values) in strengths.items()
        }

    def _aimed(self) -> list[str]:
        """The attacks that look at the model."""
        return [attack for attack in self.attacks if attack != "random"]

    def _epsilons(self) -> dict[str, tuple[float, ...]]:
        both = {"scores": self.score_epsilons, "embeddings": self.embedding_epsilons}
        return {where: epsilons for where, epsilons in both.items() if epsilons}

    def _vocabulary(self, subject: Subject) -> Vocabulary | None:
        """Where replacements come from; None, and a warning with the reason, where there are none."""
        reason = "the segments of the data are not words"
        if subject.erased is not None:
            try:
                table = word_table(subject.model).detach()
                return Vocabulary(table, NeighborCache(table, self.num_neighbors))
            except ConfigurationError as error:
                reason = str(error)
        logger.warning("robustness: the rows of word substitution stay undefined: %s", reason)
        return None

    def _findings(self, subject: Subject, clean: CleanBatch, vocabulary: Vocabulary | None) -> Iterator[Finding]:
        jobs = clean.jobs(self.targets, subject.token_budget)
        for where, epsilons in self._epsilons().items():
            place = PLACES[where](subject.model, clean.output)
            draws = _draws(subject, clean.batch, place.noiseless, list(PLACES).index(where))
            if "random" in self.attacks:
                for level, epsilon in enumerate(epsilons, 1):
                    shaken = random_noise(place, epsilon, draws)
                    yield Finding(where, "random", level, clean.everything(), shaken.logits, shaken.attention)
            for job in jobs if self._aimed() else ():
                part = PLACES[where](subject.model, select_rows(clean.output, job.rows))
                yield from self._climb(where, epsilons, job, part, draws[job.rows])
        if vocabulary is not None:
            for job in jobs:
                yield from self._replace(subject, clean, vocabulary, job)

    def _climb(self, where: str, epsilons: Sequence[float], job: Job, place: Place, draws: Tensor) -> Iterator[Finding]:
        """The attacks that look at the model; the gradient without noise serves all of them."""
        _, gradient = harm_gradient(place, job.classes, place.noiseless)
        for level, epsilon in enumerate(epsilons, 1):
            found = one_step(place, job.classes, epsilon, draws, gradient)
            if "one_step" in self.attacks:
                yield Finding(where, "one_step", level, job, found.logits, found.attention)
            if "pgd" in self.attacks:
                found = pgd(
                    place,
                    job.classes,
                    epsilon,
                    draws,
                    num_steps=self.num_steps,
                    random_start=self.random_start,
                    gradient=gradient,
                    weaker=found,
                )
                yield Finding(where, "pgd", level, job, found.logits, found.attention)

    def _replace(self, subject: Subject, clean: CleanBatch, vocabulary: Vocabulary, job: Job) -> Iterator[Finding]:
        outcomes = substitute_words(
            subject.model,
            select_rows(clean.output, job.rows),
            clean.batch.tokens[job.rows],
            job.classes,
            word_budgets(clean.batch.mask[job.rows].sum(1), self.substitutions),
            vocabulary,
            subject.token_budget,
            self.num_trials,
        )
        for level, found in enumerate(outcomes, 1):
            yield Finding("words", "substitution", level, job, found.logits, found.attention)


def word_budgets(lengths: Tensor, substitutions: Sequence[float]) -> Tensor:
    """The most words that may be replaced in every text.

    Args:
        lengths: (B,) words.
        substitutions: K numbers of words, or shares below 1, rounded up.

    Returns:
        (B, K) int64.
    """
    allowed = torch.tensor(substitutions, dtype=torch.float64, device=lengths.device).expand(len(lengths), -1)
    # Less a little, as 0.07 * 100 is above 7 in floating point.
    shares = (allowed * lengths.unsqueeze(1) - 1e-9).ceil()
    return torch.where(allowed < 1, shares, allowed).long()


def _draws(subject: Subject, batch: Batch, like: Tensor, place: int) -> Tensor:
    """(B, T, ...) standard normal numbers that depend on the seed, the place and the example alone; 0 at padding."""
    draws = torch.zeros(like.shape)
    for line, row, length in zip(draws, batch.rows.tolist(), batch.mask.sum(1).tolist(), strict=True):
        line[:length].normal_(generator=subject.generator(row, place))
    return draws.to(like)


def _rising(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values in rising order, once each."""
    if not all(0 < value < math.inf for value in values):
        raise ConfigurationError(
            f"Expected `{name}` of the robustness family to be numbers above 0, but got {list(values)}; the clean "
            "model at 0 is always measured."
        )
    return tuple(sorted({float(value) for value in values}))


def _check_names(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    unknown = [value for value in values if value not in known]
    if unknown or not values:
        raise ConfigurationError(
            f"Expected `{name}` of the robustness family to be some of {', '.join(known)}, but got {list(values)}."
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigurationError(f"Expected `{name}` of the robustness family to be 1 or more, but got {count}.")


def _check_substitutions(substitutions: Sequence[float]) -> None:
    counts = [value for value in substitutions if value >= 1]
    if (counts and len(counts) < len(substitutions)) or any(count != int(count) for count in counts):
        raise ConfigurationError(
            "Expected `substitutions` of the robustness family to be whole numbers of words or shares below 1, but got "
            f"{list(substitutions)}; use one kind."
        )
