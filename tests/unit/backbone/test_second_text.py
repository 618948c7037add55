"""A second text conditions scorer and classifier, and is padding for everything else."""

from functools import partial

import pytest
import torch

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average
from attn_lightning.backbone.joint import joint_passes
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.scorers import ScaledDotScorer, Scorer
from attn_lightning.backbone.second_text import PairClassifier, moved_left, second_text
from attn_lightning.errors import ConfigurationError
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


def test_what_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="texts alone"):
        model()(TOKENS[:, :2], torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ConfigurationError, match="joint"):
        model(reading="joint")
    with pytest.raises(ConfigurationError, match="BottleneckClassifier"):
        BottleneckClassifier(SPEC)
    with pytest.raises(ConfigurationError, match="takes a second text"):
        model(scorer=partial(Scorer), normalizer=Uniform)
