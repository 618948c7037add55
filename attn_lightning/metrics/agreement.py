"""How far two scores per token agree: attention against an importance measure, or any other pair.

The pure functions take padded NumPy arrays `first` (B, T), `second` (B, T), `mask` (B, T) and give one float64 number
per example. Values at padding never count. A number is NaN where it is undefined: fewer than two real tokens, a
constant vector (for the measures that compare orders or deviations), or a score that is not finite.
"""

from typing import Any, ClassVar

import numpy as np
from scipy import special, stats
from torch import Tensor
from torchmetrics import MetricCollection

from attn_lightning.metrics.kendall import Concordance
from attn_lightning.metrics.per_example import BoolArray, FloatArray, PerExampleMetric, to_array


def kendall(first: FloatArray, second: FloatArray, mask: BoolArray) -> tuple[FloatArray, FloatArray]:
    """`kendall_tau` and `kendall_p_value` for the price of one.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [-1, 1] and (B,) in [0, 1].
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


def kendall_p_value(first: FloatArray, second: FloatArray, mask: BoolArray) -> FloatArray:
    """Two-sided p-value of Kendall's tau being 0.

    Exact without ties, up to 33 tokens and wherever at most one pair is out of order; else by the normal limit, its
    variance corrected for ties.

    Args:
        first: (B, T).
        second: (B, T).
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1].

    Source: Kendall, Rank Correlation Methods, 4th edition 1970; equal to `scipy.stats.kendalltau`.
    """
    return kendall(first, second, mask)[1]


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
    divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(1) / 2
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
    varies: BoolArray = finite & (largest > smallest)
    return varies


def _centered(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """(B, T) float64 deviations from the mean over real tokens, 0 at padding and where a score is not finite."""
    real = np.where(mask & np.isfinite(scores), scores, 0.0).astype(np.float64)
    mean = real.sum(1, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1)
    return np.where(mask, real - mean, 0.0)


def _ranks(scores: FloatArray, mask: BoolArray) -> FloatArray:
    """(B, T) ranks among the real tokens, from 1; what stands at padding is arbitrary."""
    ranks: FloatArray = stats.rankdata(np.where(mask & np.isfinite(scores), scores, np.inf), axis=1)
    return ranks


class Agreement(PerExampleMetric):
    """Base of the measures of agreement: subclasses say which.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    def update(self, attention: Tensor, importance: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            attention: (B, T).
            importance: (B, T), for example from `attn_lightning.backbone.importance`.
            mask: (B, T) bool.
            predicted: (B,) int64 predicted classes; needed if `num_classes` was given.
        """
        self.add(self.measure(to_array(attention), to_array(importance), to_array(mask)), predicted)

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """(B,) one number per example, NaN where it is undefined."""
        raise NotImplementedError


class Kendall(Agreement):
    """Mean of `kendall_tau` over examples.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "kendall"
    higher_is_better = True
    minimum: ClassVar[float] = -1.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = 0.0

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """See `kendall_tau`."""
        return kendall_tau(attention, importance, mask)


class KendallSignificance(Agreement):
    """Share of examples whose `kendall_p_value` is below `level`.

    Args:
        level: largest p-value that counts as significant, in (0, 1).
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "kendall_significant"
    higher_is_better = True
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = 0.05

    def __init__(self, level: float = 0.05, num_classes: int = 0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.level = level

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """1 where the p-value is below `level`, 0 where it is not."""
        p_value = kendall_p_value(attention, importance, mask)
        return np.where(np.isnan(p_value), np.nan, (p_value < self.level).astype(np.float64))


class Spearman(Agreement):
    """Mean of `spearman` over examples.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "spearman"
    higher_is_better = True
    minimum: ClassVar[float] = -1.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = 0.0

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """See `spearman`."""
        return spearman(attention, importance, mask)


class Pearson(Agreement):
    """Mean of `pearson` over examples.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "pearson"
    higher_is_better = True
    minimum: ClassVar[float] = -1.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = 0.0

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """See `pearson`."""
        return pearson(attention, importance, mask)


class JensenShannon(Agreement):
    """Mean of `jensen_shannon` over examples, in nats.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "jensen_shannon"
    higher_is_better = False
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = float(np.log(2))
    uninformative: ClassVar[float | None] = None

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """See `jensen_shannon`."""
        return jensen_shannon(attention, importance, mask)


class TopKOverlap(Agreement):
    """Mean of `top_k_overlap` over examples.

    An uninformative explanation scores `k / n` on a text of n tokens.

    Args:
        k: how many tokens are compared, at least 1.
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "top_k_overlap"
    higher_is_better = True
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = None

    def __init__(self, k: int = 5, num_classes: int = 0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.k = k

    def measure(self, attention: FloatArray, importance: FloatArray, mask: BoolArray) -> FloatArray:
        """See `top_k_overlap`."""
        return top_k_overlap(attention, importance, mask, self.k)


def agreement_metrics(num_classes: int = 0, k: int = 5, complete: bool = False) -> MetricCollection:
    """The measures of agreement of one importance with attention, as one collection.

    `compute()` gives one flat dict, `{"kendall_mean": ..., "kendall_std": ..., "kendall_n_valid": ..., ...}`. Give it
    tensors on the CPU where there is a choice: the work happens there.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        k: how many tokens the top-k overlap compares.
        complete: add the share of significant Kendall coefficients, Jensen-Shannon divergence and top-k overlap to
            Kendall, Spearman and Pearson.
    """
    measures: list[Agreement] = [Kendall(num_classes), Spearman(num_classes), Pearson(num_classes)]
    if complete:
        measures += [
            KendallSignificance(num_classes=num_classes),
            JensenShannon(num_classes),
            TopKOverlap(k, num_classes),
        ]
    # Torchmetrics would merge measures whose sums happen to be equal after the first batch, for good.
    return MetricCollection({measure.name: measure for measure in measures}, compute_groups=False)
