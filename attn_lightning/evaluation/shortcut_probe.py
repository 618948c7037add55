"""Does the selection alone tell the label? A classifier of masks that never sees a word.

A mask M on a text X carries `I(Y; M)` of the label by itself: what a model can say through the mask instead of the
words (Bai et al. 2021, https://arxiv.org/abs/2006.05656).
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attn_lightning.evaluation.subject import Ragged
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray
from attn_lightning.metrics.selection_features import NUM_FEATURES, selection_features

MEASURES = (
    Measure("majority_rate", "share of examples with the most frequent label of the training", higher_is_better=None),
    Measure("shortcut_accuracy", "accuracy of a classifier that sees the selection alone", higher_is_better=False),
    Measure("shortcut_gain", "what it has beyond the majority rate", -1.0, 1.0, False, uninformative=0.0),
)

Probe = Literal["boosting", "logistic"]
PROBES: tuple[Probe, ...] = get_args(Probe)

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
    # Padding last; a text of fewer than k tokens still selects some of it, which is taken back below.
    order = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")[:, :k]
    chosen = np.zeros(mask.shape, np.float32)
    np.put_along_axis(chosen, order, 1.0, axis=1)
    chosen[~mask] = 0.0
    weights: FloatArray = chosen / chosen.sum(1, keepdims=True)
    return weights


def features_of(weights: Ragged, k: int | None) -> FloatArray:
    """The features of every text of a split.

    Args:
        weights: attention of the split.
        k: number of tokens to select; None to describe the weights themselves.

    Returns:
        (N, NUM_FEATURES) float32 in the order of the split.
    """
    features = np.zeros((len(weights), NUM_FEATURES), np.float32)
    order = np.argsort(-weights.lengths, kind="stable")
    start = 0
    while start < len(order):
        # The longest first, so that the first row of a chunk tells its width.
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
    # Imported where it is used: no run without this probe waits for it.
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) < 2:
        return None
    model: Any = (
        # Without early stopping, which would hold out a part of a training split that may be small.
        HistGradientBoostingClassifier(early_stopping=False, random_state=seed)
        if probe == "boosting"
        else make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    )
    predicted: NDArray[np.int64] = model.fit(train, labels).predict(test)
    return predicted
