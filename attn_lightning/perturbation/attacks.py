"""Attacks at test time: noise in a ball around the attention scores or word embeddings of every example.

White-box, one adversary per example: `max_r m(r)` over `||r||_2 <= epsilon`, r over the real tokens. m is the margin
against a class y, `max_{c != y} z_c - z_y` of the logits z: above 0 exactly where y is not predicted. For two classes
it rises with the cross-entropy of y, so both have the same worst case and the same direction of the gradient, but the
margin's gradient does not vanish in float32 where the model is sure. y is the prediction of the unperturbed model or
the gold label.

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

from dataclasses import dataclass

import torch
from torch import Tensor

from attn_lightning.errors import NumericalError
from attn_lightning.perturbation.directions import gradient_at, unit_noise
from attn_lightning.perturbation.sites import Site
from attn_lightning.types import AttentionOutput

NUM_STEPS = 10
"""Steps of projected gradient ascent."""

STEP_SHARE = 2.5
"""Length of all steps together, in radii: enough to cross the ball from any start."""


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


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """`max_{c != y} z_c - z_y`: above 0 where class y is not predicted.

    Args:
        logits: (B, C), C at least 2.
        target: (B,) int64 y.

    Returns:
        (B,).
    """
    chosen = target.unsqueeze(1)
    # The class itself is out of the maximum by -inf, so the best other one is found without sorting.
    return logits.scatter(1, chosen, -torch.inf).amax(1) - logits.gather(1, chosen).squeeze(1)


def attack_gradient(site: Site, target: Tensor, noise: Tensor) -> tuple[Attacked, Tensor]:
    """What the model says under a noise, and `d margin / d noise` there.

    Args:
        site: what is attacked.
        target: (B,) y.
        noise: (B, T, ...).

    Returns:
        The outcome, and (B, T, ...) gradients, 0 where the place has no effect.

    Raises:
        NumericalError: see `finite_gradient`.
    """
    reached, gradient = _climbed(site, target, noise)
    return reached, finite_gradient(gradient, noise)


def _climbed(site: Site, target: Tensor, noise: Tensor) -> tuple[Attacked, Tensor]:
    """As `attack_gradient`, without a look at the numbers, which would wait for the device."""
    output, gradient = gradient_at(site, lambda logits: margin(logits, target), noise)
    return _outcome(noise, output), torch.zeros_like(noise) if gradient is None else gradient


def finite_gradient(gradient: Tensor | None, like: Tensor) -> Tensor:
    """A gradient of the margin, zeros for None.

    Args:
        gradient: what `slope` gives.
        like: of its shape.

    Raises:
        NumericalError: it is NaN or infinite: an attack that cannot see would pass for a robust model.
    """
    if gradient is None:
        return torch.zeros_like(like)
    # The sum is NaN or infinite if any entry is: one number to wait for instead of a tensor of flags.
    _check_finite(gradient.sum())
    return gradient


def _check_finite(total: Tensor) -> None:
    if not total.isfinite():
        raise NumericalError(
            "Expected finite gradients of the margin for an attack, but got NaN or infinity; check the weights of the "
            "model and the derivative of its normalizer."
        )


def random_noise(site: Site, epsilon: float, draws: Tensor) -> Attacked:
    """`r = epsilon d / ||d||`: noise of the length that an adversary has, in a random direction.

    Args:
        site: what is attacked.
        epsilon: length of r.
        draws: (B, T, ...) `d ~ N(0, I)`; values at padding are ignored.
    """
    return _run(site, epsilon * unit_noise(draws, site.room))


def one_step(site: Site, target: Tensor, epsilon: float, draws: Tensor, gradient: Tensor | None = None) -> Attacked:
    """`r = epsilon g / ||g||`, the first-order worst case, or `r = 0` where that does not raise the margin.

    Args:
        site: what is attacked.
        target: (B,) y.
        epsilon: radius.
        draws: (B, T, ...) `d ~ N(0, I)`, followed where g is exactly 0.
        gradient: (B, T, ...) g at `r = 0` if it is known, as it serves every epsilon.

    Source: Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, with the L2 norm as in Miyato et al. 2017.
    Cost: one pass through the place, and its gradient if it is not given.
    """
    gradient = attack_gradient(site, target, site.noiseless)[1] if gradient is None else gradient
    # The full radius at once: the margin is taken as linear within the ball.
    step = _run(site, epsilon * ascent(site, gradient, draws))
    return _more_harmful(target, _outcome(site.noiseless, site.output), step)


def pgd(
    site: Site,
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
        site: what is attacked.
        target: (B,) y.
        epsilon: radius.
        draws: (B, T, ...) `d ~ N(0, I)`, followed where g is exactly 0, and the random start.
        num_steps: K.
        random_start: start from `epsilon d / ||d||` instead of from 0; that point is then a candidate too.
        gradient: (B, T, ...) g at `r = 0` if it is known.
        weaker: what `one_step` found for the same arguments, if it is known.

    Source: Madry et al. 2018, https://arxiv.org/abs/1706.06083.
    Raises:
        NumericalError: see `finite_gradient`; at the end, so that no step waits for the device.
    Cost: K passes through the place and their gradients, beside what `one_step` costs if it is not given.
    """
    if gradient is None:
        gradient = attack_gradient(site, target, site.noiseless)[1]
    # Among the candidates, so that PGD is never below the weaker attack, whatever its steps do.
    best = one_step(site, target, epsilon, draws, gradient) if weaker is None else weaker
    noise = site.noiseless
    if random_start:
        noise = epsilon * unit_noise(draws, site.room)
        reached, gradient = _climbed(site, target, noise)
        best = _more_harmful(target, best, reached)
    total, length = gradient.sum(), STEP_SHARE * epsilon / num_steps
    for step in range(num_steps):
        noise = _project(noise.add(ascent(site, gradient, draws), alpha=length), epsilon)
        # The last point is only measured: its gradient would lead nowhere.
        if step < num_steps - 1:
            reached, gradient = _climbed(site, target, noise)
            total = total + gradient.sum()
        else:
            reached = _run(site, noise)
        best = _more_harmful(target, best, reached)
    _check_finite(total)
    return best


