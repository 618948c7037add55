"""Statistics over seeds against plain loops, exact fractions, scipy and hand-computed cases."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from attn_lightning.metrics.power import seeds_needed
from attn_lightning.metrics.statistics import (
    compare,
    effect_size,
    holm,
    paired_permutation_test,
    standard_deviation,
    summarize,
)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
@pytest.mark.parametrize("digits", [1, 3, 16])
def test_permutation_test_counts_all_signs(n, digits):
    generator = np.random.default_rng(n)
    for shift in (0.0, 0.5, 3.0):
        differences = generator.normal(shift, 1, n).round(digits)
        sums = [
            sum(s * Fraction(repr(d)) for s, d in zip(signs, differences.tolist(), strict=True))
            for signs in itertools.product((1, -1), repeat=n)
        ]
        extreme = sum(abs(value) >= abs(sums[0]) for value in sums)
        assert paired_permutation_test(differences) == extreme / 2**n


def test_ties_count_however_their_sums_are_rounded():
    # Exactly, .1 + .2 - .3 is 0, so all of the signs are as extreme; in floating point it is not.
    assert 0.1 + 0.2 - 0.3 != 0
    assert paired_permutation_test([0.1, 0.2, -0.3]) == 1.0
    assert paired_permutation_test([0.7, 0.1, -0.8, 0.3]) == paired_permutation_test([7.0, 1.0, -8.0, 3.0])


def test_permutation_test_with_ties_by_hand():
    # Signs of (1, 1, 1): |sum| = 3 in 2 of 8 cases. Of (1, -1): |sum| >= 0 always. Zeros change nothing.
    assert paired_permutation_test([1.0, 1.0, 1.0]) == 0.25
    assert paired_permutation_test([1.0, -1.0]) == 1.0
    assert paired_permutation_test([0.0, 0.0, 0.0]) == 1.0
    assert paired_permutation_test([0.1, 0.2, 0.3, 0.4, 0.5]) == 2 / 32


def test_permutation_test_of_many_pairs_is_close_to_the_t_test():
    differences = np.random.default_rng(0).normal(0.4, 1, 40)
    theirs = stats.ttest_1samp(differences, 0).pvalue
    assert paired_permutation_test(differences) == pytest.approx(theirs, abs=0.01)
    assert paired_permutation_test(differences) == paired_permutation_test(differences)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.06])
def test_permutation_test_of_thousands_of_pairs_is_the_t_test(shift):
    differences = np.random.default_rng(1).normal(shift, 1, 3000)
    theirs = stats.ttest_1samp(differences, 0).pvalue
    assert paired_permutation_test(differences) == pytest.approx(theirs, abs=0.015)
    assert paired_permutation_test(differences + 1) == 1 / 10_000


def test_holm_by_hand():
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1: .04, .06, .06 (not below the one before), .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([math.nan, 0.02, math.nan, 0.03])
    assert adjusted[1::2] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[0])
    assert math.isnan(adjusted[2])


def test_effect_size_and_deviation_by_hand():
    assert standard_deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert effect_size([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert math.isnan(effect_size([2.0, 2.0]))


@pytest.mark.parametrize("values", [[], [0.5]])
def test_few_values_are_undefined_without_a_warning(values):
    summary = summarize(values)
    assert summary.n == len(values)
    assert summary.mean == 0.5 if values else math.isnan(summary.mean)
    assert all(map(math.isnan, (summary.std, summary.low, summary.high)))
    assert math.isnan(paired_permutation_test(values))
    assert math.isnan(effect_size(values))


def test_values_that_are_not_finite_are_left_out_and_not_counted():
    assert summarize([0.2, math.nan, 0.4]).n == 2
    assert summarize([0.2, math.inf, 0.4]).mean == pytest.approx(0.3)


def test_intervals_of_values_and_of_differences_end_where_the_metric_does():
    values = {0: 0.99, 1: 0.999, 2: 0.9}
    assert summarize(list(values.values())).high > 1
    assert summarize(list(values.values()), (0.0, 1.0)).high == 1
    assert compare(values, {0: 0.01, 1: 0.0, 2: 0.9}, (0.0, 1.0)).high == 1
    assert compare({0: 0.01, 1: 0.0, 2: 0.9}, values, (0.0, 1.0)).low == -1


def test_a_comparison_says_how_many_seeds_it_needs():
    found = compare({0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.5, 1: 0.6, 2: 0.9})
    assert found.seeds_needed == seeds_needed(found.difference, standard_deviation([0.0, 0.1, 0.0]))
    assert math.isnan(compare({0: 0.5}, {0: 0.6}).seeds_needed)


def test_comparison_takes_the_shared_seeds_only():
    comparison = compare({0: 0.5, 1: 0.7, 2: 0.9, 3: math.nan}, {1: 0.6, 2: 0.6, 3: 0.1, 4: 0.0})
    assert comparison.n == 2
    assert comparison.difference == pytest.approx(0.2)
    assert comparison.p == 0.5


def test_comparison_without_a_shared_seed_is_undefined():
    comparison = compare({0: 0.5}, {1: 0.6})
    assert comparison.n == 0
    assert math.isnan(comparison.difference)
    assert math.isnan(comparison.p)
