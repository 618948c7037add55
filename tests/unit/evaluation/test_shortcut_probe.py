"""Masks and their features over a split, and the classifier that sees nothing else."""

import numpy as np
import pytest

from attn_lightning.evaluation.shortcut_probe import (
    features_of,
    hard_masks,
    probe_predictions,
)
from attn_lightning.evaluation.subject import Ragged
from attn_lightning.metrics.selection_features import selection_features
from support.scores import mask_of, random_weights


def test_hard_masks_select_the_highest():
    scores = np.array([[0.1, 0.5, 0.3, 0.1], [0.5, 0.5, 9.0, 9.0], [0.2, 0.2, 0.2, 0.4]])
    mask = mask_of((4, 2, 4))
    expected = [[0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0, 0.5]]
    np.testing.assert_allclose(hard_masks(scores, mask, 2), expected)
    np.testing.assert_allclose(hard_masks(scores[1:2], mask[1:2], 3), [[0.5, 0.5, 0, 0]])


@pytest.mark.parametrize("k", [None, 2])
def test_features_of_a_split_are_those_of_every_text(k, monkeypatch):
    lengths = np.array([4, 9, 1, 9, 2, 5])
    weights = random_weights(mask_of(lengths), np.random.default_rng(0))
    ragged = Ragged(weights[mask_of(lengths)], lengths)
    monkeypatch.setattr("attn_lightning.evaluation.shortcut_probe._CHUNK", 10)
    found = features_of(ragged, k)
    for row, n in enumerate(lengths):
        one = weights[row : row + 1, :n]
        alone = np.ones((1, n), bool)
        expected = selection_features(one if k is None else hard_masks(one, alone, k), alone)
        np.testing.assert_allclose(found[row], expected[0], atol=1e-6)


def test_an_unfitted_class_gives_none():
    features = np.zeros((4, 2), np.float32)
    assert probe_predictions(features, np.ones(4, np.int64), features, "logistic", 0) is None
