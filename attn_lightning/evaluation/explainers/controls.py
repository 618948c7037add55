"""Explanations that others are compared with: three that say nothing of the model's reasons, and the gold rationale."""

import zlib
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import ProgressCallback, Ragged, Subject
from attn_lightning.types import Batch

_RANDOM_STREAM = zlib.crc32(b"random")
"""Key of the draws; far from the row numbers that other explainers use as keys."""


class Rationale(Explainer):
    """The human rationale: 1 at tokens that belong to it, 0 at the others, NaN in examples that have none.

    It is no explanation of the model, but what plausibility is measured against: a goal and no control, so an
    explanation that does not reach it is not marked.
    """

    name: ClassVar[str] = "rationale"

    def unavailable(self, subject: Subject) -> str | None:
        """Data without rationales has no such explanation."""
        if len(subject.examples) and subject.examples[[0]].rationale is None:
            return "the data has no rationales"
        return None

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        assert batch.rationale is not None, "asked `unavailable` before"
        assert batch.has_rationale is not None
        return batch.rationale.float().masked_fill(~batch.has_rationale.unsqueeze(1), torch.nan)


class Random(Explainer):
    """Numbers drawn independently from the uniform distribution on [0, 1).

    They depend on the seed and on the place of the token in the split alone, not on batches.
    """

    name: ClassVar[str] = "random"
    is_control: ClassVar[bool] = True

    def explain(self, subject: Subject, advance: ProgressCallback) -> Ragged:
        """See `Explainer.explain`; one draw for the whole split."""
        lengths = subject.examples.lengths
        # All at once in the order of the split, as batches come in another order for every batch size.
        drawn = torch.rand(int(np.sum(lengths)), generator=subject.generator(_RANDOM_STREAM))
        advance(len(lengths))
        return Ragged(drawn.numpy(), lengths)


class Uniform(Explainer):
    """The same weight `1 / n` for each of the n tokens of a text."""

    name: ClassVar[str] = "uniform"
    is_control: ClassVar[bool] = True

    def explain(self, subject: Subject, advance: ProgressCallback) -> Ragged:
        """See `Explainer.explain`."""
        lengths = np.asarray(subject.examples.lengths)
        advance(len(lengths))
        return Ragged(np.repeat((1 / lengths).astype(np.float32), lengths), lengths)


class Inverted(Explainer):
    """Attention in reverse order, `max_u a_u + min_u a_u - a_t` over the real tokens of a text: in [0, 1]."""

    name: ClassVar[str] = "inverted"
    is_control: ClassVar[bool] = True

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        with inference(subject.model):
            return inverted(subject.model(batch.tokens, batch.mask).attention, batch.mask)


def inverted(attention: Tensor, mask: Tensor) -> Tensor:
    """Attention in reverse order, see `Inverted`.

    Args:
        attention: (B, T), 0 at padding.
        mask: (B, T) bool.

    Returns:
        (B, T) at least 0, 0 at padding.
    """
    # Padding has 0, which is never the largest, so that it needs no mask here as it does below.
    largest = attention.amax(1, keepdim=True)
    smallest = attention.masked_fill(~mask, torch.inf).amin(1, keepdim=True)
    return (largest - attention + smallest).masked_fill(~mask, 0.0)
