"""Texts that stand several times in a batch are encoded once, and nobody can tell."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, BiLSTM, Encoder
from attn_lightning.backbone.equal_texts import equal_rows, equal_texts_once
from attn_lightning.backbone.orthogonal import OrthogonalLSTM
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.transformer import Transformer
from attn_lightning.types import DataSpec
from support.tiny_bert import make_tiny_bert

TEXTS = ((2, 3, 4), (7, 8), (2, 3, 4), (2, 3), (7, 8), (2, 3, 4), (4, 3, 2))
DIFFERENT = 4
QUESTIONS = ((5, 6), (9,), (9, 10), (5, 6), (9,), (11,), (5, 6))
ENCODERS = (
    partial(BiLSTM, hidden_size=4),
    CNN,
    partial(OrthogonalLSTM, hidden_size=4),
    partial(Transformer, hidden_size=8),
)


def pairs() -> tuple[Tensor, Tensor]:
    """(B, T) ids of texts with their questions behind, and the mask of the texts."""
    tokens, mask = torch.zeros(len(TEXTS), 6, dtype=torch.int64), torch.zeros(len(TEXTS), 6, dtype=torch.bool)
    for row, (text, question) in enumerate(zip(TEXTS, QUESTIONS, strict=True)):
        tokens[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
        tokens[row, len(text) : len(text) + len(question)] = torch.tensor(question)
    return tokens, mask


def model(encoder: Callable[[int], Encoder], **options: object) -> AttentionClassifier:
    torch.manual_seed(0)
    spec = DataSpec(3, 12, 5, ("a", "b", "c"), has_question=True, **options)  # type: ignore[arg-type]
    return AttentionClassifier(spec, encoder=encoder).double()


class Reads:
    """How many rows an encoder was given for the first text."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> None:
        self.rows: list[int] = []
        forward = encoder.forward

        def counted(embeddings: Tensor, mask: Tensor) -> Tensor:
            self.rows.append(len(mask))
            return forward(embeddings, mask)

        monkeypatch.setattr(encoder, "forward", counted)


def test_rows_equal_a_loop_over_pairs() -> None:
    tokens, mask = pairs()
    embeddings = torch.randn(12, 5)[tokens]
    found = equal_rows(embeddings, mask)
    assert found is not None
    rows, places = found
    first = [next(k for k, other in enumerate(TEXTS) if other == text) for text in TEXTS]
    assert rows[places].tolist() == first
    assert len(rows) == DIFFERENT


def test_no_two_equal_texts() -> None:
    tokens, mask = pairs()
    embeddings = torch.randn(12, 5)[tokens]
    assert equal_rows(embeddings[[0, 1, 3, 6]], mask[[0, 1, 3, 6]]) is None


def test_different_words_of_equal_sums_are_told_apart() -> None:
    embeddings = torch.tensor([[[1.0, 2.0]], [[2.0, 1.0]], [[1.0, 2.0]]])
    assert equal_rows(embeddings, torch.ones(3, 1, dtype=torch.bool)) is None


def test_a_text_is_not_the_beginning_of_a_longer_one() -> None:
    embeddings = torch.tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    assert equal_rows(embeddings, torch.tensor([[True, True], [True, False]])) is None


def test_what_is_no_number_equals_nothing() -> None:
    embeddings = torch.full((2, 1, 2), float("nan"))
    assert equal_rows(embeddings, torch.ones(2, 1, dtype=torch.bool)) is None


def check_states(monkeypatch: pytest.MonkeyPatch, pair: AttentionClassifier) -> None:
    tokens, mask = pairs()
    with torch.enable_grad():
        expected = pair(tokens, mask)
    reads = Reads(monkeypatch, pair.encoder)
    with torch.no_grad():
        found = pair(tokens, mask)
    assert reads.rows[0] == DIFFERENT
    torch.testing.assert_close(found.hidden, expected.hidden)
    torch.testing.assert_close(found.logits, expected.logits)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_states_are_those_of_every_row_by_itself(monkeypatch: pytest.MonkeyPatch, encoder: partial[Encoder]) -> None:
    check_states(monkeypatch, model(encoder).eval())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradients_of_parameters_are_those_of_all_rows(
    monkeypatch: pytest.MonkeyPatch, encoder: partial[Encoder]
) -> None:
    tokens, mask = pairs()
    weights = torch.arange(len(TEXTS) * 3, dtype=torch.float64).view(-1, 3).sin()
    gradients = []
    for allowed in (False, True):
        pair = model(encoder).train()
        reads = Reads(monkeypatch, pair.encoder)
        with equal_texts_once(pair, allowed):
            output = pair(tokens, mask)
        assert reads.rows[0] == (DIFFERENT if allowed else len(TEXTS))
        (output.logits * weights).sum().backward()
        gradients.append({name: value.grad for name, value in pair.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_gradients_at_embeddings_stay_those_of_each_row() -> None:
    tokens, mask = pairs()
    pair = model(ENCODERS[0]).train()
    with equal_texts_once(pair, allowed=True):
        pass  # what it allowed ends with it
    output = pair(tokens, mask)
    (gradient,) = torch.autograd.grad(output.logits[2].sum(), output.embeddings)
    assert gradient[2].any()
    assert not gradient[[0, 1, 3, 4, 5, 6]].any()


def test_each_copy_has_its_own_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, mask = pairs()
    pair = model(partial(Transformer, hidden_size=8, dropout=0.5))
    reads = Reads(monkeypatch, pair.encoder)
    for mode, expected in ((True, len(TEXTS)), (False, DIFFERENT)):
        reads.rows.clear()
        with torch.no_grad():
            pair.train(mode)(tokens, mask)
        assert reads.rows[0] == expected


def test_dropped_word_vectors_make_texts_different(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, mask = pairs()
    torch.manual_seed(0)
    spec = DataSpec(3, 12, 5, ("a", "b", "c"), has_question=True)
    pair = AttentionClassifier(spec, encoder=ENCODERS[0], embedding_dropout=0.5).train()
    reads = Reads(monkeypatch, pair.encoder)
    with torch.no_grad():
        pair(tokens, mask)
    assert reads.rows[0] == len(TEXTS)


@pytest.mark.slow
def test_a_pretrained_encoder_does_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ("<pad>", "<unk>", "good", "bad", "film", "the", "was", "zebra", "yak", "moth", "a", "b")
    check_states(monkeypatch, model(partial(Pretrained, name=str(make_tiny_bert(tmp_path))), vocabulary=words).eval())
