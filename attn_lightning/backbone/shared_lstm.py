"""A bidirectional LSTM over many texts made of the same tokens, for measurements that erase tokens.

Leaving out one token after the other gives n texts that are nearly the same: the forward direction reads the same
beginnings again and again, the backward direction the same ends. Here every distinct beginning (and end) is read once,
as a node of a tree whose levels advance together, and the product with the input is taken once per token.

Legend: N distinct tokens, K texts made of them, L tokens of the longest, H states per direction.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Indices = NDArray[np.int64]


class Level(NamedTuple):
    """The distinct beginnings of one length.

    Attributes:
        tokens: (M,) the last token of each, in 0..N-1.
        parents: (M,) which one of the level before it goes on from.
    """

    tokens: Indices
    parents: Indices


def prefix_tree(source: Indices, lengths: Indices, num_tokens: int) -> tuple[list[Level], Indices]:
    """The tree of all beginnings.

    Args:
        source: (K, L) the tokens of every text, in 0..N-1.
        lengths: (K,) at least 1; what comes after is ignored.
        num_tokens: N.

    Returns:
        The levels, and the (K, L) node of every beginning, counted over all levels; -1 at padding.
    """
    nodes = np.full(source.shape, -1, np.int64)
    levels: list[Level] = []
    rows, parents, count = np.arange(len(source)), np.zeros(len(source), np.int64), 0
    for step in range(source.shape[1]):
        longer = lengths[rows] > step
        rows, parents = rows[longer], parents[longer]
        keys, places = np.unique(parents * num_tokens + source[rows, step], return_inverse=True)
        nodes[rows, step] = count + places
        levels.append(Level(keys % num_tokens, keys // num_tokens))
        parents, count = places, count + len(keys)
    return levels, nodes


class SharedLSTM:
    """One bidirectional layer on the CPU, for texts that share tokens; equal to the layer run on every text.

    It has no backward pass: use it under `torch.no_grad` or `torch.inference_mode`.

    Args:
        lstm: bidirectional, of one layer.
        inputs: (N, E) the vectors of the distinct tokens, in the type of the weights.

    Cost: the product with the input once per token, and one step per distinct beginning and end.
    """

    def __init__(self, lstm: nn.LSTM, inputs: Tensor) -> None:
        weights = [_sigmoids_first(weight) for weight in lstm.parameters()]
        ahead, back = weights[:4], weights[4:]
        self._gates = [torch.addmm(one[2] + one[3], inputs, one[0].T) for one in (ahead, back)]
        self._to_gates = [one[1].T for one in (ahead, back)]

    def __call__(self, source: Indices, lengths: Indices) -> Tensor:
        """Read texts.

        Args:
            source: (K, L) the tokens of every text.
            lengths: (K,) at least 1, the largest of them L; what comes after is ignored.

        Returns:
            (K, L, 2 * H) states, 0 at padding.
        """
        places = np.arange(source.shape[1])
        backwards = np.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
        orders = (source, np.take_along_axis(source, backwards, 1))
        trees = [prefix_tree(order, lengths, len(self._gates[0])) for order in orders]
        ends = np.take_along_axis(trees[1][1], backwards, 1)
        sizes = [sum(len(level.tokens) for level in levels) for levels, _ in trees]
        width = self._to_gates[0].shape[0]
        states = self._gates[0].new_empty(sum(sizes) + 1, width)
        states[-1] = 0.0  # what padding reads: node -1
        for gates, to_gates, (levels, _), part in zip(
            self._gates, self._to_gates, trees, states[:-1].split(sizes), strict=True
        ):
            _run(gates, to_gates, levels, part)
        read = np.stack([trees[0][1], np.where(ends >= 0, ends + sizes[0], -1)], axis=-1) % len(states)
        return states.index_select(0, torch.from_numpy(read.ravel())).view(*source.shape, 2 * width)


def _run(gates: Tensor, to_gates: Tensor, levels: list[Level], states: Tensor) -> None:
    """Fill the (M, H) states of all nodes of a tree, level by level."""
    past_state = past_cell = states[:0]
    for level, state in zip(levels, states.split([len(level.tokens) for level in levels]), strict=True):
        gate = gates.index_select(0, torch.from_numpy(level.tokens))
        first = len(past_state) == 0
        parents = torch.from_numpy(level.parents)
        if not first:
            gate.addmm_(past_state.index_select(0, parents), to_gates)
        gate[:, : 3 * state.shape[1]].sigmoid_()
        out, into, forget, new = gate.chunk(4, 1)
        cell = new.tanh_().mul(into)
        if not first:
            cell.addcmul_(past_cell.index_select(0, parents), forget)
        torch.mul(out, cell.tanh(), out=state)
        past_state, past_cell = state, cell


def _sigmoids_first(weight: Tensor) -> Tensor:
    """Gates from torch's order (input, forget, cell, output) to (output, input, forget, cell)."""
    # The three gates that take a sigmoid lie side by side then, and one call serves them all.
    return weight.roll(weight.shape[0] // 4, 0)
