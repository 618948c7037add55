"""A bidirectional LSTM over many texts made of the same tokens, for measurements that erase tokens.

Leaving out one token after the other gives n texts that are nearly the same: the forward direction reads the same
beginnings again and again, the backward direction the same ends. Here every distinct beginning (and end) is read once,
as a node of a tree whose levels advance together, and the product with the input is taken once per token. That product
serves texts of scaled tokens too: it is linear.

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
        parents: (M,) which one of the level before it goes on from; None where the first M of that go on, one each.
        factors: (M, 1) what the last token of each is multiplied by; None for whole tokens.
    """

    tokens: Indices
    parents: Indices | None
    factors: Tensor | None = None


def prefix_tree(source: Indices, lengths: Indices) -> tuple[list[Level], Indices]:
    """The tree of all beginnings.

    Args:
        source: (K, L) the tokens of every text, at least 0.
        lengths: (K,) at least 1; what comes after is ignored.

    Returns:
        The levels, and the (K, L) node of every beginning, counted over all levels; -1 at padding.
    """
    places = np.arange(source.shape[1])
    # Big-endian and from 1 on, so that NumPy's order of bytes is that of the texts, the shorter of two first.
    keys = np.where(places < lengths[:, None], source + 1, 0).astype(">u4")
    order = np.argsort(keys.view(f"S{4 * len(places)}")[:, 0], kind="stable")
    keys = keys[order].astype(np.int64)
    # Of sorted texts each shares more of its beginning with the one before it than with any other.
    new = np.ones(keys.shape, np.bool_)
    np.logical_not(np.logical_and.accumulate(keys[1:] == keys[:-1], axis=1), out=new[1:])
    new &= keys > 0
    within = np.cumsum(new, axis=0) - 1
    counts = new.sum(0)
    nodes = np.empty_like(within)
    nodes[order] = np.where(keys > 0, within + (np.cumsum(counts) - counts), -1)
    steps, rows = new.T.nonzero()
    # At the first step there is no place before: what is read there (the last one) is not used.
    tokens, parents = keys[rows, steps] - 1, within[rows, steps - 1]
    starts = np.cumsum(counts) - counts
    in_order = np.logical_and.reduceat(parents == within[rows, steps], starts)
    levels = zip(np.split(tokens, starts[1:]), np.split(parents, starts[1:]), in_order, strict=True)
    return [Level(last, None if same else before) for last, before, same in levels], nodes


def separate_texts(source: Indices, lengths: Indices, factors: Tensor) -> tuple[list[Level], Indices]:
    """Levels and nodes of texts that share no beginning, because each scales its tokens in its own way.

    Args:
        source: (K, L) the tokens of every text.
        lengths: (K,) at least 1, the longest text first; what comes after is ignored.
        factors: (K, L) what every token is multiplied by.

    Returns:
        As `prefix_tree`.
    """
    running = [int((lengths > step).sum()) for step in range(source.shape[1])]
    levels = [Level(source[:count, step], None, factors[:count, step, None]) for step, count in enumerate(running)]
    nodes = np.arange(len(source))[:, None] + (np.cumsum(running) - running)
    return levels, np.where(np.arange(source.shape[1]) < lengths[:, None], nodes, -1)


class SharedLSTM:
    """One bidirectional layer on the CPU, for texts that share tokens; equal to the layer run on every text.

    It has no backward pass: use it under `torch.no_grad` or `torch.inference_mode`.

    Args:
        lstm: bidirectional, of one layer.
        inputs: (N, E) the vectors of the distinct tokens, in the type of the weights.

    Cost: the product with the input once per token, and one step per distinct beginning and end; for scaled tokens
    one step per token of every text.
    """

    def __init__(self, lstm: nn.LSTM, inputs: Tensor) -> None:
        weights = [_sigmoids_first(weight) for weight in lstm.parameters()]
        ahead, back = weights[:4], weights[4:]
        self._biases = [one[2] + one[3] for one in (ahead, back)]
        self._gates = [
            torch.addmm(bias, inputs, one[0].T) for bias, one in zip(self._biases, (ahead, back), strict=True)
        ]
        self._to_gates = [one[1].T for one in (ahead, back)]

    def __call__(self, source: Indices, lengths: Indices, factors: Tensor | None = None) -> Tensor:
        """Read texts.

        Args:
            source: (K, L) the tokens of every text.
            lengths: (K,) at least 1, the largest of them L; what comes after is ignored.
            factors: (K, L) what the vector of every token is multiplied by, in the type of the weights; None for 1.
                The longest text must come first then.

        Returns:
            (K, L, 2 * H) states, 0 at padding.
        """
        places = np.arange(source.shape[1])
        backwards = np.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)
        orders = (source, np.take_along_axis(source, backwards, 1))
        if factors is None:
            trees = [prefix_tree(order, lengths) for order in orders]
        else:
            both = (factors, factors.gather(1, torch.from_numpy(backwards)))
            trees = [separate_texts(order, lengths, scale) for order, scale in zip(orders, both, strict=True)]
        ends = np.take_along_axis(trees[1][1], backwards, 1)
        sizes = [sum(len(level.tokens) for level in levels) for levels, _ in trees]
        width = self._to_gates[0].shape[0]
        states = self._gates[0].new_empty(sum(sizes) + 1, width)
        states[-1] = 0.0  # what padding reads: node -1
        for direction, ((levels, _), part) in enumerate(zip(trees, states[:-1].split(sizes), strict=True)):
            self._run(direction, levels, part)
        read = np.stack([trees[0][1], np.where(ends >= 0, ends + sizes[0], -1)], axis=-1) % len(states)
        return states.index_select(0, torch.from_numpy(read.ravel())).view(*source.shape, 2 * width)

    def _run(self, direction: int, levels: list[Level], states: Tensor) -> None:
        """Fill the (M, H) states of all nodes of a tree, level by level."""
        gates, bias, to_gates = self._gates[direction], self._biases[direction], self._to_gates[direction]
        past_state = past_cell = states[:0]
        for level, state in zip(levels, states.split([len(level.tokens) for level in levels]), strict=True):
            gate = gates.index_select(0, torch.from_numpy(level.tokens))
            if level.factors is not None:
                # `f W x + b` out of `W x + b`.
                gate.mul_(level.factors).addcmul_(1 - level.factors, bias)
            first = len(past_state) == 0
            if not first:
                past_state, past_cell = (_followed(past, level) for past in (past_state, past_cell))
                gate.addmm_(past_state, to_gates)
            gate[:, : 3 * state.shape[1]].sigmoid_()
            out, into, forget, new = gate.chunk(4, 1)
            cell = new.tanh_().mul(into)
            if not first:
                cell.addcmul_(past_cell, forget)
            torch.mul(out, cell.tanh(), out=state)
            past_state, past_cell = state, cell


def _followed(past: Tensor, level: Level) -> Tensor:
    """(M, H) what each node of a level goes on from."""
    if level.parents is None:
        return past[: len(level.tokens)]  # a view: most levels of separate texts, and of ends of shared ones
    return past.index_select(0, torch.from_numpy(level.parents))


def _sigmoids_first(weight: Tensor) -> Tensor:
    """Gates from torch's order (input, forget, cell, output) to (output, input, forget, cell)."""
    # The three gates that take a sigmoid lie side by side then, and one call serves them all.
    return weight.roll(weight.shape[0] // 4, 0)
