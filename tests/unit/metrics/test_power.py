"""How many seeds a difference needs: against simulated tests and published tables."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from attn_lightning.metrics.power import MOST_SEEDS, seeds_needed


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_published_numbers_of_the_paired_t_test(effect, pairs):
    """Small, medium and large effects of Cohen at a power of .8, as G*Power prints them."""
    assert seeds_needed(effect, 1.0) == pairs
    assert seeds_needed(-effect * 0.01, 0.01) == pairs


@pytest.mark.parametrize("effect", [0.9, 1.2, 1.3, 1.5, 1.9, 4.0])
def test_the_permutation_test_has_this_power_with_so_many_and_not_with_fewer(effect):
    needed = seeds_needed(effect, 1.0)
    assert found_significant(effect, needed) > 0.75
    assert needed == 6 or found_significant(effect, needed - 1) < 0.81


def found_significant(effect, n):
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    sums = np.abs(np.random.default_rng(0).normal(effect, 1, (2000, n)) @ signs.T)
    return np.mean(np.mean(sums >= sums[:, :1] - 1e-9, axis=1) < 0.05)


def test_with_more_power_or_a_stricter_test_it_takes_more():
    usual = seeds_needed(1.0, 1.0)
    assert seeds_needed(1.0, 1.0, power=0.95) > usual
    assert seeds_needed(1.0, 1.0, alpha=0.01) > usual
    # p below .01 takes 8 pairs: 2 / 2^7 is .0156, 2 / 2^8 is .0078.
    assert seeds_needed(100.0, 1.0, alpha=0.01) == 8
    nearest = stats.nct.sf(stats.t.ppf(0.975, usual - 1), usual - 1, math.sqrt(usual))
    assert nearest >= 0.8


@pytest.mark.parametrize(
    ("difference", "deviation", "seeds"),
    [(0.01, 0.0, 6), (0.0, 0.1, math.inf), (0.0, 0.0, math.inf), (1e-9, 1.0, math.inf)],
)
def test_ends(difference, deviation, seeds):
    assert seeds_needed(difference, deviation) == seeds


def test_the_limit_and_what_is_unknown():
    assert seeds_needed(0.0281, 1.0) <= MOST_SEEDS
    assert math.isnan(seeds_needed(math.nan, 0.1))
    assert math.isnan(seeds_needed(0.1, math.nan))
