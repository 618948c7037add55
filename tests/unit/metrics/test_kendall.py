"""Kendall's tau-b and its p-value for many texts at once, against scipy text by text."""

import numpy as np
import pytest
from scipy import stats

from attn_lightning.metrics import kendall as kendall_module
from attn_lightning.metrics.agreement import kendall, kendall_tau
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
