"""Features of a selection against plain loops."""

import numpy as np

from attn_lightning.metrics.selection_features import (
    NUM_EDGE_POSITIONS,
    NUM_FEATURES,
    NUM_LARGEST,
    NUM_PARTS,
    mask_features,
    selection_features,
)
from support.scores import mask_of, random_weights


def features_by_hand(weights):
    n = len(weights)
    first = [float(weights[i]) if i < n else 0.0 for i in range(NUM_EDGE_POSITIONS)]
    last = [float(weights[n - 1 - i]) if i < n else 0.0 for i in range(NUM_EDGE_POSITIONS)]
    parts = [0.0] * NUM_PARTS
    for i, weight in enumerate(weights):
        parts[int(i / n * NUM_PARTS + 1e-9)] += weight
    largest = sorted(weights, reverse=True)[:NUM_LARGEST] + [0.0] * max(0, NUM_LARGEST - n)
    places = [(i + 0.5) / n for i in range(n)]
    mean = sum(w * p for w, p in zip(weights, places, strict=True))
    deviation = sum(w * (p - mean) ** 2 for w, p in zip(weights, places, strict=True)) ** 0.5
    neighbours = sum(weights[i] * weights[i + 1] for i in range(n - 1))
    return [*first, *last, *parts, *largest, mean, deviation, neighbours, np.log(n)]


def test_features_equal_a_loop_without_padding():
    lengths = (1, 2, 7, 25, 10, 3)
    mask = mask_of(lengths)
    weights = random_weights(mask, np.random.default_rng(0))
    found = selection_features(weights, mask)
    assert found.shape == (6, NUM_FEATURES)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row], features_by_hand(weights[row, :n].tolist()), atol=1e-6)


def test_features_of_constant_and_one_hot_weights_are_finite():
    mask = mask_of((1, 4, 4), 6)
    weights = np.array([[1, 0, 0, 0, 0, 0], [0.25] * 4 + [0, 0], [0, 0, 1, 0, 0, 0]], np.float32)
    found = selection_features(weights, mask)
    assert np.isfinite(found).all()
    assert found[2, 2] == 1


def test_padding_and_its_values_change_no_feature():
    lengths = (3, 5, 1)
    weights = random_weights(mask_of(lengths), np.random.default_rng(0))
    wider = np.pad(weights, ((0, 0), (0, 7)), constant_values=9.0)
    expected = selection_features(weights, mask_of(lengths))
    np.testing.assert_allclose(selection_features(wider, mask_of(lengths, 12)), expected)


def test_features_of_a_mask_by_hand() -> None:
    mask = mask_of((20, 3), 24)
    attention = np.zeros((2, 24), np.float32)
    attention[0, [0, 1, 19]] = 1 / 3
    attention[1, :3] = 1 / 3
    first, second = mask_features(attention, mask)
    assert first[:8].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert first[8:16].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(first[16:26], [2 / 3, *[0.0] * 8, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(first[26:], [np.log(4.0), 3 / 20, 2 / 3], rtol=1e-6)
    assert not second.any(), "uniform attention selects nothing"


def test_features_of_a_mask_do_not_depend_on_padding_and_batch() -> None:
    lengths = (6, 4, 1)
    attention = random_weights(mask_of(lengths), np.random.default_rng(0))
    expected = mask_features(attention, mask_of(lengths))
    wide = np.pad(attention, ((0, 0), (0, 5)))
    np.testing.assert_array_equal(mask_features(wide, mask_of(lengths, 11)), expected)
    np.testing.assert_array_equal(mask_features(attention[1:2, :4], mask_of((4,))), expected[1:2])


def test_features_of_a_mask_equal_a_loop() -> None:
    lengths = (1, 2, 7, 25, 10, 3)
    attention = random_weights(mask_of(lengths), np.random.default_rng(1))
    found = mask_features(attention, mask_of(lengths))
    for row, n in enumerate(lengths):
        chosen = [weight > 1 / n + 1e-5 for weight in attention[row, :n]]
        count = sum(chosen)
        edges = [float(i < n and side[i]) for side in (chosen, chosen[::-1]) for i in range(NUM_EDGE_POSITIONS)]
        parts = [sum(c for i, c in enumerate(chosen) if 10 * i // n == part) / max(count, 1) for part in range(10)]
        runs = sum(c and not (i and chosen[i - 1]) for i, c in enumerate(chosen)) / max(count, 1)
        expected = [*edges, *parts, np.log(1 + count), count / n, runs]
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-7)
