"""What a selection of tokens looks like, without a word of the text: where it lies, how much it is, how scattered."""

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.per_example import BoolArray, FloatArray

NUM_EDGE_POSITIONS = 8
NUM_PARTS = 10
NUM_LARGEST = 5
NUM_FEATURES = 2 * NUM_EDGE_POSITIONS + NUM_PARTS + NUM_LARGEST + 4


def edge_and_part_weights(weights: FloatArray, mask: BoolArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The weight at both ends of every text, and in each tenth of it.

    Args:
        weights: (B, T), 0 at padding.
        mask: (B, T) bool, the real tokens first in every row.

    Returns:
        (B, 2 * NUM_EDGE_POSITIONS) weights of the first and of the last positions, 0 beyond the text; and
        (B, NUM_PARTS) sums over the tenths.
    """
    rows, places = np.nonzero(mask)
    lengths, values = mask.sum(1)[rows], weights[rows, places]
    edges = np.zeros((len(mask), 2, NUM_EDGE_POSITIONS))
    for edge, distance in enumerate((places, lengths - 1 - places)):
        near = distance < NUM_EDGE_POSITIONS
        edges[rows[near], edge, distance[near]] = values[near]
    cells = rows * NUM_PARTS + NUM_PARTS * places // lengths
    parts: NDArray[np.float64] = np.bincount(cells, values, minlength=len(mask) * NUM_PARTS).astype(np.float64)
    return edges.reshape(len(mask), -1), parts.reshape(len(mask), NUM_PARTS)


def mask_features(attention: FloatArray, mask: BoolArray) -> FloatArray:
    """What a selection looks like when all that counts is which tokens it contains.

    Attention becomes a mask by selecting the tokens with more than their uniform share, `a_t > 1 / n`; a subset with
    equal weights comes out as it is.

    Args:
        attention: (B, T) float32, rows sum to 1.
        mask: (B, T) bool, the real tokens first in every row.

    Returns:
        (B, 2 * NUM_EDGE_POSITIONS + NUM_PARTS + 3) float32: whether each of the first and of the last positions is
        selected; the share of the selected tokens that lies in each tenth of the text; `log(1 + number selected)`;
        the share of the text that is selected; and runs of neighbors per selected token. Independent of padding.
    """
    lengths = mask.sum(1, keepdims=True)
    # In the type of the attention: 1 / n times n is not always 1, and a uniform text must select nothing.
    shares = attention * lengths.astype(attention.dtype)
    selected = ((shares > 1 + 1e-5) & mask).astype(np.float64)
    count = selected.sum(1, keepdims=True)
    edges, parts = edge_and_part_weights(selected, mask)
    # Every selected token opens a run unless its left neighbor is selected too.
    runs = count - (selected[:, 1:] * selected[:, :-1]).sum(1, keepdims=True)
    columns = [edges, parts / count.clip(1), np.log1p(count), count / lengths, runs / count.clip(1)]
    return np.concatenate(columns, 1).astype(np.float32)


def selection_features(weights: FloatArray, mask: BoolArray) -> FloatArray:
    """What a selection looks like when its weights count.

    Args:
        weights: (B, T) at least 0, summing to 1 over the real tokens, 0 at padding: a hard mask or soft weights.
        mask: (B, T) bool, the real tokens first in every row.

    Returns:
        (B, NUM_FEATURES) float32: the weight of each of the first and of the last positions (0 beyond the text), the
        weight in each tenth of the text, the largest weights in falling order, mean and standard deviation of the
        relative position under the weights, `sum_t w_t w_{t+1}` (neighbors), and `log n`. Independent of padding.
    """
    lengths = mask.sum(1, keepdims=True)
    weights = np.where(mask, weights, 0.0)
    edges, parts = edge_and_part_weights(weights, mask)
    largest = np.zeros((len(mask), NUM_LARGEST))
    found = -np.sort(-weights, axis=1)[:, :NUM_LARGEST]
    largest[:, : found.shape[1]] = found
    # The middle of each token's share of the text, so that a text read backwards has the mirrored positions.
    relative = (np.arange(mask.shape[1]) + 0.5) / lengths
    mean = (weights * relative).sum(1, keepdims=True)
    deviation = np.sqrt((weights * (relative - mean) ** 2).sum(1, keepdims=True))
    neighbors = (weights[:, 1:] * weights[:, :-1]).sum(1, keepdims=True)
    columns = [edges, parts, largest, mean, deviation, neighbors, np.log(lengths)]
    return np.concatenate(columns, 1).astype(np.float32)
