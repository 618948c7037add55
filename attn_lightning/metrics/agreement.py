"""How far two scores per token agree: attention against an importance measure, or any other pair.

The pure functions take padded NumPy arrays `first` (B, T), `second` (B, T), `mask` (B, T) and give one float64 number
per example. Values at padding never count. A number is NaN where it is undefined: fewer than two real tokens, a
constant vector (for the measures that compare orders or deviations), or a score that is not finite.
"""

import math
from typing import ClassVar

import numpy as np
import scipy
from torch import Tensor
from torchmetrics import MetricCollection

from attn_lightning.metrics.kendall import Concordance
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray, PerExampleMetric, to_array

KENDALL = Measure("kendall", "Kendall's tau-b of the two orders of the tokens", -1.0, uninformative=0.0)
KENDALL_SIGNIFICANT = Measure("kendall_significant", "share of texts whose tau is significant", uninformative=0.05)
SPEARMAN = Measure("spearman", "Spearman's correlation of the ranks of the tokens", -1.0, uninformative=0.0)
PEARSON = Measure("pearson", "Pearson's correlation of the two scores", -1.0, uninformative=0.0)
JENSEN_SHANNON = Measure("jensen_shannon", "divergence of the two scores' shares", 0.0, math.log(2), False, "nats")
TOP_K_OVERLAP = Measure("top_k_overlap", "share of the k highest tokens that both scores have in common")
MEASURES = (KENDALL, KENDALL_SIGNIFICANT, SPEARMAN, PEARSON, JENSEN_SHANNON, TOP_K_OVERLAP)
"""What `agreement` gives."""


def agreement(
    first: FloatArray, second: FloatArray, mask: BoolArray, k: int = 5, level: float = 0.05
) -> dict[str, FloatArray]:
    """Every measure of agreement of two scores.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.
        k: tokens of the top-k overlap, at least 1.
        level: the p-value below which a coefficient counts as significant, in (0, 1).

    Returns:
        (B,) by name, for every one of `MEASURES`; NaN where it is undefined.
    """
    # All pairs of tokens are compared once for the coefficient and its p-value.
    tau, p_value = kendall(first, second, mask)
    return {
        KENDALL.name: tau,
        KENDALL_SIGNIFICANT.name: np.where(np.isnan(p_value), np.nan, p_value < level),
        SPEARMAN.name: spearman(first, second, mask),
        PEARSON.name: pearson(first, second, mask),
        JENSEN_SHANNON.name: jensen_shannon(first, second, mask),
        TOP_K_OVERLAP.name: top_k_overlap(first, second, mask, k),
    }


