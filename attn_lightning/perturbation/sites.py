"""Places of a clean pass where noise can be added: shared by training and by attacks at test time.

Noise has the shape of what it is added to, (B, T) for scores or (B, T, E) for embeddings, written (B, T, ...).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attn_lightning.backbone.freezing import constant
from attn_lightning.backbone.kernels import recurrent_kernels
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput


@dataclass(frozen=True)
class Site:
    """A place of one clean pass where noise can be added.

    Attributes:
        output: the clean pass.
        noiseless: `r = 0`, zeros of the shape (B, T, ...) of what is perturbed.
        room: where noise may be: (B, T) bool for whole tokens, or (B, T, ...) for parts of them.
        rerun: `r` to the output under it, with the graph of the model, for the loss.
        probe: the same numbers with a graph to `r` only, for directions; never reaches below the place.
        place: what the noise is added to, as it stands in the graph of the clean pass, if the gradient at `r = 0` is to
            be taken from that graph; None leaves it to a probe.
    """

    output: AttentionOutput
    noiseless: Tensor
    room: Tensor
    rerun: Callable[[Tensor], AttentionOutput]
    probe: Callable[[Tensor], AttentionOutput]
    place: Tensor | None = None


Where = Callable[[Backbone, AttentionOutput], Site]


def score_site(model: Backbone, output: AttentionOutput) -> Site:
    """The attention scores: `s + r` goes through `attend` only, the encoder is not run again.

    Args:
        model: the backbone.
        output: its clean pass; half-precision scores and states become float32.

    Returns:
        A site whose noise has shape (B, T).
    """
    hidden, scores, mask = at_least_float32(output.hidden), at_least_float32(output.scores), output.mask
    fixed_hidden, fixed_scores = hidden.detach(), scores.detach()

    def attend(states: Tensor, perturbed: Tensor) -> AttentionOutput:
        with full_precision(states.device.type):
            return model.attend(states, perturbed, mask)

    return Site(
        output=output,
        noiseless=torch.zeros_like(fixed_scores),
        room=mask,
        rerun=lambda noise: attend(hidden, scores + noise),
        probe=lambda noise: attend(fixed_hidden, fixed_scores + noise),
    )


def embedding_site(model: Backbone, output: AttentionOutput) -> Site:
    """The word vectors: `e + r` goes through the whole model, so each call runs the encoder again.

    Args:
        model: the backbone.
        output: its clean pass, with `embeddings`; half-precision ones become float32.

    Returns:
        A site whose noise has shape (B, T, E). Gradients at `r = 0` come from the clean pass, unless the word vectors
        are frozen: then it has none to give.
    """
    assert output.embeddings is not None, "a clean pass has them"
    place, mask = output.embeddings, output.mask
    # The encoder runs in float32 under noise: a finite difference of 0.1 in bfloat16 is mostly rounding.
    embeddings = at_least_float32(place)
    # The search for the noise must not reach the table of word vectors: it is a constant of the loss.
    fixed = embeddings.detach()

    def probe(noise: Tensor) -> AttentionOutput:
        with constant(model.parameters()):
            return from_embeddings(model, fixed + noise, mask)

    return Site(
        output=output,
        noiseless=torch.zeros_like(fixed),
        room=model.perturbable(fixed, mask),
        rerun=lambda noise: from_embeddings(model, embeddings + noise, mask),
        probe=probe,
        place=place if place.requires_grad else None,
    )


class Place(NamedTuple):
    """A kind of sites, by name."""

    name: str
    site: Where


SCORES = Place("scores", score_site)
EMBEDDINGS = Place("embeddings", embedding_site)


def from_embeddings(model: Backbone, embeddings: Tensor, mask: Tensor) -> AttentionOutput:
    """The pass from given (B, T, E) embeddings on, differentiable in them also on CUDA."""
    # cuDNN's LSTM has no backward in eval mode, and no second derivative at all.
    with recurrent_kernels(model, embeddings):
        hidden = at_least_float32(model.encode(embeddings, mask))
        with full_precision(hidden.device.type):
            return model.attend(hidden, model.score(hidden, mask), mask)


def clean_pass(model: Backbone, tokens: Tensor, mask: Tensor) -> AttentionOutput:
    """The model's output without graph, as plain tensors whatever the input is (inference tensors refuse a graph)."""
    with torch.no_grad():
        return model(tokens.clone(), mask.clone())  # type: ignore[no-any-return]


def select_rows(output: AttentionOutput, rows: Tensor) -> AttentionOutput:
    """(b,) examples of a pass, each as often as it is named, without `aux`."""
    return AttentionOutput(
        logits=output.logits[rows],
        attention=output.attention[rows],
        scores=output.scores[rows],
        hidden=output.hidden[rows],
        context=output.context[rows],
        mask=output.mask[rows],
        embeddings=None if output.embeddings is None else output.embeddings[rows],
    )
