"""Sparsity of weights, against scipy and plain loops on unpadded rows."""

import numpy as np
import pytest
import torch
from scipy import stats

from attn_lightning.metrics.sparsity import (
    MEASURES,
    effective_length,
    entropy_bits,
    gini,
    num_above,
    one_hot_distance,
    relative_entropy,
    support_size,
)
from attn_lightning.numerics import entropy_nats, masked_log_softmax, masked_softmax

ALL = (entropy_bits, relative_entropy, effective_length, num_above, support_size, one_hot_distance, gini)


def padded(seed=0, size=60, longest=30):
    """Weights of random lengths, many of them 0, with ties; row 0 has one token, 1 uniform weights, 2 a one-hot; 3, 4
    and 5 are no distribution; junk at padding."""
    rng = np.random.default_rng(seed)
    weights = rng.random((size, longest)) ** 6 * (rng.random((size, longest)) < rng.choice([0.5, 1.0], (size, 1)))
    weights[10:20] = weights[10:20].round(1)
    lengths = rng.integers(2, longest + 1, size)
    lengths[:6] = (1, 7, 7, 7, 7, 7)
    mask = np.arange(longest) < lengths[:, None]
    weights[:, 0] += 0.01
    weights[1], weights[2], weights[2, 3] = 1.0, 0.0, 1.0
    weights = weights / np.where(mask, weights, 0).sum(1, keepdims=True)
    weights[3], weights[4, 2], weights[5, 2] = 0.0, -0.1, np.nan
    weights[~mask] = rng.choice([np.nan, np.inf, -5.0, 0.3], (~mask).sum())
    return weights.astype(np.float32), mask


def by_row(measure, weights, mask):
    """`measure` of the unpadded rows in float64 that are distributions, divided by their sum; else NaN."""
    rows = [row[real].astype(float) for row, real in zip(weights, mask, strict=True)]
    usable = [np.isfinite(row).all() and (row >= 0).all() and row.sum() > 0 for row in rows]
    return np.array([measure(row / row.sum()) if use else np.nan for row, use in zip(rows, usable, strict=True)])


def gini_of_differences(a):
    return np.nan if len(a) < 2 else np.abs(a[:, None] - a).sum() / (2 * len(a) ** 2 * a.mean())


@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (entropy_bits, lambda a: stats.entropy(a, base=2)),
        (relative_entropy, lambda a: stats.entropy(a, base=len(a)) if len(a) > 1 else np.nan),
        (effective_length, lambda a: np.exp(stats.entropy(a))),
        (num_above, lambda a: sum(value > 0.01 for value in a)),
        (support_size, np.count_nonzero),
        (one_hot_distance, lambda a: np.linalg.norm(a - np.eye(len(a))[a.argmax()])),
        (gini, gini_of_differences),
    ],
)
def test_equals_the_reference(ours, reference):
    example = padded(seed=1)
    expected = by_row(reference, *example)
    assert np.isnan(expected[3:6]).all()
    np.testing.assert_allclose(ours(*example), expected, atol=1e-12)


def test_one_token_uniform_weights_and_a_one_hot():
    weights = np.array([[1.0, 0, 0, 0], [0.25] * 4, [0, 0, 1, 0]])
    mask = np.array([[True, False, False, False], [True] * 4, [True] * 4])
    expected = {
        entropy_bits: (0, 2, 0),
        relative_entropy: (np.nan, 1, 0),
        effective_length: (1, 4, 1),
        num_above: (1, 4, 1),
        support_size: (1, 4, 1),
        one_hot_distance: (0, np.sqrt(0.75), 0),
        gini: (np.nan, 0, 0.75),
    }
    for measure, values in expected.items():
        np.testing.assert_allclose(measure(weights, mask), values, atol=1e-15)


def test_bits_are_the_nats_of_training_by_ln_2():
    scores = torch.randn(20, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mask = torch.arange(9) < torch.arange(1, 21).clamp_max(9)[:, None]
    nats = entropy_nats(masked_log_softmax(scores, mask), mask).numpy()
    found = entropy_bits(masked_softmax(scores, mask).numpy(), mask.numpy())
    np.testing.assert_allclose(found, nats / np.log(2), rtol=1e-12, atol=1e-12)


def test_every_function_is_reported_as_declared():
    weights, mask = padded(seed=5)
    for measure, function in MEASURES.items():
        values = function(weights, mask)
        assert measure.minimum <= np.nanmin(values) <= np.nanmax(values) <= measure.maximum


def test_the_distance_to_a_one_hot_keeps_its_digits_near_0():
    weights = np.array([[1.0, 3e-12, 4e-12]])
    expected = np.hypot(np.hypot(3e-12, 4e-12), 7e-12)
    np.testing.assert_allclose(one_hot_distance(weights, np.ones((1, 3), bool)), [expected], rtol=1e-3)


def test_weights_need_not_sum_to_1():
    weights, mask = padded(seed=2)
    for measure in ALL:
        np.testing.assert_allclose(measure(weights * 8, mask), measure(weights, mask), rtol=1e-12)


@pytest.mark.parametrize("measure", ALL)
def test_padding_order_and_batch_change_nothing(measure):
    weights, mask = padded(seed=3)
    expected, before = measure(weights, mask), weights.copy()
    wide = np.pad(mask, ((0, 0), (0, 5)))
    for junk in (0.0, 2.0, np.nan, np.inf):
        np.testing.assert_allclose(
            measure(np.where(wide, np.pad(weights, ((0, 0), (0, 5))), junk), wide), expected, rtol=1e-12
        )
    order = np.random.default_rng(0).permutation(len(mask))
    np.testing.assert_array_equal(measure(weights[order], mask[order]), expected[order])
    alone = [
        measure(weights[i : i + 1, : mask[i].sum()], mask[i : i + 1, : mask[i].sum()])[0] for i in range(len(mask))
    ]
    np.testing.assert_allclose(alone, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(weights, before)
