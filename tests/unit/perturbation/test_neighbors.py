"""Nearest words against dense cosines, directions to them against all differences at once; memory, cache, pickles."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pieces import PieceEmbedding
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.perturbation import neighbors
from attn_lightning.perturbation.neighbors import (
    NearestWords,
    NeighborCache,
    nearest_words,
    toward_neighbors,
    word_table,
)
from attn_lightning.types import Batch, DataSpec

B, T, E, V = 4, 6, 5, 40
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = torch.arange(T) < LENGTHS[:, None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("chunk", [7, 8192])
def test_nearest_words_equal_dense_cosines(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "CHUNK", chunk)
    monkeypatch.setattr(neighbors, "QUERIES", 5)
    table = torch.randn(V, E, dtype=torch.float64) * torch.rand(V, 1, dtype=torch.float64) * 10
    table[0] = 0.0
    cosine = torch.from_numpy(cosine_similarity(table.numpy()))
    cosine[:, :2] = -2.0
    cosine.fill_diagonal_(-2.0)
    words = torch.tensor([30, 2, 39, 1, 7, 8, 9])
    assert torch.equal(nearest_words(words, table, 4), cosine[words].argsort(1, descending=True)[:, :4])
    every = nearest_words(words[:3], table, V - 3)
    assert all(
        sorted(row.tolist()) == [w for w in range(2, V) if w != word]
        for row, word in zip(every, words[:3], strict=True)
    )


class LargestTensor(TorchDispatchMode):
    """Numbers of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() != self.table:
                self.size = max(self.size, value.numel())
        return result

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table.untyped_storage().data_ptr()


def test_memory_is_bounded_by_the_chunk_at_a_vocabulary_of_200_000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "QUERIES", 16)
    table = torch.randn(200_000, 2)
    with LargestTensor(table) as largest:
        found = nearest_words(torch.arange(2, 50), table, 10)
    assert found.shape == (48, 10)
    # One number per word for its norm, and one chunk of similarities; all of them would be 9.6 million.
    assert largest.size <= max(16 * neighbors.CHUNK, 200_000)


def test_cache_searches_for_a_word_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, search = [], nearest_words
    monkeypatch.setattr(neighbors, "nearest_words", lambda words, *args: asked.append(words) or search(words, *args))
    table = torch.randn(V, E)
    cache = NeighborCache(table, 3)
    first = cache.look_up(torch.tensor([5, 9, 5]), table)
    cache.look_up(torch.tensor([9, 5]), table)
    second = cache.look_up(torch.tensor([11, 9]), table)
    assert [words.tolist() for words in asked] == [[5, 9], [11]]
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[0], first[2])


def test_small_vocabulary_gives_all_it_has_and_none_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    table = torch.randn(6, E)
    assert NeighborCache(table, 10).look_up(torch.tensor([2, 3]), table).shape == (2, 3)
    assert "3 neighbors, not 10" in caplog.text
    with pytest.raises(ConfigurationError, match="at least two words"):
        NeighborCache(table[:3], 10)


@pytest.mark.parametrize("numbers", [1, 3 * E, 2**19])
def test_directions_in_pieces_equal_all_of_them_at_once(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "DIFFERENCES", numbers)
    table, words = torch.randn(V, E), torch.randint(2, V, (B, T)) * MASK
    table[5] = table[words[0, 0]]  # no direction leads to a word at the same place
    near = torch.cat([nearest_words(words[MASK], table, 3), torch.full((int(MASK.sum()), 1), 5)], dim=1)
    gradient = torch.randn(B, T, E)
    differences = table[near] - table[words[MASK]].unsqueeze(1)
    lengths = differences.norm(dim=2, keepdim=True)
    directions = torch.where(lengths > 0, differences / lengths, 0.0)
    slopes = (directions * gradient[MASK].unsqueeze(1)).sum(2)
    expected = ((slopes / slopes.norm(dim=1, keepdim=True)).unsqueeze(2) * directions).sum(1)
    project = toward_neighbors(words, MASK, near, table)
    with LargestTensor(table) as largest:
        moved = project(gradient)
    torch.testing.assert_close(moved[MASK], expected, rtol=1e-6, atol=1e-6)
    assert (moved[~MASK] == 0).all()
    # The result, or one piece: of one token at least.
    assert largest.size <= max(B * T * E, numbers, near.shape[1] * E)


def test_words_without_gradient_and_padding_are_not_moved() -> None:
    table, words = torch.randn(V, E), torch.randint(2, V, (B, T)) * MASK
    project = toward_neighbors(words, MASK, nearest_words(words[MASK], table, 3), table)
    gradient = torch.randn(B, T, E)
    gradient[0, 1] = 0.0
    moved = project(gradient)
    assert (moved[0, 1] == 0).all()
    assert (moved[~MASK] == 0).all()
    assert (moved[0, 0] != 0).all()


def test_a_model_without_word_vectors_is_refused() -> None:
    class Bare(Backbone):
        pass

    with pytest.raises(ConfigurationError, match=r"one `nn\.Embedding`"):
        word_table(Bare())
    model = AttentionClassifier(DataSpec(2, V, E, ("a", "b")))
    assert word_table(model) is model.embedding.weight


def test_a_model_that_reads_words_as_pieces_is_refused_also_with_a_single_table() -> None:
    """XLNet and ModernBERT have one; the ids of words are no places in it."""

    class OfPieces(Backbone):
        def __init__(self) -> None:
            super().__init__()
            cutting: Any = SimpleNamespace(cut=lambda words, _: [[1]] * len(words), unknown=1)
            self.encoder = nn.Embedding(9, E)
            self.embedding = PieceEmbedding(self.encoder, cutting, ("<pad>", "<unk>", "a"), most=2)

    with pytest.raises(ConfigurationError, match="OfPieces reads each word as pieces; use WordAT or WordVAT"):
        word_table(OfPieces())


def test_words_are_searched_for_anew_after_a_refresh_and_after_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    model = AttentionClassifier(DataSpec(2, V, E, ("a", "b")))
    tokens = torch.randint(2, V, (B, T)) * MASK
    batch, output = Batch(tokens, MASK, torch.zeros(B), torch.arange(B)), model(tokens, MASK)
    asked, search = [], nearest_words
    monkeypatch.setattr(neighbors, "nearest_words", lambda words, *args: asked.append(1) or search(words, *args))
    directions = NearestWords(3)
    for expected, prepare in ((1, None), (1, None), (2, directions.refresh)):
        if prepare is not None:
            prepare()
        directions.projection(model, output, batch)
        assert len(asked) == expected
    copy = pickle.loads(pickle.dumps(directions))
    assert copy == directions
    assert copy != NearestWords(4)
    copy.projection(model, output, batch)
    assert len(asked) == 3
