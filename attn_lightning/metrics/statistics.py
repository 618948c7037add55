"""Statistics over seeds: pure functions of a few numbers, each NaN where it is undefined.

Everything is deterministic: what is drawn is drawn from a generator with a fixed seed, so that the same runs always
give the same table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from attn_lightning.metrics.intervals import UNBOUNDED, difference_interval, mean_interval
from attn_lightning.metrics.power import seeds_needed

Floats = npt.NDArray[np.float64]

NUM_RESAMPLES = 9999
"""Signs that a permutation test draws where there are more."""

_BATCH = 2**22
"""Signs drawn at a time."""

_MANY = 1000
"""Pairs above which ties of sums no longer matter, and time does."""


def standard_deviation(values: Sequence[float] | Floats) -> float:
    """Sample standard deviation, divisor n - 1; NaN below two values."""
    # Seeds are a sample of all seeds, hence n - 1; examples of a split are all there are, and divided by n elsewhere.
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def paired_permutation_test(
    differences: Sequence[float] | Floats, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p-value of the mean of paired differences, by `scipy.stats.permutation_test`.

    Under the null hypothesis every difference is as likely as its opposite:
    `p = #{signs: |mean(sign · d)| >= |mean(d)|} / #signs`, over all 2^n signs where those are no more than
    `num_resamples` (n = 13), else over that many random ones with the observed one added to both counts. The smallest
    possible value is 2^(1 - n): with five seeds no difference, however large, is significant at .05.

    Args:
        differences: n finite numbers, one per seed that both runs share.
        num_resamples: number of random signs.
        seed: of those.

    Returns:
        p in (0, 1]; NaN below two pairs.
    """
    sample = np.asarray(differences, dtype=np.float64)
    total = np.abs(sample).sum()
    if len(sample) < 2:
        return float("nan")
    # All signs give the same mean, so every one of them is as extreme as the observed.
    if total == 0:
        return 1.0

    if len(sample) > _MANY:
        return _of_many(sample, num_resamples, seed)

    def size(signed: Floats, axis: int) -> Floats:
        # Equal sums in another order of adding may differ in the last digits, and ties must count: scipy lets 1e-14 of
        # the statistic pass, which is more than rounding only if the statistic is not near 0.
        share: Floats = 1 + np.abs(signed.sum(axis=axis)) / total
        return share

    found = scipy.stats.permutation_test(
        (sample,),
        size,
        permutation_type="samples",
        vectorized=True,
        n_resamples=num_resamples,
        # All signs of 20,000 documents at once would take gigabytes.
        batch=max(1, _BATCH // len(sample)),
        # Of sizes, those that are as large: the test of the mean has two sides.
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _of_many(sample: Floats, num_resamples: int, seed: int) -> float:
    """The same for thousands of pairs by products of matrices, which scipy would take minutes for."""
    generator, extreme, left = np.random.default_rng(seed), 0, num_resamples
    # float32 halves the time of the product; the tolerance below covers its rounding, which ties would feel.
    differences, observed = sample.astype(np.float32), abs(float(sample.sum()))
    while left:
        drawn = min(left, max(1, _BATCH // len(sample)))
        # Flipping a difference takes it from the sum twice.
        flipped = generator.integers(0, 2, (drawn, len(sample)), dtype=np.int8).astype(np.float32) @ differences
        extreme += int((np.abs(float(sample.sum()) - 2 * flipped) >= observed * (1 - 1e-6)).sum())
        left -= drawn
    # With the observed signs among the drawn ones: a p-value of 0 cannot be claimed from a finite number of draws.
    return (extreme + 1) / (num_resamples + 1)


def effect_size(differences: Sequence[float] | Floats) -> float:
    """Cohen's d of paired differences, mean / standard deviation; NaN below two pairs or if all are equal."""
    deviation = standard_deviation(differences)
    return float(np.mean(differences)) / deviation if deviation > 0 else float("nan")


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, step-down (Holm 1979).

    With p sorted ascending, `adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`.

    Args:
        p_values: the m tests of one table; NaN is no test and is not counted.

    Returns:
        The adjusted values in the order given, NaN where NaN was given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, factors * p[order]))
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Summary:
    """One metric of one method over its seeds; NaN where undefined.

    Attributes:
        n: number of seeds with a finite value.
        mean: their mean.
        std: their sample standard deviation.
        low: lower end of the 95 % interval of the mean (`mean_interval`).
        high: upper end.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A method minus the baseline on the seeds that both have; NaN where undefined.

    Attributes:
        n: number of shared seeds.
        difference: mean of the differences.
        low: lower end of the 95 % interval of that mean (`difference_interval`).
        high: upper end.
        effect: Cohen's d of the paired differences.
        p: two-sided p-value of the paired permutation test, unadjusted.
        seeds_needed: seeds with which a true difference of this size and deviation is found in four of five studies;
            inf where no number of seeds would do, NaN where the deviation is unknown.
    """

    n: int
    difference: float
    low: float
    high: float
    effect: float
    p: float
    seeds_needed: float


def summarize(values: Sequence[float], bounds: tuple[float, float] = UNBOUNDED) -> Summary:
    """Mean, standard deviation and interval; values that are not finite are left out and not counted in n.

    Args:
        values: one per seed.
        bounds: smallest and largest possible value, at which the interval ends.
    """
    finite = [value for value in values if np.isfinite(value)]
    mean = float(np.mean(finite)) if finite else float("nan")
    return Summary(len(finite), mean, standard_deviation(finite), *mean_interval(finite, bounds=bounds))


def compare(
    values: Mapping[int, float], baseline: Mapping[int, float], bounds: tuple[float, float] = UNBOUNDED
) -> Comparison:
    """Paired difference to the baseline.

    Args:
        values: metric by seed.
        baseline: the baseline's, by seed; seeds that only one of the two has, or where one is not finite, are left out.
        bounds: smallest and largest possible value of the metric, which bound the difference.

    Returns:
        The differences `values - baseline`, summarized.
    """
    shared = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    differences = [value for value in shared if np.isfinite(value)]
    mean = float(np.mean(differences)) if differences else float("nan")
    widest = bounds[1] - bounds[0]
    low, high = difference_interval(differences, bounds=(-widest, widest))
    return Comparison(
        n=len(differences),
        difference=mean,
        low=low,
        high=high,
        effect=effect_size(differences),
        p=paired_permutation_test(differences),
        seeds_needed=seeds_needed(mean, standard_deviation(differences)),
    )
