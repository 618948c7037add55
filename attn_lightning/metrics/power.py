"""How many seeds a difference needs: planning, for the paired test that the tables of a study use."""

import math

import scipy

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 9999


def seeds_needed(difference: float, deviation: float, power: float = POWER, alpha: float = ALPHA) -> float:
    """Seeds with which a true difference is found significant in a share `power` of studies.

    Power of the two-sided t test of n paired differences (Cohen 1988; the permutation test of the tables has the same
    from 8 pairs on, up to 4 points less with 7):

        `P(|T| > t_{1 - alpha/2, n - 1})`,  T noncentral t with n - 1 degrees of freedom and noncentrality √n |d| / s.

    The permutation test of n pairs has no p-value below 2^(1 - n), so that n is at least `1 - log2(alpha)` whatever the
    difference: 6 for .05. There it is significant only if all differences have one sign: `Φ(|d|/s)^n + Φ(-|d|/s)^n`.

    Args:
        difference: d, the true mean of the paired differences, in the unit of the metric.
        deviation: s, their true standard deviation, at least 0.
        power: in (0, 1).
        alpha: level of the test, before any adjustment for the number of tests.

    Returns:
        The number of seeds; inf beyond `MOST_SEEDS` (of no difference always); NaN if an argument is NaN.
    """
    if math.isnan(difference) or math.isnan(deviation):
        return math.nan
    # Of p-values below alpha, not at it.
    fewest = math.floor(1 - math.log2(alpha)) + 1
    if difference == 0:
        return math.inf
    if deviation == 0 or _signs_alike(abs(difference) / deviation, fewest) >= power:
        return fewest
    low, high, effect = fewest, MOST_SEEDS, abs(difference) / deviation
    if _power(effect, high, alpha) < power:
        return math.inf
    # The power rises with n: halve the range in which it passes the one that is asked for.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(effect, middle, alpha) >= power else (middle, high)
    return high


def _signs_alike(effect: float, n: int) -> float:
    return float(scipy.stats.norm.cdf(effect) ** n + scipy.stats.norm.cdf(-effect) ** n)


def _power(effect: float, n: int, alpha: float) -> float:
    critical, shift = scipy.stats.t.ppf(1 - alpha / 2, n - 1), effect * math.sqrt(n)
    other_side = float(scipy.stats.nct.cdf(-critical, n - 1, shift))
    # scipy gives NaN for a probability that is too small to compute, far on the other side.
    return float(scipy.stats.nct.sf(critical, n - 1, shift)) + (0.0 if math.isnan(other_side) else other_side)
