"""Words to pieces: what is kept, what no text can forge, and when states computed before are still right."""

import copy
from pathlib import Path

import pytest
import torch

from attn_lightning.backbone.pieces import COUNT, PieceEmbedding, WordPieces, scaled_pieces, unpacked
from attn_lightning.backbone.published import load
from support.tiny_bert import SIZE, make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow

VOCABULARY = ("<pad>", "<unk>", "good", "zebra", "[SEP]", "\u200b")


@pytest.fixture(scope="module")
def cutting(tmp_path_factory: pytest.TempPathFactory) -> WordPieces:
    folder: Path = make_tiny_bert(tmp_path_factory.mktemp("bert"))
    return load(str(folder), None, {"dropout": 0.0}, None)[1]


def embedding(cutting: WordPieces, most: int = 8) -> PieceEmbedding:
    torch.manual_seed(0)
    return PieceEmbedding(torch.nn.Embedding(70, SIZE), cutting, VOCABULARY, most)


def test_words_are_cut_as_the_tokenizer_cuts_them(cutting: WordPieces) -> None:
    good, zebra, *others = cutting.cut(["good", "zebra", "[SEP]", "[MASK]", "\u200b"], 8)
    assert (len(good), len(zebra)) == (1, 5)
    assert others == [[cutting.unknown]] * 3, "neither a special piece nor a word without pieces"
    assert cutting.cut(["zebra"], 2) == [zebra[:2]]
    assert WordPieces.from_str(cutting.to_str()) == cutting


def test_a_packed_word_holds_its_pieces_and_their_number(cutting: WordPieces) -> None:
    words = embedding(cutting)
    packed = words(torch.tensor([[2, 3], [2, 0]]))
    assert packed.shape == (2, 2, 5 * SIZE + 1)
    torch.testing.assert_close(packed[..., -1] / COUNT, torch.tensor([[1.0, 5.0], [1.0, 0.0]]))
    vectors, counts = unpacked(packed + torch.randn_like(packed), SIZE)
    assert counts.tolist() == [[1, 5], [1, 0]], "noise does not change how many there are"
    assert vectors.shape == (2, 2, 5, SIZE)
    torch.testing.assert_close(unpacked(packed, SIZE)[0][0, 1], words.table(words.pieces[3, :5].long()))
    half = scaled_pieces(packed, torch.full((2, 2, 1), 0.5))
    torch.testing.assert_close(half[..., :-1], packed[..., :-1] / 2)
    assert torch.equal(half[..., -1], packed[..., -1])


def test_only_the_very_tensor_that_was_made_is_known(cutting: WordPieces) -> None:
    words, tokens = embedding(cutting), torch.tensor([[2, 3]])
    packed = words(tokens)
    assert words.tokens_of(packed) is tokens
    assert words.tokens_of(packed + 0.0) is None
    assert words.tokens_of(packed.detach()) is None
    with torch.no_grad():
        packed[0, 0, 0] += 1
    assert words.tokens_of(packed) is None, "changed in place"
    assert copy.deepcopy(words).tokens_of(packed) is None


def test_new_words_are_learned_behind_the_others(cutting: WordPieces) -> None:
    words = embedding(cutting)
    words.know((*VOCABULARY, "bad", "yak"))
    assert words.counts.tolist() == [0, 1, 1, 5, 1, 1, 1, 3]
    words.know(VOCABULARY)
    assert len(words.counts) == 8
