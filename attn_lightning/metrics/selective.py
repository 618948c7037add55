"""Whether a model is right for the right reason, on data where exactly one segment carries the label.

Selective dependence classification (SDC): of the segments of an example one, z*, decides the label. The focus of the
model is `z = argmax_t a_t`, the first of equals. Every example then has one of four outcomes:

| | prediction right | prediction wrong |
|---|---|---|
| z = z* | FTPT: focus true, prediction true | FTPF: focus true, prediction false |
| z != z* | FFPT: focus false, prediction true | FFPF: focus false, prediction false |

z* is given as a mask. For segments it is True at one of them. In text the evidence is a phrase of several tokens, which
counts as the one segment: the focus is true if it lies anywhere in the phrase, and the weight on z* is the sum over it.

The pure functions take padded NumPy arrays and give numbers per example, NaN where they are undefined: no segment is
marked, a score is not finite, or the example has no label.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.agreement import distribution
from attn_lightning.metrics.measure import MANY, Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray
from attn_lightning.metrics.plausibility import RATIONALE_MASS, rationale_mass, top_1_hit
from attn_lightning.metrics.prediction import ACCURACY
from attn_lightning.types import UNLABELED

OUTCOMES = (
    Measure("ftpt", "prediction right, top weight on the rationale"),
    Measure("ffpt", "prediction right, top weight elsewhere", higher_is_better=False),
    Measure("ftpf", "prediction wrong, top weight on the rationale", higher_is_better=False),
    Measure("ffpf", "prediction wrong, top weight elsewhere", higher_is_better=False),
)
"""The columns of `outcomes`.

The four sum to 1 and FTPT is the goal, so each of the others is a way of missing it: lower is better, FTPF included. A
model that looks at the evidence and still errs is no better for having looked. (For a *fixed* set of wrong predictions
FTPF rises as FFPF falls; that is why controls, which share the predictions of the model, say nothing about FTPF.)
"""

INTERPRETABILITY = Measure("interpretability", "share of right predictions with the top weight on the rationale")


class Weighed(NamedTuple):
    """What a number about the weights of an example is made of, for a batch.

    Attributes:
        scores: (B, T), attention or any other score per segment.
        rationale: (B, T) bool, True at z*.
        mask: (B, T) bool.
    """

    scores: FloatArray
    rationale: BoolArray
    mask: BoolArray


def outcomes(
    scores: FloatArray, evidence: BoolArray, mask: BoolArray, predicted: NDArray[Any], labels: NDArray[Any]
) -> FloatArray:
    """Which of the four outcomes every example has; the means of the columns are the SDC rates.

        FTPT = P(z = z*, y' = y)    FFPT = P(z != z*, y' = y)    FTPF = P(z = z*, y' != y)    FFPF = P(z != z*, y' != y)

    FTPT + FFPT is the accuracy, and all four sum to 1.

    Args:
        scores: (B, T), attention or any other score per segment.
        evidence: (B, T) bool, True at z*.
        mask: (B, T) bool.
        predicted: (B,) int64 predicted classes y'.
        labels: (B,) int64 classes y, `UNLABELED` (-1) where there is none.

    Returns:
        (B, 4) float64, one 1 per row and else 0, in the order of `OUTCOMES`; rows of NaN where undefined.
    """
    hit = top_1_hit(scores, evidence, mask)
    right = np.where(labels == UNLABELED, np.nan, predicted == labels)
    return np.stack([hit * right, (1 - hit) * right, hit * (1 - right), (1 - hit) * (1 - right)], axis=1)


def interpretability(rates: FloatArray) -> float:
    """Share of the right predictions that were made for the right reason, `FTPT / (FTPT + FFPT)`.

    Args:
        rates: (N, 4) from `outcomes`; rows of NaN are left out.

    Returns:
        In [0, 1], NaN if no prediction is right.
    """
    ftpt, ffpt = np.nansum(rates[:, :2], axis=0)
    return float(ftpt / (ftpt + ffpt)) if ftpt + ffpt > 0 else float("nan")


def is_dominant(scores: FloatArray, mask: BoolArray, share: float = 0.5) -> FloatArray:
    """1 where a single segment has at least `share` of all weight, 0 where none has.

    Args:
        scores: (B, T), at least 0; divided by their sum first.
        mask: (B, T) bool.
        share: in (0, 1].

    Returns:
        (B,) 0 or 1; NaN where a score is negative or not finite, or all are 0.
    """
    largest = distribution(scores, mask).max(1)
    return np.where(np.isnan(largest), np.nan, largest >= share)


PER_EXAMPLE: Mapping[Measure, Callable[[Weighed], FloatArray]] = {
    RATIONALE_MASS.called("evidence_weight", "share of the weight that lies on the rationale"): (
        lambda batch: rationale_mass(batch.scores, batch.rationale, batch.mask)
    ),
}
"""(B,) numbers whose mean is shown, and how to compute them."""

COUNTED: Mapping[Measure, Callable[[Weighed], FloatArray]] = {
    Measure("dominant", "examples where one segment has half of all weight", 0.0, MANY, None, "examples"): (
        lambda batch: is_dominant(batch.scores, batch.mask)
    ),
}
"""(B,) ones and zeros whose sum is shown, and how to compute them."""

MEASURES = (*OUTCOMES, ACCURACY, INTERPRETABILITY, *PER_EXAMPLE, *COUNTED)
