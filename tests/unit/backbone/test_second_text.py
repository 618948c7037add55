"""A second text conditions scorer and classifier, and is padding for everything else."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average
from attn_lightning.backbone.joint import joint_passes
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.scorers import ScaledDotScorer, Scorer
from attn_lightning.backbone.second_text import PairClassifier, moved_left, second_text
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.selective import segment_logits
from attn_lightning.numerics import kl_divergence
from attn_lightning.types import Batch, DataSpec

SPEC = DataSpec(3, 30, 5, ("a", "b", "c"), has_question=True)
TOKENS = torch.tensor([[2, 3, 4, 5, 6, 0], [7, 8, 0, 9, 10, 11]])
MASK = torch.tensor([[True, True, True, False, False, False], [True, True, False, False, False, False]])


def model(**options: object) -> AttentionClassifier:
    torch.manual_seed(0)
    return AttentionClassifier(SPEC, encoder=Average, **options).eval()  # type: ignore[arg-type]


def test_scores_and_logits_in_plain_loops() -> None:
    pair = model()
    output = pair(TOKENS, MASK)
    embed = lambda ids: torch.tanh(pair.encoder.projection(pair.embedding(torch.tensor(ids))))  # noqa: E731
    for row, (first, second) in enumerate([([2, 3, 4], [5, 6]), ([7, 8], [9, 10, 11])]):
        hidden, query = embed(first), embed(second).mean(0)
        scorer = pair.scorer
        scores = scorer.vector(torch.tanh(scorer.projection(hidden) + scorer.query(query))).squeeze(-1)
        attention = scores.softmax(0)
        head = pair.classifier
        assert isinstance(head, PairClassifier)
        logits = head.output(torch.tanh(head.context(attention @ hidden) + head.query(query)))
        torch.testing.assert_close(output.scores[row, : len(first)], scores)
        torch.testing.assert_close(output.attention[row, : len(first)], attention)
        torch.testing.assert_close(output.logits[row], logits)
    assert torch.all(output.attention[~MASK] == 0)


def test_dot_product_with_the_second_text() -> None:
    pair = model(scorer=ScaledDotScorer)
    output = pair(TOKENS, MASK)
    query = output.hidden[0, -1]
    torch.testing.assert_close(output.scores[0, :3], output.hidden[0, :3] @ query / 256**0.5)
    assert pair.attention_parameters() == []


@pytest.mark.parametrize("encoder", [CNN, Average])
def test_padding_between_the_texts_changes_nothing(encoder: type) -> None:
    torch.manual_seed(0)
    pair = AttentionClassifier(SPEC, encoder=encoder, reading="own").eval()
    longer = torch.cat(
        [TOKENS[:, :3], torch.zeros(2, 4, dtype=torch.int64), TOKENS[:, 3:], torch.zeros(2, 2, dtype=torch.int64)], 1
    )
    mask = torch.nn.functional.pad(MASK, (0, 6))
    torch.testing.assert_close(pair(longer, mask).logits, pair(TOKENS, MASK).logits, atol=1e-6, rtol=1e-5)
    other = TOKENS.clone()
    other[:, 3] = 20
    assert not torch.allclose(pair(other, MASK).attention, pair(TOKENS, MASK).attention, atol=1e-6)


def test_two_batches_of_other_lengths_are_read_apart() -> None:
    pair = model()
    batches = [
        Batch(tokens, mask, torch.zeros(2), torch.arange(2))
        for tokens, mask in ((TOKENS, MASK), (TOKENS[:, 1:], MASK[:, 1:]))
    ]
    for output, batch in zip(joint_passes(pair, *batches), batches, strict=True):
        torch.testing.assert_close(output.logits, pair(batch.tokens, batch.mask).logits)


def test_a_row_of_padding_has_a_text_of_one_place() -> None:
    embeddings = torch.randn(2, 3, 4) * torch.tensor([[[1.0], [0.0], [1.0]], [[1.0], [0.0], [0.0]]])
    second = second_text(embeddings, torch.tensor([[True, False, False], [True, False, False]]))
    assert second.tolist() == [[False, False, True], [False, False, False]]
    moved, real = moved_left(embeddings, second)
    torch.testing.assert_close(moved[0, 0], embeddings[0, 2])
    assert real.tolist() == [[True], [True]]


# --- answers out of a list ----------------------------------------------------------------------------------------

LISTED = torch.cat([TOKENS, torch.tensor([[12, 0, 14], [0, 13, 14]])], 1)
LISTED_MASK = F.pad(MASK, (0, 3))
ALLOWED = [[True, False, True], [False, True, True]]


def listed(**options: object) -> AttentionClassifier:
    torch.manual_seed(0)
    spec = replace(SPEC, has_candidates=True)
    return AttentionClassifier(spec, **{"encoder": Average, **options}).eval()  # type: ignore[arg-type]


def test_a_class_that_is_no_candidate_has_no_probability_and_the_others_share_it_in_a_plain_loop() -> None:
    output, free = listed()(LISTED, LISTED_MASK), model()(TOKENS, MASK)
    for row, allowed in enumerate(ALLOWED):
        weights = [math.exp(z) if yes else 0.0 for z, yes in zip(free.logits[row].tolist(), allowed, strict=True)]
        expected = torch.tensor([weight / sum(weights) for weight in weights])
        torch.testing.assert_close(output.logits[row].softmax(-1), expected)
        assert (output.logits[row].softmax(-1) > 0).tolist() == allowed
    # The text, the question and where the model looks know nothing of the list.
    torch.testing.assert_close(output.attention[:, :6], free.attention)
    torch.testing.assert_close(output.hidden[:, -1], free.hidden[:, -1])
    divergence = kl_divergence(log_p=output.logits.log_softmax(-1), log_q=output.logits.flip(0).log_softmax(-1))
    assert torch.isfinite(divergence).all(), "0 times minus infinity would be NaN"


@pytest.mark.parametrize("rule", ["averaged_input", "argmax_segment", "averaged_output"])
def test_every_rule_of_prediction_keeps_to_the_list(rule: str) -> None:
    probabilities = listed(prediction=rule)(LISTED, LISTED_MASK).logits.softmax(-1)
    assert (probabilities > 0).tolist() == ALLOWED


def test_dropout_takes_no_answer_away() -> None:
    pair = listed(embedding_dropout=0.9, encoder_dropout=0.9).train()
    for seed in range(30):
        torch.manual_seed(seed)
        assert (pair(LISTED, LISTED_MASK).logits.softmax(-1) > 0).tolist() == ALLOWED


def test_the_head_on_a_single_token_reads_question_and_list() -> None:
    pair = listed()
    output = pair(LISTED, LISTED_MASK)
    found = segment_logits(pair, output)
    assert isinstance(pair.classifier, PairClassifier)
    for row in range(2):
        for place in range(3):
            one = pair.classifier(output.hidden[row, place], output.hidden[row, -1], torch.tensor(ALLOWED[row]))
            torch.testing.assert_close(found[row, place], one)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="texts alone"):
        model()(TOKENS[:, :2], torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match="joint"):
        model(reading="joint")
    with pytest.raises(ConfigurationError, match="BottleneckClassifier"):
        BottleneckClassifier(SPEC)
    with pytest.raises(ConfigurationError, match="takes a second text"):
        model(scorer=partial(Scorer), normalizer=Uniform)
