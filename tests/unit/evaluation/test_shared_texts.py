"""Texts read together by a shared LSTM, against the model on each of them alone."""

import numpy as np
import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, BiLSTM
from attn_lightning.evaluation.shared_texts import SharedTexts, kept_places, shareable_lstm
from attn_lightning.types import DataSpec

ERASED = 1
MASK = np.arange(5) < np.array([5, 2, 4])[:, None]


class Doubled(AttentionClassifier):
    def embed(self, tokens):
        return 2 * super().embed(tokens)


class Deep(BiLSTM):
    def __init__(self, input_size):
        super().__init__(input_size, 4, num_layers=2)


def make_model(encoder=BiLSTM, cls=AttentionClassifier, **spec):
    torch.manual_seed(0)
    return cls(DataSpec(2, 20, 6, ("a", "b"), **spec), encoder=encoder).double().eval()


@pytest.fixture
def tokens():
    words = torch.randint(2, 8, (3, 5), generator=torch.Generator().manual_seed(0))
    return words.masked_fill(~torch.from_numpy(MASK), 0)


@pytest.fixture
def texts(tokens):
    model = make_model()
    with torch.no_grad():
        yield model, SharedTexts(model, model.encoder.lstm, tokens.flatten(), MASK, torch.tensor(ERASED))


def test_shortened_texts_equal_the_model_on_each_alone(texts, tokens):
    model, shared = texts
    owners = np.array([0, 1, 2, 0, 1])
    kept = MASK[owners] & np.array([[1, 0, 1, 1, 1]] * 3 + [[0, 1, 1, 0, 0], [0] * 5], bool)
    found = shared.read(owners, kept)
    for place, (owner, keep) in enumerate(zip(owners, kept, strict=True)):
        words = tokens[owner][torch.from_numpy(keep)] if keep.any() else torch.tensor([ERASED])
        expected = model(words[None], torch.ones(1, len(words), dtype=torch.bool))
        torch.testing.assert_close(found.logits[place], expected.logits[0])
        torch.testing.assert_close(found.attention[place, : len(words)], expected.attention[0])
        assert (found.attention[place, len(words) :] == 0).all()


def test_scaled_texts_equal_the_model_on_each_alone(texts, tokens):
    model, shared = texts
    owners = np.array([0, 0, 2, 1])
    scales = np.random.default_rng(0).random((4, 5))
    scales[1] = 0
    found = shared.scaled(owners, scales)
    for place, (owner, scale) in enumerate(zip(owners, scales, strict=True)):
        length = int(MASK[owner].sum())
        mask = torch.ones(1, length, dtype=torch.bool)
        embeddings = model.embed(tokens[owner : owner + 1, :length]) * torch.from_numpy(scale[:length, None])
        hidden = model.encode(embeddings, mask)
        expected = model.attend(hidden, model.score(hidden, mask), mask)
        torch.testing.assert_close(found.logits[place], expected.logits[0])


def test_a_word_of_several_texts_is_embedded_once(tokens):
    model, embedded = make_model(), []
    model.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output.shape[1]))
    SharedTexts(model, model.encoder.lstm, tokens.flatten(), MASK, torch.tensor(ERASED))
    assert embedded == [len({*tokens.flatten().tolist(), ERASED})]


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, True),
        ({"encoder": CNN}, False),
        ({"encoder": Deep}, False),
        ({"cls": Doubled}, False),
        ({"has_question": True}, False),
    ],
)
def test_only_the_stock_way_to_the_states_is_shared(options, shares):
    model = make_model(**options)
    assert (shareable_lstm(model) is not None) == shares


def test_kept_tokens_move_to_the_left_and_nothing_is_one_token_behind_the_chunk():
    source, lengths = kept_places(np.array([0, 2, 1]), np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], bool), 9)
    assert source.tolist() == [[1, 2], [6, 8], [9, 0]]
    assert lengths.tolist() == [2, 2, 1]
