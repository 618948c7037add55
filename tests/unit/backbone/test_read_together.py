"""Two texts through one pass, with answers out of a list: everything that explains or erases is about the first one.

What a model says of two texts is computed a second time from the states of `transformers`, in plain loops.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.second_text import PairClassifier
from attn_lightning.backbone.transformer import last_layer_mean, rollout
from attn_lightning.data.batching import with_second
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.subject import Subject, no_progress
from attn_lightning.types import Batch, DataSpec
from support.tiny_bert import LAYERS, make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow

VOCABULARY = ("<pad>", "<unk>", "good", "bad", "film", "the", "was", "zebra", "yak", "moth")
UNKNOWN = 1
PAIRS = (([2, 7, 4], [6, 3]), ([5, 4, 6, 3, 8], [9]), ([7], [UNKNOWN]), ([8, 9], [2, 2, 2, 4]))
"""Words by their ids. The second text of the third pair is what is read where a side is empty."""
ALLOWED = ([True, False, True], [False, True, True], [True, True, False], [True, True, True])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("bert"))


def model(folder: Path, **options: object) -> AttentionClassifier:
    spec = DataSpec(3, len(VOCABULARY), 5, ("a", "b", "c"), vocabulary=VOCABULARY)
    spec = replace(spec, has_question=True, has_candidates=True)
    torch.manual_seed(0)
    made = AttentionClassifier(spec, partial(Pretrained, name=str(folder), **options), reading="joint")  # type: ignore[arg-type]
    with torch.no_grad():
        # So strong that every word matters.
        for part in (made.scorer, made.classifier):
            for parameter in part.parameters():
                parameter.mul_(3.0)
    return made.eval()


class Pairs:
    """A split of pairs in memory."""

    def __init__(self) -> None:
        self.lengths = np.array([len(first) for first, _ in PAIRS])
        self.second_lengths = np.array([len(second) for _, second in PAIRS])

    def __len__(self) -> int:
        return len(PAIRS)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        def padded(texts: list[list[int]]) -> Tensor:
            return nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)

        tokens = padded([PAIRS[row][0] for row in rows])
        batch = Batch(tokens, tokens > 0, torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows))
        listed = np.where(np.array([ALLOWED[row] for row in rows]), np.array([2, 3, 4]), 0)
        return with_second(batch, padded([PAIRS[row][1] for row in rows]).numpy(), listed)


def by_hand(made: AttentionClassifier, first: Sequence[int], second: Sequence[int], allowed: Sequence[bool]) -> Tensor:
    """Attention on the words of the first text, and probabilities, one after the other."""
    from transformers import AutoModel, AutoTokenizer

    encoder = made.encoder
    assert isinstance(encoder, Pretrained)
    words = [["[UNK]" if word == UNKNOWN else VOCABULARY[word] for word in text] for text in (first, second)]
    encoded = AutoTokenizer.from_pretrained(encoder.name)(
        [words[0]], [words[1]], is_split_into_words=True, return_tensors="pt"
    )
    with torch.no_grad():
        states = AutoModel.from_pretrained(encoder.name).eval()(**encoded).last_hidden_state[0]
        of_words: list[list[Tensor]] = [[], []]
        before = None
        for place, (side, word) in enumerate(zip(encoded.sequence_ids(0), encoded.word_ids(0), strict=True)):
            if side is not None and (side, word) != before:
                of_words[side].append(states[place])
            before = (side, word)
        hidden, query = torch.stack(of_words[0]), torch.stack(of_words[1]).mean(0)
        scorer, head = made.scorer, made.classifier
        assert isinstance(head, PairClassifier)
        scores = scorer.vector(torch.tanh(scorer.projection(hidden) + scorer.query(query))).squeeze(-1)
        attention = scores.softmax(0)
        logits = head.output(torch.tanh(head.context(attention @ hidden) + head.query(query)))
    weights = [math.exp(z) if yes else 0.0 for z, yes in zip(logits.tolist(), allowed, strict=True)]
    return torch.cat([attention, torch.tensor(weights) / sum(weights)])


def test_attention_is_on_the_first_text_and_answers_are_candidates(folder: Path) -> None:
    made, batch = model(folder), Pairs()[range(len(PAIRS))]
    output = made(batch.tokens, batch.mask)
    probabilities = output.logits.softmax(-1)
    for row, (first, second) in enumerate(PAIRS):
        expected = by_hand(made, first, second, ALLOWED[row])
        torch.testing.assert_close(output.attention[row, : len(first)], expected[:-3], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(probabilities[row], expected[-3:], atol=1e-5, rtol=1e-4)
        assert (probabilities[row] > 0).tolist() == ALLOWED[row]
    assert torch.all(output.attention[~batch.mask] == 0)


def test_one_word_of_the_first_text_is_erased_at_a_time_and_the_rest_stays(folder: Path) -> None:
    made, pairs = model(folder), Pairs()
    examined = Subject(made, pairs, 3, erased=UNKNOWN)  # type: ignore[arg-type]
    found = explainers()["loo"]().explain(examined, no_progress)
    for row, (first, second) in enumerate(PAIRS):
        whole = by_hand(made, first, second, ALLOWED[row])[-3:]
        assert len(found[row]) == len(first)
        for place in range(len(first)):
            left = [*first[:place], *first[place + 1 :]] or [UNKNOWN]
            without = by_hand(made, left, second, ALLOWED[row])[-3:]
            assert found[row][place] == pytest.approx(float((whole - without).abs().sum()) / 2, abs=1e-5)
    assert max(map(max, found)) > 0.01


@pytest.mark.parametrize("name", sorted(explainers().keys() - {"rationale"}))
def test_explanations_are_of_the_first_text(folder: Path, name: str) -> None:
    examined = Subject(model(folder), Pairs(), 3, erased=UNKNOWN)  # type: ignore[arg-type]
    found = explainers()[name]().explain(examined, no_progress)
    assert [len(scores) for scores in found] == [len(first) for first, _ in PAIRS]
    assert all(np.isfinite(scores).all() for scores in found)


def test_attention_inside_is_that_of_the_pass_over_both(folder: Path) -> None:
    """The encoder explained another pass before: that over the first text alone."""
    from transformers import AutoModel, AutoTokenizer

    made, batch = model(folder), Pairs()[range(len(PAIRS))]
    with torch.no_grad():
        found = made.token_attention(made.embed(batch.tokens), batch.mask)
    assert found is not None
    bert = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    for row, (first, second) in enumerate(PAIRS):
        words = [["[UNK]" if word == UNKNOWN else VOCABULARY[word] for word in text] for text in (first, second)]
        encoded = AutoTokenizer.from_pretrained(folder)(
            [words[0]], [words[1]], is_split_into_words=True, return_tensors="pt"
        )
        with torch.no_grad():
            layers = bert(**encoded, output_attentions=True).attentions
        owners = [
            None if side is None else word + side * len(first)
            for side, word in zip(encoded.sequence_ids(0), encoded.word_ids(0), strict=True)
        ]
        count = len(first) + len(second)
        expected = torch.zeros(LAYERS, count, count)
        for layer, heads in enumerate(layers):
            for query, one in enumerate(owners):
                for key, other in enumerate(owners):
                    if one is not None and other is not None:
                        expected[layer, one, other] += heads[0].mean(0)[query, key]
        expected /= expected.sum(-1, keepdim=True)
        behind = batch.mask.shape[1] - 3 - int(Pairs().second_lengths.max())
        places = [*range(len(first)), *range(behind, behind + len(second))]
        torch.testing.assert_close(found[:, row][:, places][:, :, places], expected, atol=1e-5, rtol=1e-4)
        own = torch.arange(count) < len(first)
        for summary in (last_layer_mean, rollout):
            ours, theirs = summary(found, batch.mask)[row], summary(expected[:, None], own[None])[0]
            torch.testing.assert_close(ours[: len(first)], theirs[: len(first)], atol=1e-5, rtol=1e-4)
            assert float(ours.sum()) == pytest.approx(1, abs=1e-5)


def test_frozen_states_of_both_are_computed_once_and_equal(folder: Path, tmp_path: Path) -> None:
    frozen, batch = model(folder, frozen=True), Pairs()[range(len(PAIRS))]
    expected = frozen(batch.tokens, batch.mask)
    second = ~batch.mask & (batch.tokens > 0)
    second[:, -3:] = False

    def texts() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        yield batch.tokens, batch.mask, second

    frozen.encoder.prepare(texts(), tmp_path, "texts")
    calls: list[int] = []
    frozen.encoder.model.register_forward_hook(lambda *_: calls.append(1))
    found = frozen(batch.tokens, batch.mask)
    assert calls == []
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(found.logits, expected.logits)
    turned = batch.tokens.clone()
    turned[0, 5] = 9
    assert not torch.equal(frozen(turned, batch.mask).hidden[0], expected.hidden[0]), "another question, other states"
    assert calls == [1]


def test_each_text_says_what_it_loses(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = model(folder)
    tokens = torch.cat([torch.full((1, 70), 2), torch.full((1, 40), 3), torch.tensor([[2, 3, 4]])], 1)
    mask = torch.arange(113)[None] < 70
    with caplog.at_level(logging.WARNING), torch.no_grad():
        hidden = made(tokens, mask).hidden[0]
    # 64 places, three of them special: 30 words of the second text, and 31 of the first.
    assert "64 pieces that" in caplog.text
    assert "39 words" in caplog.text
    assert "10 words" in caplog.text
    assert "second texts longer than half" in caplog.text
    assert torch.all(hidden[:31].abs().sum(-1) > 0)
    assert torch.all(hidden[31:70] == 0)
