"""Attention on rationales and shortcuts, against a plain loop over unpadded rows."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from attn_lightning.metrics.evidence import (
    EvidenceHit,
    EvidenceMass,
    SelectionOutcomes,
    ShortcutFollow,
    ShortcutUse,
    evidence_metrics,
    shortcut_metrics,
)
from attn_lightning.metrics.plausibility import marked_mass, top_1_hit


def padded(seed=0, size=40, longest=12):
    """Attention and marks of random lengths: one token, no mark, all marked, constant weights; junk at padding."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, size)
    lengths[:2] = (1, longest)
    mask = np.arange(longest) < lengths[:, None]
    attention = rng.random((size, longest)).astype(np.float32).round(1) + 0.01
    attention[5] = 1.0
    attention = np.where(mask, attention, 0.0)
    attention /= attention.sum(1, keepdims=True)
    marked = rng.random((size, longest)) < 0.3
    marked[2], marked[3] = False, True
    return np.where(mask, attention, 7.0), np.where(mask, marked, True), mask


def loop(attention, marked, mask):
    hits, masses = [], []
    for weights, marks, real in zip(attention, marked, mask, strict=True):
        weights, marks = weights[real].tolist(), marks[real].tolist()
        best = weights.index(max(weights))
        hits.append(float(marks[best]) if any(marks) else math.nan)
        masses.append(sum(w for w, m in zip(weights, marks, strict=True) if m) if any(marks) else math.nan)
    return np.array(hits), np.array(masses)


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_hit_and_mass_equal_a_loop():
    arrays = padded()
    hits, masses = loop(*arrays)
    assert np.isnan(hits).any()
    assert {0.0, 1.0} <= set(hits)
    np.testing.assert_array_equal(top_1_hit(*arrays), hits)
    np.testing.assert_allclose(marked_mass(*arrays), masses, atol=1e-6)


def test_the_first_of_tied_tokens_is_chosen():
    mask = np.ones((2, 3), bool)
    marked = np.array([[True, False, False], [False, True, False]])
    np.testing.assert_array_equal(top_1_hit(np.full((2, 3), 1 / 3), marked, mask), [1.0, 0.0])


def test_an_attention_that_is_nan_gives_nan_for_its_row_alone():
    attention, marked, mask = padded(seed=1)
    marked[:] = True
    attention[1, 0] = np.nan
    hits = top_1_hit(attention, marked, mask)
    assert np.isnan(hits[1])
    assert np.isfinite(np.delete(hits, 1)).all()


@pytest.mark.parametrize(("metric", "measure"), [(EvidenceHit, 0), (EvidenceMass, 1), (ShortcutUse, 1)])
def test_metrics_are_means_over_the_marked_rows_in_any_batches(metric, measure):
    arrays = padded(seed=2)
    expected = loop(*arrays)[measure]
    for size in (1, 7, 40):
        instance = metric()
        for start in range(0, 40, size):
            instance.update(*tensors(array[start : start + size] for array in arrays))
        results = instance.compute()
        assert float(results[f"{metric.declared.name}_mean"]) == pytest.approx(np.nanmean(expected), abs=1e-6)
        assert float(results[f"{metric.declared.name}_n_valid"]) == np.isfinite(expected).sum()


def test_without_any_mark_everything_is_nan():
    attention, marked, mask = padded()
    collection = evidence_metrics()
    labels = torch.zeros(40, dtype=torch.int64)
    attention, marked, mask = tensors((attention, marked & False, mask))
    collection.update(attention=attention, rationale=marked, mask=mask, predicted=labels, labels=labels)
    results = collection.compute()
    assert float(results.pop("evidence_hit_n_valid")) == float(results.pop("evidence_mass_n_valid")) == 0
    assert all(math.isnan(value) for value in results.values())


def test_outcomes_are_a_confusion_matrix_of_focus_and_prediction():
    arrays = padded(seed=3)
    rng = np.random.default_rng(3)
    predicted, labels = rng.integers(0, 3, (2, 40))
    hits = loop(*arrays)[0]
    known = np.isfinite(hits)
    right = predicted == labels
    matrix = confusion_matrix(right[known], hits[known] == 1, labels=[True, False]) / known.sum()
    metric = SelectionOutcomes()
    for part in (slice(0, 11), slice(11, 40)):
        metric.update(*tensors(array[part] for array in (*arrays, predicted, labels)))
    results = {name: float(value) for name, value in metric.compute().items()}
    expected = {"ftpt": matrix[0, 0], "ffpt": matrix[0, 1], "ftpf": matrix[1, 0], "ffpf": matrix[1, 1]}
    assert results == pytest.approx(expected, abs=1e-6)
    assert results["ftpt"] + results["ffpt"] == pytest.approx(right[known].mean(), abs=1e-6)


def test_follow_counts_misleading_words_only():
    labels = torch.tensor([0, 0, 1, 2, 2, 1])
    shortcut = torch.tensor([0, 1, 0, 0, 1, -1])
    predicted = torch.tensor([0, 1, 1, 0, 0, 2])
    metric = ShortcutFollow()
    metric.update(predicted, labels, shortcut)
    results = metric.compute()
    assert float(results["shortcut_follow_n_valid"]) == 4
    assert float(results["shortcut_follow_mean"]) == 0.5


def test_collections_route_their_arguments():
    attention, marked, mask = tensors(padded(seed=4))
    labels = torch.arange(40) % 2
    collection = shortcut_metrics()
    collection.update(
        attention=attention, shortcut=marked, mask=mask, predicted=labels, labels=labels, shortcut_class=1 - labels
    )
    results = collection.compute()
    assert float(results["shortcut_follow_mean"]) == 0
    assert float(results["shortcut_use_mean"]) == pytest.approx(np.nanmean(loop(*padded(seed=4))[1]), abs=1e-6)
