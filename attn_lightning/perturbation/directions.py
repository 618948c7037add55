"""Which way noise may point: anywhere, or only along differences of attention scores.

A restricted direction is a map of gradients: where `r = J alpha` and alpha is chosen instead of `r`, following the
gradient by alpha moves `r` along `J J' g`. Directions to neighboring words are in `neighbors.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.numerics import unit_vectors
from attn_lightning.perturbation.sites import Site
from attn_lightning.types import AttentionOutput, Batch

Projection = Callable[[Tensor], Tensor]
"""A map of gradients (B, T, ...) to the noise that is allowed, such as `J J'` for noise restricted to `r = J alpha`."""

Normalization = Literal["sentence", "token", "released"]


class Directions:
    """Noise in any direction, and the base of those that allow less."""

    def check(self, model: Backbone) -> None:
        """Refuse a model that has no such directions."""

    def refresh(self) -> None:
        """Forget what was kept of the model's weights; called at the start of every epoch."""

    def projection(self, model: Backbone, output: AttentionOutput, batch: Batch) -> Projection:
        """The map M for some examples.

        Args:
            model: the backbone.
            output: its clean pass.
            batch: the examples.
        """
        return unrestricted

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


@dataclass(frozen=True)
class ScoreDifferences(Directions):
    """Along differences of attention scores within a sentence; see `toward_differences`.

    Attributes:
        normalize: what the differences are divided by.
    """

    normalize: Normalization

    def projection(self, model: Backbone, output: AttentionOutput, batch: Batch) -> Projection:
        """See `Directions.projection`."""
        return toward_differences(output.scores.detach(), output.mask, self.normalize)


def unrestricted(gradient: Tensor) -> Tensor:
    """The identity: noise in any direction."""
    return gradient


def toward_differences(scores: Tensor, mask: Tensor, normalize: Normalization) -> Projection:
    """Noise restricted to differences of attention scores within a sentence: interpretable perturbations.

    `r_t(alpha) = sum_k alpha_{t,k} d~_{t,k}` with `d_{t,k} = s_k - s_t` over real tokens, and alpha is chosen
    instead of `r`. As `dL / d alpha_{t,k} = g_t d~_{t,k}`, following it gives `r_t` proportional to `w_t g_t` with
    `w_t = sum_k d~_{t,k}^2`, so the T x T differences are never formed:

     - `sentence`, `d~ = d / ||d||_F`: `w_t` is proportional to `sum_k (s_t - s_k)^2 = n ((s_t - mean)^2 + variance)`,
       that is to `1 + z_t^2` with the standard score z: up to n times more noise at tokens that stand out.
     - `token`, `d~_t = d_t / ||d_t||`: `w_t = 1`, the identity.
     - `released`: `w_t = -1`, as in the authors' code.

    Args:
        scores: (B, T), detached; values at padding are ignored.
        mask: (B, T) bool.
        normalize: see above.

    Returns:
        The map `g -> w g`. All zeros in a row of exactly equal scores under `sentence`.
    """
    # Factors that are the same for all tokens of a text cancel in `unit_noise`, so `1 / ||d||_F` is left out.
    if normalize == "sentence":
        weights = squared_differences(scores, mask)
        return lambda gradient: weights * gradient
    return unrestricted if normalize == "token" else torch.neg


def squared_differences(scores: Tensor, mask: Tensor) -> Tensor:
    """`sum_k (s_t - s_k)^2 / n` over the n real tokens, as `(s_t - mean)^2 + variance` in O(T).

    Args:
        scores: (B, T); values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        (B, T), at least 0; meaningless at padding.
    """
    inside = mask.to(scores.dtype)
    shares = inside / inside.sum(-1, keepdim=True)
    # Around the mean, and not `mean of squares - square of the mean`, which loses all digits for scores far from 0.
    deviations = scores - (shares * scores).sum(-1, keepdim=True)
    squares = deviations.square()
    return squares + (shares * squares).sum(-1, keepdim=True)


def unit_noise(noise: Tensor, room: Tensor) -> Tensor:
    """Noise of length 1 per example where it may be.

    Args:
        noise: (B, T, ...) with at least one entry per row that is not 0; values elsewhere are ignored.
        room: (B, T) bool for whole tokens, or (B, T, ...), see `Site.room`.

    Returns:
        (B, T, ...), 0 elsewhere; a row of zeros stays zero, as it has no direction.
    """
    inside = room.reshape(room.shape + (1,) * (noise.dim() - room.dim()))
    # Replaced and not multiplied: noise at padding may be NaN, and `0 * NaN` is NaN.
    return unit_vectors(torch.where(inside, noise, 0.0))


def gradient_at(
    site: Site, objective: Callable[[Tensor], Tensor], noise: Tensor
) -> tuple[AttentionOutput, Tensor | None]:
    """What the model says under a noise, and `g = d objective(r) / dr` there.

    Args:
        site: what is perturbed.
        objective: (B, C) logits to (B,).
        noise: (B, T, ...), a constant.

    Returns:
        The output, and (B, T, ...) gradients; see `slope`.
    """
    # A leaf of its own, so that the gradient ends here and leaves nothing in any `.grad`.
    noise = noise.detach().requires_grad_()
    output = site.probe(noise)
    return output, slope(objective(output.logits), noise)


def slope(values: Tensor, at: Tensor, *, retain_graph: bool = False) -> Tensor | None:
    """`d values / d at` per example; None where the values do not depend on it at all.

    Args:
        values: (B,), each a function of its own row of `at` only.
        at: (B, ...).
        retain_graph: keep the graph for a later backward pass.

    Returns:
        (B, ...). Values are summed over the batch, so that a row does not depend on the others or on B.
    """
    # `autograd.grad` raises there; that nothing depends on the place is an answer which the caller has words for.
    if not values.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(values.sum(), at, allow_unused=True, retain_graph=retain_graph)
    return gradient
