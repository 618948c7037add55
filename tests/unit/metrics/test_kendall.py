"""Kendall's tau-b and its p-value for many texts at once, against scipy; their parts against loops over pairs."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from attn_lightning.metrics import kendall as kendall_module
from attn_lightning.metrics.agreement import kendall, kendall_tau
from attn_lightning.metrics.kendall import LONGEST_PAIRWISE, Concordance, Ties
from support.scores import by_row, or_nan, padded


def test_kendall_of_long_texts_equals_that_of_short_ones(monkeypatch):
    first, second, mask = padded(seed=2, size=8, longest=60, ties=True)
    short = kendall_tau(first, second, mask)
    monkeypatch.setattr(kendall_module, "LONGEST_PAIRWISE", 5)
    np.testing.assert_allclose(kendall_tau(first, second, mask), short, atol=1e-12)


@pytest.mark.parametrize("longest", [3, 8, 33, 36, 180])
@pytest.mark.parametrize("swaps", [0, 1, 2, 5])
def test_the_p_value_of_nearly_sorted_scores_equals_scipy(longest, swaps):
    rng = np.random.default_rng(swaps)
    first = np.sort(rng.random((30, longest)), axis=1)
    second = first.copy()
    for row in second:
        for place in rng.integers(0, longest - 1, swaps):
            row[[place, place + 1]] = row[[place + 1, place]]
    second[::2] *= -1
    mask = np.ones(first.shape, bool)
    tau, p_value = kendall(first, second, mask)
    reference = [stats.kendalltau(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(tau, [each.statistic for each in reference], atol=1e-12)
    np.testing.assert_allclose(p_value, [each.pvalue for each in reference], rtol=1e-9, atol=1e-300)


def test_kendall_of_many_lengths_and_few_values_equals_scipy():
    first, second, mask = padded(seed=15, size=400, longest=70)
    first[::3] = first[::3].round(1)
    second[::4] = second[::4].round(1)
    tau, p_value = kendall(first, second, mask)
    expected = [or_nan(lambda a, b, key=key: getattr(stats.kendalltau(a, b), key)) for key in ("statistic", "pvalue")]
    np.testing.assert_allclose(tau, by_row(expected[0], first, second, mask), atol=1e-12)
    np.testing.assert_allclose(p_value, by_row(expected[1], first, second, mask), rtol=1e-9)


def scores_of(lengths, seed, values=None):
    """Two scores of texts of these lengths, with junk at padding; of so many different values if they should tie."""
    rng = np.random.default_rng(seed)
    shape = (2, len(lengths), max(lengths))
    first, second = rng.random(shape) if values is None else rng.integers(0, values, shape) / 4
    first[:, :2] = (0.0, 0.25)  # at least two differ
    second[:, :2] = (0.25, 0.0)
    return first, second, np.arange(max(lengths)) < np.array(lengths)[:, None]


def rows_of(first, second, mask):
    return [(a[real], b[real]) for a, b, real in zip(first, second, mask, strict=True)]


def surplus_by_pairs(first, second):
    return sum(
        np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in combinations(range(len(first)), 2)
    )


@pytest.mark.parametrize("values", [1, 3, None])
def test_sums_over_ties_are_those_of_a_count(values):
    first, _, mask = scores_of((9, 2, 7, 3), 0, values)
    ties = Ties.of(first, mask)
    for row, real in enumerate(mask):
        sizes = Counter(first[row, real].tolist()).values()
        assert ties.pairs[row] == sum(t * (t - 1) / 2 for t in sizes)
        assert ties.triples[row] == sum(t * (t - 1) * (t - 2) for t in sizes)
        assert ties.spread[row] == sum(t * (t - 1) * (2 * t + 5) for t in sizes)


@pytest.mark.parametrize("values", [2, 5, None])
@pytest.mark.parametrize("lengths", [(2, 3, 12, 7), (33, 34, 20, 35), tuple(range(2, 31)) * 12])
def test_surplus_tau_and_p_value_of_short_texts(lengths, values):
    scores = scores_of(lengths, 1, values)
    found = Concordance.of(*scores)
    rows = rows_of(*scores)
    expected = [stats.kendalltau(*row) for row in rows]
    np.testing.assert_allclose(found.tau(), [one.statistic for one in expected], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.p_value(), [one.pvalue for one in expected], rtol=1e-9)
    for row in range(0, len(rows), 40):
        assert found.surplus[row] == surplus_by_pairs(*rows[row])
    assert found.tokens.tolist() == list(lengths)


@pytest.mark.parametrize("values", [4, None])
def test_long_texts_are_those_of_scipy_among_short_ones(values):
    scores = scores_of((5, LONGEST_PAIRWISE + 1, LONGEST_PAIRWISE, 60), 2, values)
    found = Concordance.of(*scores)
    expected = [stats.kendalltau(*row) for row in rows_of(*scores)]
    np.testing.assert_allclose(found.tau(), [one.statistic for one in expected], rtol=1e-12)
    np.testing.assert_allclose(found.p_value(), [one.pvalue for one in expected], rtol=1e-9)
    assert np.array_equal(found.surplus, found.surplus.round())
