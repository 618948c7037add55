"""Does the selection alone tell the label? A classifier of masks that never sees a word.

A mask M on a text X carries `I(Y; M)` of the label by itself: what a model can say through the mask instead of the
words (Bai et al. 2021, https://arxiv.org/abs/2006.05656).
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attn_lightning.evaluation.subject import Ragged
from attn_lightning.methods.shortcuts import NUM_EDGE_POSITIONS, NUM_PARTS
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray

MEASURES = (
    Measure("majority_rate", "share of examples with the most frequent label of the training", higher_is_better=None),
    Measure("shortcut_accuracy", "accuracy of a classifier that sees the selection alone", higher_is_better=False),
    Measure(
        "shortcut_gain",
        "what that classifier has beyond the majority rate",
        minimum=-1.0,
        higher_is_better=False,
        uninformative=0.0,
    ),
)

Probe = Literal["boosting", "logistic"]
PROBES: tuple[Probe, ...] = get_args(Probe)

NUM_LARGEST = 5
NUM_FEATURES = 2 * NUM_EDGE_POSITIONS + NUM_PARTS + NUM_LARGEST + 4

_CHUNK = 2**18
"""Tokens whose features are computed at once, padding included."""


def hard_masks(scores: FloatArray, mask: BoolArray, k: int) -> FloatArray:
    """Equal weights on the k highest scores.

    Args:
        scores: (B, T) finite.
        mask: (B, T) bool.
        k: at least 1; all tokens of a shorter text are selected.

    Returns:
        (B, T) `1 / min(k, n)` at the selected tokens, of equal scores the first ones; 0 elsewhere.
    """
    order = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")[:, :k]
    chosen = np.zeros(mask.shape, np.float32)
    np.put_along_axis(chosen, order, 1.0, axis=1)
    chosen[~mask] = 0.0
    weights: FloatArray = chosen / chosen.sum(1, keepdims=True)
    return weights


def selection_features(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """What a selection looks like, without a word of the text.

    Args:
        weights: (B, T) at least 0, summing to 1 over the real tokens, 0 at padding: a hard mask or soft weights.
        mask: (B, T) bool, the real tokens first in every row.

    Returns:
        (B, NUM_FEATURES) float32: the weight of each of the first and of the last positions (0 beyond the text), the
        weight in each tenth of the text, the largest weights in falling order, mean and standard deviation of the
        relative position under the weights, `sum_t w_t w_{t+1}` (neighbours), and `log n`. Independent of padding.
    """
    lengths = mask.sum(1, keepdims=True)
    places = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)
    weights = np.where(mask, weights, 0.0)
    edges = np.zeros((len(mask), 2, NUM_EDGE_POSITIONS))
    for edge, distance in enumerate((places, lengths - 1 - places)):
        line, place = np.nonzero(mask & (distance < NUM_EDGE_POSITIONS))
        edges[line, edge, distance[line, place]] = weights[line, place]
    parts = np.zeros((len(mask), NUM_PARTS))
    line, place = np.nonzero(mask)
    np.add.at(parts, (line, NUM_PARTS * place // lengths[line, 0]), weights[line, place])
    largest = np.zeros((len(mask), NUM_LARGEST))
    found = -np.sort(-weights, axis=1)[:, :NUM_LARGEST]
    largest[:, : found.shape[1]] = found
    relative = (places + 0.5) / lengths
    mean = (weights * relative).sum(1, keepdims=True)
    deviation = np.sqrt((weights * (relative - mean) ** 2).sum(1, keepdims=True))
    neighbours = (weights[:, 1:] * weights[:, :-1]).sum(1, keepdims=True)
    columns = [edges.reshape(len(mask), -1), parts, largest, mean, deviation, neighbours, np.log(lengths)]
    return np.concatenate(columns, 1).astype(np.float32)


def features_of(weights: Ragged, k: int | None) -> FloatArray:
    """The features of every text of a split.

    Args:
        weights: attention of the split.
        k: select so many tokens; None to describe the weights themselves.

    Returns:
        (N, NUM_FEATURES) float32 in the order of the split.
    """
    features = np.zeros((len(weights), NUM_FEATURES), np.float32)
    order = np.argsort(-weights.lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, _CHUNK // int(weights.lengths[order[start]]))]
        padded = weights.pad(rows)
        mask = np.arange(padded.shape[1]) < weights.lengths[rows, None]
        features[rows] = selection_features(padded if k is None else hard_masks(padded, mask, k), mask)
        start += len(rows)
    return features


def probe_predictions(
    train: FloatArray, labels: NDArray[np.int64], test: FloatArray, probe: Probe, seed: int
) -> NDArray[np.int64] | None:
    """Classes that a classifier of masks predicts for texts that it has not seen.

    Args:
        train: (N, F) features.
        labels: (N,).
        test: (M, F) features.
        probe: `boosting` for scikit-learn's histogram gradient boosting, `logistic` for a logistic regression on
            standardised features; both with scikit-learn's defaults.
        seed: of the boosting.

    Returns:
        (M,), or None if `labels` are of one class only: there is nothing to fit.
    """
    if len(np.unique(labels)) < 2:
        return None
    model: Any = (
        HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
        if probe == "boosting"
        else make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    )
    predicted: NDArray[np.int64] = model.fit(train, labels).predict(test)
    return predicted
