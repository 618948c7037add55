"""Padded pairs of token scores, and references that are computed text by text."""

import numpy as np


def padded(seed=0, size=40, longest=30, ties=False, dtype=np.float32):
    """Random scores of random lengths, a one-token row and rows with a constant score among them; junk at padding."""
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, size, longest)).astype(dtype)
    if ties:
        first, second = first.round(1), second.round(1)
    lengths = rng.integers(2, longest + 1, size)
    lengths[:3] = (1, 2, longest)
    first[3], second[4] = 0.25, 0.5
    first[5] = second[5] = 0.125
    mask = np.arange(longest) < lengths[:, None]
    return first, second, mask


def by_row(measure, first, second, mask):
    return np.array([measure(a[real], b[real]) for a, b, real in zip(first, second, mask, strict=True)])


def or_nan(measure):
    """`measure`, and NaN for the rows for which the specification calls it undefined."""
    return lambda a, b: np.nan if len(a) < 2 or len(set(a)) == 1 or len(set(b)) == 1 else measure(a, b)


def random_weights(mask, generator):
    """(B, T) float32 weights at the real tokens, rows summing to 1."""
    weights = np.where(mask, generator.exponential(size=mask.shape), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def mask_of(lengths, width=None):
    """(B, width) bool, True at the real tokens of texts of these lengths."""
    return np.arange(width or max(lengths)) < np.asarray(lengths)[:, None]
