"""How much a prediction hangs on the tokens that an explanation names: formulas on probabilities already at hand.

The functions take NumPy arrays and give one float64 number per example. NaN in gives NaN out. Legend: B examples,
T tokens of the longest, `p` the probability of the class that the model predicts for the whole text.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
"""The fractions of a text that ERASER erases."""

_SMALLEST_LOSS = 1e-4
"""What a text must add to the probability of nothing: below it, rounding would rule the soft scores."""


def tokens_in_fraction(fraction: float, lengths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """`k = ceil(fraction * n)`, at least 1.

    Products that exceed a whole number by rounding alone (0.07 * 100 in floating point) are that number.

    Args:
        fraction: in (0, 1].
        lengths: (B,) n.

    Returns:
        (B,) in 1..n.
    """
    # At least one token: nothing removed would be a comprehensiveness of 0 for every explanation of a short text.
    size: NDArray[np.int64] = np.ceil(fraction * lengths - 1e-9).astype(np.int64).clip(1, lengths)
    return size


def ranks(scores: FloatArray, mask: BoolArray) -> NDArray[np.int64]:
    """Rank of every token by falling score, from 0; of equal scores the earlier token comes first.

    Args:
        scores: (..., T); values at padding are ignored.
        mask: (..., T) bool.

    Returns:
        (..., T); padding comes after all real tokens.
    """
    # Stable, so that of equal scores the earlier token comes first on every platform.
    order = np.argsort(np.where(mask, -scores, np.inf), axis=-1, kind="stable")
    places = np.empty(order.shape, np.int64)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(order.shape[-1]), order.shape), axis=-1)
    return places


def comprehensiveness(whole: FloatArray, without: FloatArray) -> FloatArray:
    """`p(y | x) - p(y | x without r)`: what the prediction loses with the rationale r.

    Args:
        whole: (..., B) p of the whole text.
        without: (..., B) p of the text without the rationale.

    Returns:
        (..., B) in [-1, 1]; higher is better.

    Source: DeYoung et al. 2020 (ERASER), https://aclanthology.org/2020.acl-main.408, eq. 1.
    """
    return whole - without


def sufficiency(whole: FloatArray, only: FloatArray) -> FloatArray:
    """`p(y | x) - p(y | r)`: what the prediction loses where nothing but the rationale is left.

    Args:
        whole: (..., B) p of the whole text.
        only: (..., B) p of the rationale alone.

    Returns:
        (..., B) in [-1, 1]; lower is better.

    Source: DeYoung et al. 2020 (ERASER), https://aclanthology.org/2020.acl-main.408, eq. 2.
    """
    return whole - only


def area_over_perturbation_curve(values: Sequence[FloatArray]) -> FloatArray:
    """AOPC: the mean of comprehensiveness, or of sufficiency, over rationales of several lengths.

    The ERASER paper's formula divides by |bins| + 1 and has a bin k = 0 in its sum; its code leaves that bin out. For
    the formula, give the bin among the values: comprehensiveness is 0 there, sufficiency is that of the empty text.

    Args:
        values: (B,) for every bin.

    Returns:
        (B,) in [-1, 1].

    Source: DeYoung et al. 2020 (ERASER), https://aclanthology.org/2020.acl-main.408, eq. 3.
    """
    area: FloatArray = np.mean(np.asarray(values), axis=0)
    return area


def soft_scales(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """`s_t = (a_t - min a) / (max a - min a)` over the real tokens: the share of a token that a soft erasure keeps.

    Args:
        scores: (..., T) any finite numbers; values at padding are ignored.
        mask: (..., T) bool, at least one True per row.

    Returns:
        (..., T) float64 in [0, 1], 0 at padding; 1/2 for every token where all scores are equal.
    """
    largest = np.where(mask, scores, -np.inf).max(-1, keepdims=True).astype(np.float64)
    smallest = np.where(mask, scores, np.inf).min(-1, keepdims=True).astype(np.float64)
    spread = largest - smallest
    # In float64 from here: scores of 1e-30, as gradients have them, keep their order and spread.
    scaled = (np.where(mask, scores, smallest) - smallest) / np.where(spread > 0, spread, 1.0)
    # Equal scores name no token; half of each is the only choice that favours neither removal nor keeping.
    return np.where(mask, np.where(spread > 0, scaled, 0.5), 0.0)


def soft_comprehensiveness(whole: FloatArray, without: FloatArray, nothing: FloatArray) -> FloatArray:
    """`max(0, p(y | x) - p(y | x')) / (p(y | x) - p(y | 0))`, clipped to [0, 1].

    x' has the embeddings `(1 - s_t) x_t` with s from `soft_scales`, and 0 the embeddings 0; both are as long as x. The
    source multiplies each entry of an embedding by a draw from a Bernoulli distribution of that mean; taking the mean
    itself needs no draws. Without the bound 1, texts of which the model is hardly surer than of nothing would rule
    every average.

    Args:
        whole: (B,) p of the whole text.
        without: (B,) p of x'.
        nothing: (B,) p of 0.

    Returns:
        (B,) in [0, 1], higher is better; NaN where p is higher by less than 1e-4 for the
        text than for nothing.

    Source: Zhao and Aletras 2023 (Soft-NC), https://arxiv.org/abs/2305.10496.
    """
    return _share(np.maximum(0.0, whole - without), whole - nothing)


def soft_sufficiency(whole: FloatArray, only: FloatArray, nothing: FloatArray) -> FloatArray:
    """`(S(x') - S(0)) / (1 - S(0))` with `S(z) = 1 - max(0, p(y | x) - p(y | z))`, clipped to [0, 1].

    x' has the embeddings `s_t x_t` with s from `soft_scales`; see `soft_comprehensiveness` for the rest.

    Args:
        whole: (B,) p of the whole text.
        only: (B,) p of x'.
        nothing: (B,) p of 0.

    Returns:
        (B,) in [0, 1], higher is better (unlike ERASER's); NaN where p is higher by less than 1e-4 for the
        text than for nothing.

    Source: Zhao and Aletras 2023 (Soft-NS), https://arxiv.org/abs/2305.10496.
    """
    lost = whole - nothing
    return _share(lost - np.maximum(0.0, whole - only), lost)


def flip_share(removals: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> FloatArray:
    """Share of the tokens that had to be removed until the prediction changed.

    Args:
        removals: (B,) number of removed tokens, 0 where the prediction never changed.
        lengths: (B,) tokens of every text.

    Returns:
        (B,) in (0, 1], 1 where it never changed; lower is better.

    Source: Serrano and Smith 2019, https://aclanthology.org/P19-1282, section 5.
    """
    return np.where(removals > 0, removals / lengths, 1.0)


def post_hoc_accuracy(predicted: NDArray[np.integer[Any]], from_top: NDArray[np.integer[Any]]) -> FloatArray:
    """Whether the top tokens alone give the class that the whole text gives.

    Args:
        predicted: (..., B) classes predicted for whole texts.
        from_top: (..., B) classes predicted for their top tokens.

    Returns:
        (..., B) 0 or 1; higher is better.

    Source: Chen et al. 2018 (L2X), https://arxiv.org/abs/1802.07814, section 4.
    """
    agrees: FloatArray = (predicted == from_top).astype(np.float64)
    return agrees


def total_variation(first: FloatArray, second: FloatArray) -> FloatArray:
    """`1/2 sum_c | p_c - q_c |`.

    Args:
        first: (..., C) probabilities.
        second: (..., C) probabilities.

    Returns:
        (...) in [0, 1].
    """
    distance: FloatArray = 0.5 * np.abs(first - second).sum(-1)
    return distance


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """`part / whole` in [0, 1], NaN where `whole` is too small."""
    enough = whole >= _SMALLEST_LOSS
    share: FloatArray = np.where(enough, part / np.where(enough, whole, 1.0), np.nan).clip(0, 1)
    return share


class Erased(NamedTuple):
    """Probabilities p around a hard rationale, (..., B) each, and what is fed to the metrics of a fraction.

    Attributes:
        whole: of the text.
        without: of the text without the rationale.
        only: of the rationale alone.
    """

    whole: FloatArray
    without: FloatArray
    only: FloatArray


class Faded(NamedTuple):
    """Probabilities p around a soft rationale, (..., B) each; see `soft_scales`.

    Attributes:
        whole: of the text.
        without: of the text whose top tokens fade.
        only: of the text in which all but the top tokens fade.
        nothing: of the embeddings 0.
    """

    whole: FloatArray
    without: FloatArray
    only: FloatArray
    nothing: FloatArray


PER_FRACTION: Mapping[Measure, Callable[[Erased], FloatArray]] = {
    Measure("comprehensiveness", "probability that the prediction loses without the top tokens", -1.0): (
        lambda p: comprehensiveness(p.whole, p.without)
    ),
    Measure("sufficiency", "probability that the prediction loses with the top tokens alone", -1.0, 1.0, False): (
        lambda p: sufficiency(p.whole, p.only)
    ),
}
"""What is measured at every fraction of a text, (..., B); each has its mean over the fractions in `AREAS` too."""

AREAS = tuple(each.called(f"aopc_{each.name}", f"mean of {each.name} over the bins") for each in PER_FRACTION)
"""See `area_over_perturbation_curve`."""

SOFT: Mapping[Measure, Callable[[Faded], FloatArray]] = {
    Measure("soft_comprehensiveness", "share of the prediction that is lost where the top words fade"): (
        lambda p: soft_comprehensiveness(p.whole, p.without, p.nothing)
    ),
    # Unlike ERASER's sufficiency, which is a loss: the authors of the soft scores turned it round.
    Measure("soft_sufficiency", "share of the prediction that is kept where all but the top words fade"): (
        lambda p: soft_sufficiency(p.whole, p.only, p.nothing)
    ),
}
"""What is measured where tokens fade instead of being removed."""

DECISION_FLIP = Measure(
    "decision_flip", "share of top tokens to remove until the class changes", higher_is_better=False
)

PER_COUNT: Mapping[Measure, Callable[[NDArray[np.int64], NDArray[np.int64]], FloatArray]] = {
    Measure("post_hoc_accuracy", "share of texts whose top tokens alone give the same class"): post_hoc_accuracy,
}
"""What is measured of the class predicted for the whole text and for a number of its top tokens."""

# The family goes over these tables, so a metric that is put into one of them is measured, declared and shown.
MEASURES = (*PER_FRACTION, *AREAS, *SOFT, DECISION_FLIP, *PER_COUNT)
"""All of them, in the order in which they are shown."""
