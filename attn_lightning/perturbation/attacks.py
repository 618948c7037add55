"""Attacks at test time: noise in a ball around the attention scores or word embeddings of every example.

White-box, one adversary per example: `max_r harm(r)` over `||r||_2 <= epsilon`, r over the real tokens. The harm is the
margin against a class y, `max_{c != y} z_c - z_y` of the logits z: above 0 exactly where y is not predicted. For two
classes it rises with the cross-entropy of y, so both have the same worst case and the same direction of the gradient,
but the margin's gradient does not vanish in float32 where the model is sure. y is the prediction of the unperturbed
model or the gold label.

Attacks that look at the model (`one_step`, `pgd`) return the most harmful noise that they tried, "none" among it.
So per example `0 <= gain of one_step <= gain of pgd`, exactly, and an attacked model is never better than the clean
one by accident. `random_noise` does not look: it is what noise of that length does by itself.

A gradient of exactly 0 (a sparse normalizer that puts all weight on one token, a normalizer that selects) says nothing
of what lies further off, so that the step goes along the example's random draw there instead of staying: a model
must not pass for robust because its gradient is hidden. Where the place has no effect at all, as scores under uniform
attention, nothing is gained and the noise stays 0.

Shapes: noise has the shape of what it is added to, (B, T) for scores or (B, T, E) for embeddings, (B, T, ...) below.
Everything here runs inside `attn_lightning.backbone.importance.differentiable`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_lightning.backbone.importance import recurrent_kernels
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import NumericalError
from attn_lightning.numerics import at_least_float32, full_precision, unit_vectors
from attn_lightning.types import AttentionOutput

NUM_STEPS = 10
"""Steps of projected gradient ascent."""

STEP_SHARE = 2.5
"""Length of all steps together, in radii: enough to cross the ball from any start."""


@dataclass(frozen=True)
class Place:
    """What noise is added to, in one clean pass.

    Attributes:
        clean: the pass, without graph.
        noiseless: (B, T, ...) zeros.
        rerun: noise (B, T, ...) to the output of the perturbed model; differentiable in the noise.
    """

    clean: AttentionOutput
    noiseless: Tensor
    rerun: Callable[[Tensor], AttentionOutput]


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    Attributes:
        noise: (B, T, ...), 0 at padding, of length epsilon or less per example.
        logits: (B, C) under it.
        attention: (B, T) under it.
    """

    noise: Tensor
    logits: Tensor
    attention: Tensor


def clean_pass(model: Backbone, tokens: Tensor, mask: Tensor) -> AttentionOutput:
    """The model's output without graph, as plain tensors whatever the input is (inference tensors refuse a graph)."""
    with torch.no_grad():
        return model(tokens.clone(), mask.clone())  # type: ignore[no-any-return]


def score_place(model: Backbone, clean: AttentionOutput) -> Place:
    """The attention scores: noise goes through `attend` only, the encoder is not run again.

    Args:
        model: the backbone.
        clean: its clean pass.
    """
    hidden, scores = at_least_float32(clean.hidden), at_least_float32(clean.scores)

    def rerun(noise: Tensor) -> AttentionOutput:
        with full_precision(hidden.device.type):
            return model.attend(hidden, scores + noise, clean.mask)

    return Place(clean, torch.zeros_like(scores), rerun)


def embedding_place(model: Backbone, clean: AttentionOutput) -> Place:
    """The word embeddings: noise goes through the whole model, the encoder runs for every candidate.

    Args:
        model: the backbone.
        clean: its clean pass, with `embeddings`.
    """
    assert clean.embeddings is not None, "a clean pass has them"
    embeddings = at_least_float32(clean.embeddings)

    return Place(
        clean, torch.zeros_like(embeddings), lambda noise: from_embeddings(model, embeddings + noise, clean.mask)
    )


def from_embeddings(model: Backbone, embeddings: Tensor, mask: Tensor) -> AttentionOutput:
    """The pass from given (B, T, E) embeddings on, differentiable in them also on CUDA."""
    with recurrent_kernels(model, embeddings):
        hidden = at_least_float32(model.encode(embeddings, mask))
        with full_precision(hidden.device.type):
            return model.attend(hidden, model.score(hidden, mask), mask)


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


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """`max_{c != y} z_c - z_y`: above 0 where class y is not predicted.

    Args:
        logits: (B, C), C at least 2.
        target: (B,) int64 y.

    Returns:
        (B,).
    """
    chosen = target.unsqueeze(1)
    return logits.scatter(1, chosen, -torch.inf).amax(1) - logits.gather(1, chosen).squeeze(1)


def harm_gradient(place: Place, target: Tensor, noise: Tensor) -> tuple[Attacked, Tensor]:
    """What the model says under a noise, and `d margin / d noise` there.

    Args:
        place: what is attacked.
        target: (B,) y.
        noise: (B, T, ...).

    Returns:
        The outcome, and (B, T, ...) gradients. Harms are summed over the batch, so that a row does not depend on the
        others.

    Raises:
        NumericalError: see `margin_gradient`.
    """
    noise = noise.detach().requires_grad_()
    output = place.rerun(noise)
    return _outcome(noise.detach(), output), margin_gradient(output.logits, target, noise)


def margin_gradient(logits: Tensor, target: Tensor, at: Tensor) -> Tensor:
    """`d margin / d at` per example, 0 where the logits do not depend on it.

    Args:
        logits: (B, C) with a graph to `at`, if they depend on it.
        target: (B,) y.
        at: (B, ...).

    Raises:
        NumericalError: a gradient is NaN or infinite: an attack that cannot see would pass for a robust model.
    """
    harm, found = margin(logits, target).sum(), None
    if harm.requires_grad:
        (found,) = torch.autograd.grad(harm, at, allow_unused=True)
    if found is None:
        return torch.zeros_like(at)
    if not found.sum().isfinite():
        raise NumericalError(
            "Expected finite gradients of the margin for an attack, but got NaN or infinity; check the weights of the "
            "model and the derivative of its normalizer."
        )
    return found


