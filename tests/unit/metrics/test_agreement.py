"""Agreement of token scores, against scipy and plain loops on unpadded rows."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon

from attn_lightning.metrics.agreement import (
    MEASURES,
    Kendall,
    Pearson,
    Spearman,
    agreement,
    agreement_metrics,
    jensen_shannon,
    kendall,
    kendall_tau,
    pearson,
    spearman,
    top_k_overlap,
)
from support.scores import by_row, or_nan, padded


def kendall_p_value(*scores):
    return kendall(*scores)[1]


ALL = (kendall_tau, kendall_p_value, spearman, pearson, jensen_shannon, top_k_overlap)
METRICS = (Kendall, Spearman, Pearson)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (kendall_tau, lambda a, b: stats.kendalltau(a, b).statistic),
        (kendall_p_value, lambda a, b: stats.kendalltau(a, b).pvalue),
        (spearman, lambda a, b: stats.spearmanr(a, b).statistic),
        (pearson, lambda a, b: stats.pearsonr(a.astype(float), b.astype(float)).statistic),
    ],
)
def test_equals_scipy(ours, reference, ties):
    scores = padded(seed=1, size=80, ties=ties)
    np.testing.assert_allclose(ours(*scores), by_row(or_nan(reference), *scores), atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_jensen_shannon_equals_scipy(ties):
    scores = padded(seed=3, ties=ties)
    expected = by_row(lambda a, b: jensenshannon(a, b) ** 2 if len(a) > 1 else np.nan, *scores)
    np.testing.assert_allclose(jensen_shannon(*scores), expected, atol=1e-7)


def test_jensen_shannon_is_bounded_by_ln_2_and_0():
    disjoint = np.array([[1.0, 0.0, 9.0], [0.3, 0.7, 9.0]]), np.array([[0.0, 4.0, 9.0], [3.0, 7.0, 9.0]])
    mask = np.array([[True, True, False]] * 2)
    np.testing.assert_allclose(jensen_shannon(*disjoint, mask), [math.log(2), 0.0], atol=1e-15)


def test_jensen_shannon_of_what_is_no_distribution_is_nan():
    first, second = np.array([[0.0, 0.0], [-1.0, 2.0], [0.5, np.inf]]), np.ones((3, 2))
    assert np.isnan(jensen_shannon(first, second, np.ones((3, 2), bool))).all()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_overlap_equals_a_loop(k):
    scores = padded(seed=4)

    def loop(a, b):
        if len(a) <= k:
            return np.nan
        best = [set(sorted(range(len(a)), key=lambda t: (-x[t], t))[:k]) for x in (a, b)]
        return len(best[0] & best[1]) / k

    np.testing.assert_allclose(top_k_overlap(*scores, k), by_row(or_nan(loop), *scores))


def test_the_earlier_of_tied_tokens_comes_first():
    first, second = np.array([[0.2, 0.2, 0.2, 0.1]]), np.array([[0.9, 0.5, 0.1, 0.0]])
    assert top_k_overlap(first, second, np.ones((1, 4), bool), k=2) == [1.0]


@pytest.mark.parametrize("measure", ALL)
def test_padding_and_its_amount_change_nothing(measure):
    first, second, mask = padded(seed=5)
    expected = measure(first, second, mask)
    wide = np.pad(mask, ((0, 0), (0, 7)))
    for junk in (0.0, -1e9, np.nan, np.inf):
        a, b = (np.where(wide, np.pad(x, ((0, 0), (0, 7))), junk) for x in (first, second))
        np.testing.assert_allclose(measure(a, b, wide), expected, rtol=1e-12)


@pytest.mark.parametrize("measure", ALL)
def test_real_tokens_may_stand_anywhere(measure):
    first, second, mask = padded(seed=6)
    order = np.random.default_rng(0).permutation(mask.shape[1])
    if measure is not top_k_overlap:  # its ties go by position; without ties it does not matter either
        np.testing.assert_allclose(
            measure(first[:, order], second[:, order], mask[:, order]), measure(first, second, mask)
        )


@pytest.mark.parametrize("measure", ALL)
def test_scores_that_are_not_finite_are_undefined(measure):
    first, second, mask = padded(seed=7, size=10)
    first[6, 0], second[7, 1], first[8, 0] = np.nan, np.inf, -np.inf
    mask[6:9, :3] = True
    values = measure(first, second, mask)
    assert np.isnan(values[6:9]).all()
    assert not np.isnan(values[2])


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_report_mean_deviation_and_count_of_the_defined(metric):
    scores = padded(seed=8)
    metric = metric()
    values = metric.function(*scores)
    values = values[~np.isnan(values)]
    metric.update(*map(torch.from_numpy, scores))
    results = {key.removeprefix(metric.declared.name): value.item() for key, value in metric.compute().items()}
    assert results == pytest.approx({"_mean": values.mean(), "_std": values.std(), "_n_valid": len(values)}, abs=1e-6)
    assert list(metric.compute()) == [measure.name for measure in metric.measures]


def test_every_declared_measure_is_given_and_within_its_range():
    scores = padded(seed=9, size=200, ties=True)
    found = agreement(*scores, k=3, level=0.2)
    assert list(found) == [measure.name for measure in MEASURES]
    for measure in MEASURES:
        values = found[measure.name]
        assert measure.minimum <= np.nanmin(values) <= np.nanmax(values) <= measure.maximum
    p_values = kendall_p_value(*scores)
    expected = np.mean(p_values[~np.isnan(p_values)] < 0.2)
    assert np.nanmean(found["kendall_significant"]) == pytest.approx(expected)
    np.testing.assert_array_equal(found["top_k_overlap"], top_k_overlap(*scores, k=3))


def test_batches_and_their_order_change_nothing():
    first, second, mask = map(torch.from_numpy, padded(seed=10))
    whole, parts = agreement_metrics(), agreement_metrics()
    whole.update(first, second, mask)
    for rows in torch.randperm(len(mask)).split(7):
        width = int(mask[rows].sum(1).max())
        parts.update(first[rows, :width], second[rows, :width], mask[rows, :width])
    expected = {key: value.item() for key, value in whole.compute().items()}
    assert {key: value.item() for key, value in parts.compute().items()} == pytest.approx(expected)
    assert len(expected) == 9


def test_a_first_batch_without_any_defined_value_does_not_merge_the_metrics():
    metrics = agreement_metrics()
    single = torch.ones(4, 1)
    metrics.update(single, single, single.bool())
    scores = padded(seed=11)
    metrics.update(*map(torch.from_numpy, scores))
    results = metrics.compute()
    assert results["spearman_mean"].item() == pytest.approx(np.nanmean(spearman(*scores)), abs=1e-6)
    assert results["kendall_mean"].item() == pytest.approx(np.nanmean(kendall_tau(*scores)), abs=1e-6)


def test_nothing_defined_is_nan_with_a_count_of_0():
    metric = Pearson()
    metric.update(torch.ones(3, 4), torch.rand(3, 4), torch.ones(3, 4, dtype=torch.bool))
    results = metric.compute()
    assert results["pearson_n_valid"] == 0
    assert results["pearson_mean"].isnan()
    assert results["pearson_std"].isnan()


def test_half_precision_and_graphs_are_accepted():
    first, second, mask = map(torch.from_numpy, padded(seed=13))
    metrics = agreement_metrics()
    metrics.update(first.bfloat16().requires_grad_(), second.half(), mask)
    assert metrics.compute()["kendall_n_valid"] > 0


def test_the_controls_score_what_is_declared():
    rng = np.random.default_rng(0)
    scores = rng.random((2000, 12)), rng.random((2000, 12)), np.ones((2000, 12), bool)
    found = agreement(*scores)
    for measure in MEASURES:
        if measure.uninformative is not None:
            assert np.nanmean(found[measure.name]) == pytest.approx(measure.uninformative, abs=0.02)
    assert top_k_overlap(*scores, k=5).mean() == pytest.approx(5 / 12, abs=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_sums_of_processes_add_up(metric):
    first, second, mask = map(torch.from_numpy, padded(seed=14))
    whole, one, other = metric(), metric(), metric()
    whole.update(first, second, mask)
    one.update(first[:11], second[:11], mask[:11])
    other.update(first[11:], second[11:], mask[11:])
    one.merge_state(other)
    expected = {key: value.item() for key, value in whole.compute().items()}
    assert {key: value.item() for key, value in one.compute().items()} == pytest.approx(expected)
