"""How much of the label can be read off the selection of tokens alone."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from attn_lightning.backbone.importance import differentiable
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.evaluation.diagnostic import random_weights
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.shortcut_probe import MEASURES, PROBES, Probe, features_of, probe_predictions
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Ragged, Subject
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.types import UNLABELED

# Beyond the keys of the tests of attention, or both families would judge by the same random weights.
_TEST_MASKS, _TRAINING_MASKS = 4, 5


class ShortcutProbe(Family):
    """Accuracy of a classifier on masks alone, fitted on the training split and measured on the evaluated one.

    - `majority_rate`: share of examples with the most frequent label of the training split, of labels that are shown.
    - `shortcut_accuracy`: of the probe; rows of `random` are those of random masks: what length alone gives away.
    - `shortcut_gain`: `shortcut_accuracy - majority_rate`; a selection that does not tell the label has about that of
      the random masks, which is about 0 or below.

    The masks are the k tokens with the highest attention ("top k") and the attention itself ("profile"), seen through
    `selection_features`: positions and weights, no word.

    Args:
        k: tokens of the hard masks, at least 1.
        probe: `boosting` or `logistic`.

    Raises:
        ConfigurationError: an option is out of its range.

    Cost: one pass of the model over the training split, shared with other families, and four fits; about 300 bytes per
    training text are kept.
    """

    name: ClassVar[str] = "shortcut_probe"
    heading: ClassVar[str] = "Shortcut probe: can the label be read off the selected positions?"
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)
    # The rows of random masks are the comparison: what length alone gives away.
    uncontrolled: ClassVar[frozenset[str]] = frozenset(measures)

    def __init__(self, k: int = 5, probe: Probe = "boosting") -> None:
        check_numbers(self, at_least=1, advice="5 is usual", k=k)
        check_choice(self, choices=PROBES, probe=probe)
        self.k = k
        self.probe = probe

    def unavailable(self, subject: Subject) -> str | None:
        """Without a training split there is nothing to fit the probe on."""
        return None if subject.training is not None else "there is no training split to fit the probe on"

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        assert subject.training is not None
        with differentiable(subject.model):
            train = subject.learned_from
        masks = {
            MODEL: (train.weights["model"], explained.explanations["attention"]),
            "random": (
                random_weights(train.examples.lengths, subject.generator(_TRAINING_MASKS)),
                random_weights(subject.examples.lengths, subject.generator(_TEST_MASKS)),
            ),
        }
        labels = explained.labels
        # The class that is most frequent in training, as a probe would have to guess it without masks.
        majority = _right(_majority(train.labels, len(labels)), labels)
        rows = [Row.of("majority_rate", MODEL, majority)]
        # Twice: which places are chosen, and all that the weights themselves give away.
        for selection, k in ((f"top {self.k}", self.k), ("profile", None)):
            for explainer, (fitted, measured) in masks.items():
                right = _right(self._predict(subject, train.labels, fitted, measured, k), labels)
                rows.append(Row.of("shortcut_accuracy", explainer, right, masks=selection))
                rows.append(Row.of("shortcut_gain", explainer, right - majority, masks=selection))
        advance(len(subject.examples))
        return rows

    def _predict(
        self, subject: Subject, labels: NDArray[np.int64], train: Ragged, test: Ragged, k: int | None
    ) -> NDArray[np.int64] | None:
        labelled = np.flatnonzero(labels != UNLABELED)
        return probe_predictions(
            features_of(train, k)[labelled], labels[labelled], features_of(test, k), self.probe, subject.seed
        )


def _majority(labels: NDArray[np.int64], count: int) -> NDArray[np.int64] | None:
    """(count,) the most frequent label, the lowest of equals; None if there are no labels."""
    known = labels[labels != UNLABELED]
    return np.full(count, np.bincount(known).argmax()) if len(known) else None


def _right(predicted: NDArray[np.int64] | None, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) 1 where the prediction is the label, NaN without one of the two."""
    if predicted is None:
        return np.full(len(labels), np.nan)
    return np.where(labels == UNLABELED, np.nan, (predicted == labels).astype(np.float64))
