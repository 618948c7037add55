"""Calibration: how good the predictions are, and how far their probabilities can be trusted."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.calibration import PER_EXAMPLE, log_loss
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.prediction import MEASURES as PREDICTION
from attn_lightning.metrics.prediction import PredictionMetrics
from attn_lightning.types import UNLABELED


class Calibration(Family):
    """Prediction metrics of the model, with its probabilities as they are; see `metrics.prediction`.

    Examples without a label do not count. `f1` is that of class 1, for two classes only; `brier` is
    `1/2 sum_c (p_c - [c = y])^2`. A metric that the split leaves undefined has no value.

    Cost: no pass of the model.
    """

    name: ClassVar[str] = "calibration"
    heading: ClassVar[str] = "How good the predictions are, and how far their probabilities can be trusted."
    measures: ClassVar[Mapping[str, Measure]] = by_name((*PREDICTION, *PER_EXAMPLE))

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        labeled = explained.labels != UNLABELED
        labels, probabilities = explained.labels[labeled], explained.probabilities[labeled]
        each = {
            "accuracy": (explained.predicted[labeled] == labels).astype(np.float64),
            "log_loss": log_loss(probabilities, labels),
            **{metric.name: measure(probabilities, labels) for metric, measure in PER_EXAMPLE.items()},
        }
        whole = _of_the_split(probabilities, labels) if len(labels) else {}
        advance(len(subject.examples))
        rows = []
        for metric in self.measures:
            if metric in each:
                values = np.full(len(labeled), np.nan)
                values[labeled] = each[metric]
                with np.errstate(invalid="ignore"):  # an infinite loss has no deviation
                    rows.append(Row.of(metric, MODEL, values))
            # With more than two classes there is no class 1 that it would be about; they have the macro mean.
            elif metric != "f1" or subject.num_classes == 2:
                value = whole.get(metric)
                rows.append(Row(metric, MODEL, value, None, 0 if value is None else len(labels), len(labeled)))
        return rows


def _of_the_split(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """The metrics that are no mean over examples, without those that are undefined."""
    # The metrics of a training take logits; log-probabilities are such, and keep the float64 of the clean pass.
    metrics = PredictionMetrics(probabilities.shape[1])
    with np.errstate(divide="ignore"):
        metrics.update(torch.from_numpy(np.log(probabilities)), torch.from_numpy(labels))
    results = {name: float(value) for name, value in metrics.compute().items()}
    return {name: value for name, value in results.items() if not np.isnan(value)}
