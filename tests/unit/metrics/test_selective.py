"""SDC outcomes, against a plain loop and by hand."""

import numpy as np
import pytest

from attn_lightning.metrics.selective import OUTCOMES, interpretability, is_dominant, outcomes


def mosaics(seed=0, size=300, segments=9):
    """Weights over segments with one marked segment, a prediction and a label; some rows without a mark or a label."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(segments, 0.4), size).astype(np.float32)
    mask = np.ones((size, segments), bool)
    mask[::3, 6:] = False
    weights[~mask] = 5.0
    evidence = np.arange(segments) == rng.integers(0, 6, (size, 1))
    evidence[:4] = False
    weights[4, 2] = np.nan
    predicted, labels = rng.integers(0, 3, (2, size))
    labels[5:8] = -1
    return weights, evidence, mask, predicted, labels


def test_equals_a_loop():
    example = mosaics()
    counts = dict.fromkeys([outcome.name for outcome in OUTCOMES], 0)
    valid = 0
    for weights, evidence, mask, predicted, label in zip(*example, strict=True):
        if not evidence.any() or label == -1 or np.isnan(weights[mask]).any():
            continue
        focus = max(np.flatnonzero(mask), key=lambda t: (weights[t], -t))
        counts[("ft" if evidence[focus] else "ff") + ("pt" if predicted == label else "pf")] += 1
        valid += 1
    result = outcomes(*example)
    assert valid == len(result) - 8 == np.isfinite(result).all(1).sum()
    np.testing.assert_array_equal(np.nansum(result, axis=0), list(counts.values()))
    np.testing.assert_array_equal(result[np.isfinite(result).all(1)].sum(1), 1)
    assert interpretability(result) == pytest.approx(counts["ftpt"] / (counts["ftpt"] + counts["ffpt"]))
    assert min(counts.values()) > 5


def test_the_four_outcomes_by_hand():
    weights = np.array([[0.6, 0.4], [0.4, 0.6], [0.6, 0.4], [0.4, 0.6], [0.5, 0.5]])
    evidence, mask = np.array([[True, False]] * 5), np.ones((5, 2), bool)
    result = outcomes(weights, evidence, mask, np.array([1, 1, 0, 0, 1]), np.ones(5, int))
    np.testing.assert_array_equal(result, np.eye(4)[[0, 1, 2, 3, 0]])
    assert interpretability(result) == pytest.approx(2 / 3)


def test_a_focus_anywhere_in_a_phrase_is_true():
    weights, phrase = np.array([[0.1, 0.2, 0.4, 0.3]]), np.array([[False, True, True, False]])
    result = outcomes(weights, phrase, np.ones((1, 4), bool), np.array([2]), np.array([2]))
    np.testing.assert_array_equal(result, [[1, 0, 0, 0]])


def test_interpretability_without_a_right_prediction_is_nan():
    assert np.isnan(interpretability(np.array([[0.0, 0, 1, 0], [0, 0, 0, 1]])))
    assert np.isnan(interpretability(np.full((2, 4), np.nan)))


def test_a_dominant_segment_has_half_the_weight():
    weights = np.array([[0.5, 0.5, 9.0], [0.4, 0.3, 0.3], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, np.nan, 0.0]])
    mask = np.ones((5, 3), bool)
    mask[0, 2] = False
    np.testing.assert_array_equal(is_dominant(weights, mask), [1, 0, 1, np.nan, np.nan])
    np.testing.assert_array_equal(is_dominant(weights, mask, share=0.4), [1, 1, 1, np.nan, np.nan])


def test_padding_and_order_change_nothing():
    example = mosaics(seed=1)
    expected, order = outcomes(*example), np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(outcomes(*(values[order] for values in example)), expected[order])
    weights, evidence, mask, predicted, labels = example
    wide = np.pad(mask, ((0, 0), (0, 3)))
    for junk in (0.0, 1e9, np.nan, np.inf):
        padded = np.where(wide, np.pad(weights, ((0, 0), (0, 3))), junk)
        result = outcomes(
            padded, np.pad(evidence, ((0, 0), (0, 3))) | (~wide & evidence.any(1)[:, None]), wide, predicted, labels
        )
        np.testing.assert_array_equal(result, expected)
        np.testing.assert_array_equal(is_dominant(padded, wide), is_dominant(weights, mask))
