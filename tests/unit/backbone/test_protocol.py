"""What every model gets for its four functions: checked scores, float32 after the encoder, attention from outside."""

import pytest
import torch

from attn_lightning.errors import ConfigurationError
from attn_lightning.testing import SmallModel
from attn_lightning.testing.small import SPEC, small_batch


class OneColumn(SmallModel):
    """Forgets to take the last axis away."""

    def score(self, hidden, mask):
        return (hidden @ self.query).unsqueeze(-1)


class HalfScores(SmallModel):
    """Keeps the type in which its scores come."""

    def attend(self, hidden, scores, mask, attention=None):
        self.seen = hidden.dtype, (hidden @ self.query).dtype
        return super().attend(hidden, scores, mask, attention)


def test_scores_of_another_shape_are_refused_with_the_shape_and_the_way_out():
    """(B, T, 1) would be broadcast against the mask to (B, B, T) without a word."""
    batch = small_batch()
    with pytest.raises(ConfigurationError, match=r"OneColumn.*\(4, 6\), but got \(4, 6, 1\).*squeeze\(-1\)"):
        OneColumn(SPEC)(batch.tokens, batch.mask)


def test_after_the_encoder_all_is_float32_under_autocast():
    batch, model = small_batch(), HalfScores(SPEC)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.tokens, batch.mask)
    assert model.seen == (torch.float32, torch.float32)
    assert {output.logits.dtype, output.attention.dtype, output.scores.dtype} == {torch.float32}


def test_attention_from_outside_replaces_the_own_one_and_the_embeddings_are_kept():
    batch, model = small_batch(), SmallModel(SPEC)
    attention = batch.mask / batch.mask.sum(1, keepdim=True)
    output = model(batch.tokens, batch.mask, attention)
    torch.testing.assert_close(output.attention, attention)
    torch.testing.assert_close(output.context, (attention[..., None] * output.hidden).sum(1))
    torch.testing.assert_close(output.embeddings, model.embed(batch.tokens))
