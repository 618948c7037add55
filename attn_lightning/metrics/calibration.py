"""How far stated probabilities can be trusted, beyond the metrics of `attn_lightning.metrics.prediction`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import FloatArray


def brier(probabilities: FloatArray, labels: NDArray[Any]) -> FloatArray:
    """Brier score, `1/2 sum_c (p_c - [c = y])^2`.

    The half makes it `(1 - p_y)^2` for two classes and keeps it in [0, 1] for more.

    Args:
        probabilities: (N, C), rows summing to 1.
        labels: (N,) int64 classes in [0, C).

    Returns:
        (N,) float64 in [0, 1], lower is better; uniform probabilities give `(1 - 1 / C) / 2`.

    Source: Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    # A copy in float64: the next line writes into it, and squares of small errors need the digits.
    errors = probabilities.astype(np.float64)
    errors[np.arange(len(labels)), labels] -= 1
    scores: FloatArray = (errors**2).sum(1) / 2
    return scores


def log_loss(probabilities: FloatArray, labels: NDArray[Any]) -> FloatArray:
    """Negative log-likelihood of the label, `-log p_y`, in nats.

    Args:
        probabilities: (N, C), rows summing to 1.
        labels: (N,) int64 classes in [0, C).

    Returns:
        (N,) float64, at least 0; infinite where the label has probability 0.
    """
    with np.errstate(divide="ignore"):
        losses: FloatArray = -np.log(probabilities[np.arange(len(labels)), labels].astype(np.float64))
    return losses


PER_EXAMPLE: Mapping[Measure, Callable[[FloatArray, NDArray[Any]], FloatArray]] = {
    Measure("brier", "mean squared error of the probabilities (Brier score, halved)", higher_is_better=False): brier,
}
"""What is a number per example, from probabilities and labels, beyond the metrics of a training."""
