"""How a model holds under attack: one number per example and strength, and the area under the curve they make.

How far attention moves is `attn_lightning.metrics.agreement.jensen_shannon` of attention before and after.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.agreement import JENSEN_SHANNON, jensen_shannon
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray
from attn_lightning.metrics.prediction import ACCURACY
from attn_lightning.types import UNLABELED


def correct(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> FloatArray:
    """Whether the label is predicted, 1 or 0; the mean is accuracy.

    Args:
        predicted: (B,) classes.
        labels: (B,) classes.

    Returns:
        (B,) float64; NaN where there is no label.
    """
    return np.where(labels == UNLABELED, np.nan, predicted == labels)


def unchanged(predicted: NDArray[np.int64], clean: NDArray[np.int64]) -> FloatArray:
    """Whether the prediction is that of the unperturbed model, 1 or 0.

    Args:
        predicted: (B,) classes under attack.
        clean: (B,) classes without.

    Returns:
        (B,) float64.
    """
    same: FloatArray = np.equal(predicted, clean).astype(np.float64)
    return same


def area_under_curve(values: FloatArray, strengths: FloatArray) -> FloatArray:
    """Mean height of the curve of every example over the strength of the attack, by the trapezoidal rule.

    `1 / (x_K - x_0) sum_k (x_{k+1} - x_k) (v_k + v_{k+1}) / 2`: what is constant keeps its value, whatever the grid.
    The rule is linear, so the mean over examples is the area under the mean curve where all examples are defined.

    Args:
        values: (B, K) one curve per example.
        strengths: (K,) at least two, strictly rising, the clean model at 0 first.

    Returns:
        (B,) between the smallest and the largest value of the row; NaN where one of them is.

    Raises:
        ValueError: fewer than two strengths, or they do not rise.
    """
    steps = np.diff(strengths)
    if len(steps) < 1 or not (steps > 0).all():
        raise ValueError(f"Expected `strengths` to be two or more rising numbers, but got {list(strengths)}.")
    area: FloatArray = (values[:, 1:] + values[:, :-1]) @ (steps / 2) / steps.sum()
    return area


class UnderAttack(NamedTuple):
    """What a model says of B examples under an attack, and without.

    Attributes:
        labels: (B,) classes.
        predicted: (B,) classes under attack.
        clean: (B,) classes without.
        attention: (B, T) under attack.
        clean_attention: (B, T) without.
        mask: (B, T) bool.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    clean: NDArray[np.int64]
    attention: FloatArray
    clean_attention: FloatArray
    mask: BoolArray


# Attacks are measured by going over this table: a metric that is put into it is measured, declared and shown.
CURVES: Mapping[Measure, Callable[[UnderAttack], FloatArray]] = {
    ACCURACY: lambda found: correct(found.predicted, found.labels),
    Measure("unchanged", "share of predictions that are those of the unperturbed model"): (
        lambda found: unchanged(found.predicted, found.clean)
    ),
    JENSEN_SHANNON.called("attention_jsd", "Jensen-Shannon divergence of attention from that without the attack"): (
        lambda found: jensen_shannon(found.clean_attention, found.attention, found.mask)
    ),
}
"""What is measured at every strength of an attack."""

AREAS = tuple(
    curve.called(f"{curve.name}_area", f"mean over the strengths of the attack: {curve.meaning}") for curve in CURVES
)
"""The mean height of each curve, see `area_under_curve`."""