def kendall(first: FloatArray, second: FloatArray, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """`kendall_tau` and the two-sided p-value of its being 0, for the price of one.

    The p-value is exact without ties, up to 33 tokens and wherever at most one pair is out of order; else it is that of
    the normal limit, its variance corrected for ties.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [-1, 1] and (B,) in [0, 1].

    Source: Kendall, Rank Correlation Methods, 4th edition 1970; equal to `scipy.stats.kendalltau`.
    """
    rows = np.flatnonzero(_varies(first, mask) & _varies(second, mask))
    concordance = Concordance.of(first[rows], second[rows], mask[rows])
    tau, p_value = np.full((2, len(mask)), np.nan)
    tau[rows], p_value[rows] = concordance.tau(), concordance.p_value()
    return tau, p_value


def kendall_tau(first: FloatArray, second: FloatArray, mask: BoolArray) -> FloatArray:
    """Kendall's tau-b, `(C - D) / sqrt((P - X) (P - Y))`, with ties.

    C and D count concordant and discordant pairs, P all pairs, X and Y the pairs tied in the first and second score.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [-1, 1].

    Source: Kendall 1945, https://doi.org/10.1093/biomet/33.3.239; equal to `scipy.stats.kendalltau`.
    Cost: all pairs are compared up to 400 tokens, those of many texts together; `scipy.stats.kendalltau` takes over
    beyond.
    """
    return kendall(first, second, mask)[0]


def spearman(first: FloatArray, second: FloatArray, mask: BoolArray) -> FloatArray:
    """Spearman's rho: Pearson's correlation of the ranks, where tied scores share their average rank.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [-1, 1].
    """
    correlation = pearson(_ranks(first, mask), _ranks(second, mask), mask)
    return np.where(_varies(first, mask) & _varies(second, mask), correlation, np.nan)


def pearson(first: FloatArray, second: FloatArray, mask: BoolArray) -> FloatArray:
    """Pearson's correlation `cov(x, y) / (sd(x) sd(y))`.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [-1, 1].
    """
    x, y = _centered(first, mask), _centered(second, mask)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return np.where(_varies(first, mask) & _varies(second, mask), correlation.clip(-1, 1), np.nan)


def jensen_shannon(first: FloatArray, second: FloatArray, mask: BoolArray) -> FloatArray:
    """Jensen-Shannon divergence `KL(p || m) / 2 + KL(q || m) / 2`, `m = (p + q) / 2`, in nats.

    p and q are the two scores divided by their sums over real tokens.

    Args:
        first: (B, T), at least 0.
        second: (B, T), at least 0.
        mask: (B, T) bool.

    Returns:
        (B,) in [0, ln 2]; NaN also where a score is negative or all are 0, for there is no distribution then.
    """
    p, q = distribution(first, mask), distribution(second, mask)
    middle = (p + q) / 2
    divergence = (scipy.special.rel_entr(p, middle) + scipy.special.rel_entr(q, middle)).sum(1) / 2
    return np.where(mask.sum(1) >= 2, divergence.clip(0, np.log(2)), np.nan)


def top_k_overlap(first: FloatArray, second: FloatArray, mask: BoolArray, k: int = 5) -> FloatArray:
    """Share of the k tokens with the highest first score that are also among the k with the highest second score.

    Of tied scores the earlier tokens come first.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.
        k: at least 1.

    Returns:
        (B,) in [0, 1]; NaN also where the text has no more than k tokens, for the overlap is 1 by force then.
    """
    both = top_k(first, mask, k) & top_k(second, mask, k)
    defined = _varies(first, mask) & _varies(second, mask) & (mask.sum(1) > k)
    return np.where(defined, both.sum(1) / k, np.nan)


def distribution(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """Scores divided by their sum over real tokens.

    Args:
        scores: (B, T).
        mask: (B, T) bool.

    Returns:
        (B, T) float64, 0 at padding; NaN in rows that are no distribution: a real score is negative or not finite, or
        all are 0.
    """
    finite = np.isfinite(scores)
    real = np.where(mask & finite, scores, 0.0).astype(np.float64)
    # float64 above, as the shares of thousands of tokens must sum to 1 closely enough for logarithms.
    total = real.sum(1, keepdims=True)
    usable = (finite | ~mask).all(1, keepdims=True) & (real >= 0).all(1, keepdims=True) & (total > 0)
    return np.where(usable, real, np.nan) / np.where(usable, total, 1.0)


def top_k(scores: FloatArray, mask: BoolArray, k: int) -> BoolArray:
    """Whether a token is among the k of its row with the highest scores; of tied tokens the earlier come first.

    Args:
        scores: (B, T), finite at real tokens.
        mask: (B, T) bool.
        k: at least 1; all real tokens of a row that has fewer.

    Returns:
        (B, T) bool, False at padding.
    """
    if k >= mask.shape[1]:
        return mask.copy()
    # Padding last, so that a row with fewer than k tokens takes all of its own and none of it.
    falling = np.where(mask, -scores, np.inf)
    # Several times faster than a stable sort.
    last = np.partition(falling, k - 1, axis=1)[:, k - 1 : k]
    above, tied = falling < last, falling == last
    chosen: BoolArray = above | (tied & (np.cumsum(tied, axis=1) <= k - above.sum(1, keepdims=True)))
    return chosen & mask


def _varies(scores: FloatArray, mask: BoolArray) -> BoolArray:
    """(B,) whether all real scores are finite and at least two of them differ."""
    finite = (np.isfinite(scores) | ~mask).all(1)
    largest = np.where(mask, scores, -np.inf).max(1, initial=-np.inf)
    smallest = np.where(mask, scores, np.inf).min(1, initial=np.inf)
    # A correlation with a constant is 0 / 0; rounding would make any number of it.
    varies: BoolArray = finite & (largest > smallest)
    return varies


def _centered(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """(B, T) float64 deviations from the mean over real tokens, 0 at padding and where a score is not finite."""
    real = np.where(mask & np.isfinite(scores), scores, 0.0).astype(np.float64)
    mean = real.sum(1, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1)
    return np.where(mask, real - mean, 0.0)


def _ranks(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """(B, T) ranks among the real tokens, from 1; what stands at padding is arbitrary."""
    ranks: FloatArray = scipy.stats.rankdata(np.where(mask & np.isfinite(scores), scores, np.inf), axis=1)
    return ranks


class Agreement(PerExampleMetric):
    """Base of the measures of agreement: subclasses say which."""

    function: ClassVar["staticmethod[[FloatArray, FloatArray, BoolArray], FloatArray]"]

    def update(self, attention: Tensor, importance: Tensor, mask: Tensor) -> None:
        """Add a batch.

        Args:
            attention: (B, T).
            importance: (B, T), for example from `attn_lightning.backbone.importance`.
            mask: (B, T) bool.
        """
        self.add(self.function(to_array(attention), to_array(importance), to_array(mask)))


class Kendall(Agreement):
    """Mean of `kendall_tau` over examples."""

    declared = KENDALL
    function = staticmethod(kendall_tau)


class Spearman(Agreement):
    """Mean of `spearman` over examples."""

    declared = SPEARMAN
    function = staticmethod(spearman)


class Pearson(Agreement):
    """Mean of `pearson` over examples."""

    declared = PEARSON
    function = staticmethod(pearson)


def agreement_metrics() -> MetricCollection:
    """The correlations of one importance with attention, as one collection.

    `compute()` gives one flat dict, `{"kendall_mean": ..., "kendall_std": ..., "kendall_n_valid": ..., ...}`. Give it
    tensors on the CPU where there is a choice: the work happens there.
    """
    # Torchmetrics would merge measures whose sums happen to be equal after the first batch, for good.
    return MetricCollection(
        {metric.declared.name: metric for metric in (Kendall(), Spearman(), Pearson())}, compute_groups=False
    )
