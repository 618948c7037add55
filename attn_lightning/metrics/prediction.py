"""How good the predictions are, for two classes and more by one interface."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from attn_lightning.metrics.measure import MANY, Measure

ACCURACY = Measure("accuracy", "share of right predictions")
F1 = Measure("f1", "F1 of class 1, for two classes")
MACRO_F1 = Measure("macro_f1", "mean of the F1 of all classes")
LOG_LOSS = Measure("log_loss", "mean negative logarithm of the label's probability", 0.0, MANY, False, "nats")
MEASURES = (
    ACCURACY,
    F1,
    MACRO_F1,
    Measure("auroc", "area under the ROC curve", uninformative=0.5),
    Measure("average_precision", "average precision of the ranking by probability"),
    LOG_LOSS,
    Measure("ece", "expected calibration error: how far stated confidence is from accuracy", higher_is_better=False),
)
"""What `PredictionMetrics` gives; `f1` for two classes only."""


def prediction_metrics(num_classes: int, prefix: str | None = None) -> "PredictionMetrics":
    """The metrics of a classifier: see `PredictionMetrics`."""
    return PredictionMetrics(num_classes, prefix)


class PredictionMetrics(MetricCollection):
    """Metrics of a classifier, updated with `(logits, labels)`.

    Their meaning, range and direction are in `MEASURES`. `macro_f1` goes over the classes that occur in labels or
    predictions. `auroc` and `average_precision` (`sum_i (R_i - R_{i-1}) P_i`) are those of class 1 for two classes; for
    more, the mean over the classes (one against the rest) that have both positive and negative examples. `ece` takes
    the highest probability, in 15 bins of equal width.

    Where a split leaves one undefined it is NaN, without a warning: `auroc` and
    `average_precision` if only one class occurs, `f1` if class 1 neither occurs nor is predicted. All are computed over
    the whole split, never averaged over batches.

    `auroc`, `average_precision` and `ece` are exact and keep every example's probabilities until `reset` (400 kB for
    25,000 examples of two classes), gathered as they are under DDP; the others keep sums.

    Args:
        num_classes: C, at least 2.
        prefix: put before every name, for example `val/`.
    """

    def __init__(self, num_classes: int, prefix: str | None = None) -> None:
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            "auroc": AUROC(),
            "average_precision": AveragePrecision(),
            "log_loss": LogLoss(),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, norm="l1"),
        }
        if num_classes == 2:
            metrics["f1"] = PositiveF1()
        # Named groups: those that torchmetrics finds by itself may merge states that are equal by chance.
        shared = ["auroc", "average_precision"]
        groups = [shared, *([name] for name in metrics if name not in shared)]
        super().__init__(metrics, prefix=prefix, compute_groups=groups)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the metrics mean, in the order of `MEASURES`."""
        return tuple(measure for measure in MEASURES if measure.name in self)

    def update(self, logits: Tensor, labels: Tensor) -> None:  # type: ignore[override]
        """Add a batch.

        Args:
            logits: (B, C) logits; logarithms of probabilities do as well.
            labels: (B,) int64 classes in [0, C).
        """
        super().update(_probabilities(logits), labels)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Any]:
        """Add a batch and return the metrics of that batch alone; `update` is cheaper."""
        results: dict[str, Any] = super().forward(_probabilities(logits), labels)
        return results


class PositiveF1(MulticlassF1Score):
    """F1 of class 1 of two, `2 TP / (2 TP + FP + FN)`; NaN if there is nothing to find and nothing was found."""

    def __init__(self) -> None:
        super().__init__(2, average="none")

    def compute(self) -> Tensor:
        """The F1 of class 1."""
        return 2 * self.tp[1] / (2 * self.tp[1] + self.fp[1] + self.fn[1])


class LogLoss(Metric):
    """Mean over examples of `-log p_label`, in nats."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = LOG_LOSS.higher_is_better

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: (B, C) probabilities and (B,) labels."""
        # A running sum in float64 instead of a mean per batch: batches of different sizes would weigh alike.
        self.total = self.total - probabilities.double().gather(1, labels.unsqueeze(1)).log().sum()
        self.count = self.count + labels.numel()

    def compute(self) -> Tensor:
        """The mean, infinite if a label had probability 0."""
        return (self.total / self.count).float()


class OneAgainstRest(Metric):
    """Base of the metrics of a ranking: that of class 1 for two classes, the mean over all classes for more."""

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: (B, C) probabilities and (B,) labels."""
        # A ranking needs all examples at once: it is no mean over batches.
        self.probabilities.append(probabilities.detach())
        self.labels.append(labels)

    def compute(self) -> Tensor:
        """The mean over the classes for which the ranking is defined, NaN if there are none."""
        probabilities, labels = dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)
        return one_against_rest(self.rank, probabilities, labels)

    @staticmethod
    def rank(scores: Tensor, positive: Tensor) -> Tensor:
        """() value of (N,) scores for (N,) int64 labels, 1 for positive examples."""
        raise NotImplementedError


class AUROC(OneAgainstRest):
    """Area under the ROC curve."""

    @staticmethod
    def rank(scores: Tensor, positive: Tensor) -> Tensor:
        """See `torchmetrics.functional.classification.binary_auroc`."""
        return binary_auroc(scores, positive, thresholds=None, validate_args=False)


class AveragePrecision(OneAgainstRest):
    """Average precision; the share of positive examples for a classifier without any information."""

    @staticmethod
    def rank(scores: Tensor, positive: Tensor) -> Tensor:
        """See `torchmetrics.functional.classification.binary_average_precision`."""
        return binary_average_precision(scores, positive, thresholds=None, validate_args=False)


def one_against_rest(rank: Callable[[Tensor, Tensor], Tensor], probabilities: Tensor, labels: Tensor) -> Tensor:
    """Mean of `rank(p_c, label = c)` over the classes c that have both positive and negative examples.

    Args:
        rank: (N,) scores and (N,) int64 labels to a scalar.
        probabilities: (N, C).
        labels: (N,) int64.

    Returns:
        () float32; for two classes that of class 1; NaN if there is no such class.
    """
    num_classes = probabilities.shape[1]
    classes = [1] if num_classes == 2 else range(num_classes)
    positives = {c: (labels == c).long() for c in classes}
    # A class that every example or none belongs to cannot be ranked; it is left out of the mean instead of counting as
    # 0.
    values = [rank(probabilities[:, c], y).float() for c, y in positives.items() if 0 < int(y.sum()) < len(y)]
    return torch.stack(values).mean() if values else torch.tensor(float("nan"), device=labels.device)


def _probabilities(logits: Tensor) -> Tensor:
    """(B, C) float64, because a float32 softmax makes ties of confident predictions and infinite logarithms."""
    return logits.detach().double().softmax(-1)
