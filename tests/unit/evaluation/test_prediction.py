"""A model with its own tokenizer: any text, in any order, in batches of bounded size."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.backbone.encoders import Average
from attn_lightning.data.text import TextOptions, TextTokenizer
from attn_lightning.evaluation.prediction import Predictor, prediction_table
from support.checkpoints import check, save

TEXTS = ["null", "[a, b]", "-5", "", "true", "  ", "\x1b[31mred", "good 😀 film", 'a,b\n"c"', "{x: 1}"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(TextTokenizer.train(["good film", "bad film", "dull long film"]), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint)


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_any_text(predictor, text):
    (answer,) = predictor.predict([text])
    assert answer.text == text
    check(answer)


def test_known_and_unknown_words(predictor):
    (answer,) = predictor.predict(["Good unheard film"])
    assert answer.words == ["Good", "unheard", "film"]
    assert answer.unknown == [False, True, False]
    assert not answer.truncated


def test_a_model_that_reads_letters_reads_new_words_by_them(tmp_path):
    options = TextOptions(unknown="keep")
    predictor = Predictor(save(TextTokenizer.train(["good film", "bad film"], options=options), tmp_path))
    model = predictor.module.backbone

    def know(vocabulary):
        # As an encoder would make a vector of letters: another one for every word.
        known, new = model.embedding.weight.data, vocabulary[len(model.embedding.weight) :]
        vectors = [torch.full_like(known[:1], float(sum(map(ord, word)) % 7)) for word in new]
        model.embedding = nn.Embedding.from_pretrained(torch.cat([known, *vectors]), padding_idx=0)

    model.know = know
    first, second, again = predictor.predict(["good zebra", "good yak", "good zebra"])
    assert first.unknown == second.unknown == [False, False]
    assert first.probability == pytest.approx(again.probability, abs=1e-6)
    assert abs(first.probability - second.probability) > 1e-4
    assert predictor.predict(["good yak"])[0].probability == pytest.approx(second.probability, abs=1e-6)


def test_order_is_kept_and_batches_change_nothing(predictor):
    texts = [" ".join(["film"] * length) for length in (5, 1, 9, 3, 7, 2)]
    whole, single = predictor.predict(texts), predictor.predict(texts, batch_size=1)
    assert [answer.text for answer in whole] == texts
    for ours, alone in zip(whole, single, strict=True):
        np.testing.assert_allclose(ours.attention, alone.attention, atol=1e-6)
        assert ours.probability == pytest.approx(alone.probability, abs=1e-6)


def test_batches_are_bounded_in_tokens(predictor, monkeypatch):
    shapes = []
    monkeypatch.setattr("attn_lightning.evaluation.prediction.TOKEN_BUDGET", 10)
    monkeypatch.setattr(predictor.module.backbone, "embed", watched(predictor.module.backbone.embed, shapes))
    predictor.predict([" ".join(["film"] * length) for length in (4, 30, 2, 3, 5, 2)], batch_size=3)
    assert shapes == [(1, 30), (2, 5), (3, 3)]


def watched(function, shapes):
    def called(tokens):
        shapes.append(tuple(tokens.shape))
        return function(tokens)

    return called


def test_a_text_of_100000_words(predictor, monkeypatch):
    # Without the recurrence, which takes its time.
    monkeypatch.setattr(predictor.module.backbone, "encoder", Average(8))
    (answer,) = predictor.predict(["film " * 100_000])
    assert len(answer.words) == 100_000
    assert sum(answer.attention) == pytest.approx(1, abs=1e-3)
    table = prediction_table(answer)
    assert table.row_count == 200
    assert "100,000" in str(table.title)


@pytest.fixture(scope="module")
def of_words(tmp_path_factory):
    """A model whose training texts were lists of words."""
    return save(TextTokenizer.train([["<good>", "film"], ["<bad>", "New York"]]), tmp_path_factory.mktemp("words"))


def test_raw_text_is_cut_as_the_words_were(of_words):
    predictor = Predictor(of_words)
    for text, words in zip(
        predictor.predict(["<good> film", "a <bad>"]), [["<good>", "film"], ["a", "<bad>"]], strict=True
    ):
        assert text.words == words
        assert text.probability == pytest.approx(predictor.predict([words])[0].probability, abs=1e-6)
