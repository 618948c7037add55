"""The LSTM over texts that share tokens, against torch's on each of them."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.backbone.shared_lstm import SharedLSTM, prefix_tree


def texts(seed=0, count=30, num_tokens=6, longest=8):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, count)
    lengths[0] = longest
    return generator.integers(0, num_tokens, (count, longest)), lengths


@pytest.mark.parametrize("seed", range(3))
def test_equals_torch_one_text_at_a_time(seed):
    torch.manual_seed(seed)
    lstm = nn.LSTM(5, 4, batch_first=True, bidirectional=True).double()
    inputs = torch.randn(6, 5, dtype=torch.float64)
    source, lengths = texts(seed)
    with torch.no_grad():
        states = SharedLSTM(lstm, inputs)(source, lengths)
        for row, length, found in zip(source, lengths, states, strict=True):
            torch.testing.assert_close(found[:length], lstm(inputs[row[:length]][None])[0][0])
            assert (found[length:] == 0).all()


def test_every_beginning_is_a_node_once():
    source, lengths = texts()
    levels, nodes = prefix_tree(source, lengths)
    beginnings = {tuple(row[: s + 1]) for row, n in zip(source.tolist(), lengths, strict=True) for s in range(n)}
    assert sum(len(level.tokens) for level in levels) == len(beginnings)
    by_node = {}
    for row, numbers, length in zip(source.tolist(), nodes.tolist(), lengths, strict=True):
        assert numbers[length:] == [-1] * (8 - length)
        for step in range(length):
            assert by_node.setdefault(numbers[step], row[: step + 1]) == row[: step + 1]
    assert sorted(by_node) == list(range(len(beginnings)))


def test_a_level_names_tokens_and_parents():
    levels, nodes = prefix_tree(np.array([[3, 1, 0], [3, 2, 5], [4, 1, 5]]), np.array([3, 3, 2]))
    assert [level.tokens.tolist() for level in levels] == [[3, 4], [1, 2, 1], [0, 5]]
    assert levels[1].parents.tolist() == [0, 0, 1]
    assert levels[2].parents is None
    assert nodes.tolist() == [[0, 2, 5], [0, 3, 6], [1, 4, -1]]


@pytest.mark.parametrize("seed", range(3))
def test_scaled_tokens_equal_torch_one_text_at_a_time(seed):
    torch.manual_seed(seed)
    lstm = nn.LSTM(5, 4, batch_first=True, bidirectional=True).double()
    inputs = torch.randn(6, 5, dtype=torch.float64)
    source, lengths = texts(seed)
    lengths = np.sort(lengths)[::-1].copy()
    factors = torch.rand(*source.shape, dtype=torch.float64)
    factors[:3] = 0
    with torch.no_grad():
        states = SharedLSTM(lstm, inputs)(source, lengths, factors)
        for row, scale, length, found in zip(source, factors, lengths, states, strict=True):
            expected = lstm((inputs[row] * scale[:, None])[:length][None])[0][0]
            torch.testing.assert_close(found[:length], expected)
            assert (found[length:] == 0).all()