def _run(site: Site, noise: Tensor) -> Attacked:
    # Measured without a graph, which would keep the activations of the whole pass.
    with torch.no_grad():
        return _outcome(noise, site.probe(noise))


def _outcome(noise: Tensor, output: AttentionOutput) -> Attacked:
    return Attacked(noise, output.logits.detach(), output.attention.detach())


def _more_harmful(target: Tensor, first: Attacked, second: Attacked) -> Attacked:
    """Per example the outcome with the larger margin; the first of equals."""
    # Strictly: of equals the first stays, so that an attack without any effect reports no noise.
    better = margin(second.logits, target) > margin(first.logits, target)
    return Attacked(
        torch.where(_like(better, second.noise), second.noise, first.noise),
        torch.where(_like(better, second.logits), second.logits, first.logits),
        torch.where(_like(better, second.attention), second.attention, first.attention),
    )


def _like(per_example: Tensor, values: Tensor) -> Tensor:
    """(B,) as (B, 1, ...), so that it goes with (B, ...)."""
    return per_example.reshape(-1, *(1,) * (values.dim() - 1))


def ascent(site: Site, gradient: Tensor, draws: Tensor) -> Tensor:
    """(B, T, ...) directions of the gradient, those of the draws in rows where it is exactly 0.

    Args:
        site: what is attacked.
        gradient: (B, T, ...).
        draws: (B, T, ...) `d ~ N(0, I)`.
    """
    uphill = unit_noise(gradient, site.room)
    blind = torch.linalg.vector_norm(uphill, dim=tuple(range(1, uphill.dim()))) == 0
    # The usual case; on a CPU the test costs less than the norm of the draws and the choice, elsewhere it waits.
    if blind.device.type == "cpu" and not blind.any():
        return uphill
    return torch.where(_like(blind, uphill), unit_noise(draws, site.room), uphill)


def _project(noise: Tensor, epsilon: float) -> Tensor:
    """The nearest noise within the ball, per example."""
    norm: Tensor = torch.linalg.vector_norm(noise, dim=tuple(range(1, noise.dim())), keepdim=True)
    # The clamp makes the factor 1 within the ball, and keeps a norm of 0 out of the denominator.
    inside: Tensor = noise * (epsilon / norm.clamp_min(epsilon))
    return inside
