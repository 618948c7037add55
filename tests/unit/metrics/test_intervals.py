"""Intervals over few seeds: their coverage, simulated, and their formula against scipy and a root finder."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from attn_lightning.metrics.intervals import difference_interval, mean_interval, mean_intervals

SAMPLES = 200_000
VALUES = [0.81, 0.84, 0.79, 0.9, 0.83]

SHAPES = {
    "normal": stats.norm(0, 1),
    "exponential": stats.expon(),
    "lognormal, σ .5": stats.lognorm(0.5),
    "accuracy around .98": stats.beta(98, 2),
    "accuracy near 1": stats.beta(49, 1),
    "accuracy around .8": stats.beta(20, 5),
}


def coverage(shape, n, intervals):
    samples = shape.rvs((SAMPLES, n), random_state=np.random.default_rng(n))
    low, high = intervals(samples)
    return np.mean((low <= shape.mean()) & (shape.mean() <= high))


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_level_holds_for_normal_and_for_skewed_values(shape, n):
    assert 0.93 <= coverage(shape, n, mean_intervals) <= 0.97


PAIRS = {
    "normal, normal": (stats.norm(0, 1), stats.norm(0, 2)),
    "exponential, exponential": (stats.expon(), stats.expon()),
    "exponential, half of it": (stats.expon(), stats.expon(0, 0.5)),
    "exponential, normal of half its deviation": (stats.expon(), stats.norm(0, 0.5)),
    "accuracy near 1, around .98": (stats.beta(49, 1), stats.beta(98, 2)),
}


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_the_level_holds_for_paired_differences(pair, n):
    generator = np.random.default_rng(n)
    first, second = (shape.rvs((SAMPLES, n), random_state=generator) for shape in pair)
    low, high = t_intervals(first - second)
    expected = pair[0].mean() - pair[1].mean()
    assert 0.925 <= np.mean((low <= expected) & (expected <= high)) <= 0.97


@pytest.mark.parametrize("values", [VALUES, [0.1, 0.1, 0.4], [-0.02, 0.01]])
def test_the_interval_of_a_difference_is_that_of_a_t_test(values):
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert difference_interval(values) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("interval", [mean_interval, difference_interval])
def test_intervals_of_few_equal_and_undefined_values(interval):
    assert np.isnan([interval([0.5]), interval([]), interval([0.5, math.nan])]).all()
    assert interval([0.1 + 0.2] * 3) == pytest.approx((0.3, 0.3), abs=1e-15)
    assert interval([-1.0, 1.0], bounds=(-0.5, 0.25)) == (-0.5, 0.25)


def test_what_it_replaces_does_not_hold_its_level():
    """The percentile bootstrap of three normal numbers is at most as wide as they are: it misses one mean in four."""

    def bootstrap(samples):
        resamples = np.stack(np.meshgrid(*[range(3)] * 3), axis=-1).reshape(-1, 3)
        means = samples[:20_000, resamples].mean(axis=-1)
        return np.quantile(means, [0.025, 0.975], axis=-1)

    assert coverage(SHAPES["normal"], 3, bootstrap) < 0.8
    # And the t interval, right for the normal, misses one mean in nine of the exponential.
    assert coverage(SHAPES["exponential"], 3, t_intervals) < 0.9


def t_intervals(samples, level=0.95):
    n = samples.shape[-1]
    half = stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(samples, axis=-1)
    return samples.mean(axis=-1) - half, samples.mean(axis=-1) + half


def test_a_tail_that_is_not_in_the_sample_cannot_be_covered():
    """Said in the documentation: with a skewness of 6, three numbers hardly ever show the tail."""
    assert 0.88 < coverage(stats.lognorm(1.0), 3, mean_intervals) < 0.93


@pytest.mark.parametrize("values", [VALUES, [0.1, 0.1, 0.4], [0.9, 0.99, 0.95, 0.2]])
def test_the_ends_solve_the_transformed_equation(values):
    n, skewness = len(values), stats.skew(values)
    permitted = 0.05 * (1 - min(0.36, 1.4 / n))

    def transformed(mu):
        t = (np.mean(values) - mu) / stats.sem(values)
        u = skewness / math.sqrt(n)
        return t + u * t**2 / 3 + u**2 * t**3 / 27 + u / 6

    quantile = stats.t.ppf(1 - permitted / 2, n - 1)
    ends = [optimize.brentq(lambda mu, q=q: transformed(mu) - q, -20, 20, xtol=1e-14) for q in (quantile, -quantile)]
    assert mean_interval(values) == pytest.approx(ends, abs=1e-9)


def test_without_skew_it_is_the_t_interval_at_its_own_level():
    values = [0.7, 0.8, 0.9]
    assert mean_interval(values) == pytest.approx(t_intervals(np.array(values), 1 - 0.05 * 0.64), abs=1e-12)
    many = np.concatenate([-np.arange(1, 501.0), np.arange(1, 501.0)])
    assert mean_interval(many, 0.9) == pytest.approx(t_intervals(many, 1 - 0.1 * (1 - 0.0014)), abs=1e-9)


def test_it_turns_and_moves_with_the_values():
    low, high = mean_interval(VALUES)
    assert low < np.mean(VALUES) < high
    # The mean of values with a tail to the right may be far above them, hardly below.
    assert high - np.mean(VALUES) > np.mean(VALUES) - low
    assert mean_interval([-value for value in VALUES]) == pytest.approx((-high, -low))
    assert mean_interval([10 * value + 3 for value in VALUES]) == pytest.approx((10 * low + 3, 10 * high + 3))


@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan], [0.5, 0.6, math.inf]])
def test_what_has_no_interval(values):
    assert all(map(math.isnan, mean_interval(values)))


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 1e-300, 1e300])
def test_equal_values_give_the_value_without_a_warning(value):
    assert mean_interval([value] * 3) == pytest.approx((value, value), rel=1e-15)


def test_an_end_beyond_what_is_possible_is_cut_off():
    values = [0.98, 0.99, 1.0]
    low, high = mean_interval(values)
    assert high > 1
    assert mean_interval(values, bounds=(0.0, 1.0)) == (low, 1.0)
