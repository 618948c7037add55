"""The attention inside a transformer encoder as an explanation, beside the attention of the head above it."""

from typing import ClassVar

from torch import Tensor

from attn_lightning.backbone.transformer import last_layer_mean, rollout
from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import Subject, on_device
from attn_lightning.types import Batch


class _InsideEncoder(Explainer):
    """A summary of `Backbone.token_attention`. It explains the encoder alone: what the head does with it is not in it.

    Cost: one pass of the encoder that keeps the attention of all layers, so memory grows with the square of the length.
    """

    def unavailable(self, subject: Subject) -> str | None:
        """Only a transformer has attention inside."""
        if len(subject.examples) == 0:
            return None
        # One text has to be read to know: an encoder of someone else's tells by what it returns.
        with inference(subject.model):
            found = _inside(subject, on_device(subject.examples[[0]], subject.device))
        return "the encoder has no attention of its own" if found is None else None

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        with inference(subject.model):
            attention = _inside(subject, batch)
            assert attention is not None, "asked `unavailable` before"
            return self.summary(attention, batch.mask)

    def summary(self, attention: Tensor, mask: Tensor) -> Tensor:
        """(L, B, T, T) attention inside to (B, T) scores."""
        raise NotImplementedError


class TransformerAttention(_InsideEncoder):
    """How much attention a word gets in the last layer of the encoder, mean over heads and over the words that look."""

    name: ClassVar[str] = "transformer"

    def summary(self, attention: Tensor, mask: Tensor) -> Tensor:
        """See `last_layer_mean`."""
        return last_layer_mean(attention, mask)


class Rollout(_InsideEncoder):
    """Attention followed through all layers of the encoder down to the words (Abnar and Zuidema 2020)."""

    name: ClassVar[str] = "rollout"

    def summary(self, attention: Tensor, mask: Tensor) -> Tensor:
        """See `rollout`."""
        return rollout(attention, mask)


def _inside(subject: Subject, batch: Batch) -> Tensor | None:
    model = subject.model
    return model.token_attention(model.embed(batch.tokens), batch.mask)