def random_noise(place: Place, epsilon: float, draws: Tensor) -> Attacked:
    """`r = epsilon d / ||d||`: noise of the length that an adversary has, in a random direction.

    Args:
        place: what is attacked.
        epsilon: length of r.
        draws: (B, T, ...) `d ~ N(0, I)`; values at padding are ignored.
    """
    return _run(place, epsilon * _direction(place, draws))


def one_step(place: Place, target: Tensor, epsilon: float, draws: Tensor, gradient: Tensor | None = None) -> Attacked:
    """`r = epsilon g / ||g||`, the first-order worst case, or `r = 0` where that does not raise the margin.

    Args:
        place: what is attacked.
        target: (B,) y.
        epsilon: radius.
        draws: (B, T, ...) `d ~ N(0, I)`, followed where g is exactly 0.
        gradient: (B, T, ...) g at `r = 0` if it is known, as it serves every epsilon.

    Source: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, with the L2 norm as in Miyato et al. 2017.
    Cost: one pass through the place, and its gradient if it is not given.
    """
    gradient = harm_gradient(place, target, place.noiseless)[1] if gradient is None else gradient
    step = _run(place, epsilon * _ascent(place, gradient, draws))
    return _more_harmful(target, _outcome(place.noiseless, place.clean), step)


def pgd(
    place: Place,
    target: Tensor,
    epsilon: float,
    draws: Tensor,
    *,
    num_steps: int = NUM_STEPS,
    random_start: bool = False,
    gradient: Tensor | None = None,
    weaker: Attacked | None = None,
) -> Attacked:
    """Projected gradient ascent `r <- P(r + 2.5 epsilon / K g / ||g||)`, P the projection onto the ball.

    The most harmful of all iterates, of the point that `one_step` finds and of no noise is returned.

    Args:
        place: what is attacked.
        target: (B,) y.
        epsilon: radius.
        draws: (B, T, ...) `d ~ N(0, I)`, followed where g is exactly 0, and the random start.
        num_steps: K.
        random_start: start from `epsilon d / ||d||` instead of from 0; that point is then a candidate too.
        gradient: (B, T, ...) g at `r = 0` if it is known.
        weaker: what `one_step` found for the same arguments, if it is known.

    Source: Madry et al. 2018, https://arxiv.org/abs/1706.06083.
    Cost: K passes through the place and their gradients, beside what `one_step` costs if it is not given.
    """
    if gradient is None:
        gradient = harm_gradient(place, target, place.noiseless)[1]
    best = one_step(place, target, epsilon, draws, gradient) if weaker is None else weaker
    noise = place.noiseless
    if random_start:
        noise = epsilon * _direction(place, draws)
        reached, gradient = harm_gradient(place, target, noise)
        best = _more_harmful(target, best, reached)
    length = STEP_SHARE * epsilon / num_steps
    for step in range(num_steps):
        noise = _project(noise.add(_ascent(place, gradient, draws), alpha=length), epsilon)
        if step < num_steps - 1:
            reached, gradient = harm_gradient(place, target, noise)
        else:
            reached = _run(place, noise)
        best = _more_harmful(target, best, reached)
    return best


def _run(place: Place, noise: Tensor) -> Attacked:
    with torch.no_grad():
        return _outcome(noise, place.rerun(noise))


def _outcome(noise: Tensor, output: AttentionOutput) -> Attacked:
    return Attacked(noise, output.logits.detach(), output.attention.detach())


def _more_harmful(target: Tensor, first: Attacked, second: Attacked) -> Attacked:
    """Per example the outcome with the larger margin; the first of equals."""
    better = margin(second.logits, target) > margin(first.logits, target)
    return Attacked(
        torch.where(_like(better, second.noise), second.noise, first.noise),
        torch.where(_like(better, second.logits), second.logits, first.logits),
        torch.where(_like(better, second.attention), second.attention, first.attention),
    )


def _like(per_example: Tensor, values: Tensor) -> Tensor:
    """(B,) as (B, 1, ...), so that it goes with (B, ...)."""
    return per_example.reshape(-1, *(1,) * (values.dim() - 1))


def _direction(place: Place, vectors: Tensor) -> Tensor:
    """(B, T, ...) of length 1 per example over real tokens, 0 at padding; a row of zeros stays zero."""
    mask = place.clean.mask
    return unit_vectors(torch.where(mask.reshape(mask.shape + (1,) * (vectors.dim() - 2)), vectors, 0.0))


def _ascent(place: Place, gradient: Tensor, draws: Tensor) -> Tensor:
    """(B, T, ...) directions of the gradient, those of the draws in rows where it is exactly 0."""
    uphill = _direction(place, gradient)
    blind = torch.linalg.vector_norm(uphill, dim=tuple(range(1, uphill.dim()))) == 0
    if not blind.any():
        return uphill
    return torch.where(_like(blind, uphill), _direction(place, draws), uphill)


def _project(noise: Tensor, epsilon: float) -> Tensor:
    """The nearest noise within the ball, per example."""
    norm: Tensor = torch.linalg.vector_norm(noise, dim=tuple(range(1, noise.dim())), keepdim=True)
    inside: Tensor = noise * (epsilon / norm.clamp_min(epsilon))
    return inside
