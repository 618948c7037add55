"""Integrated gradients: the gradient averaged along the straight line from no words to the text."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.kernels import recurrent_kernels
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_numbers
from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import Subject
from attn_lightning.types import Batch

_LARGEST_MARGIN = 350.0
"""In nats; the square of its exponential is a float64, and a probability of exp(-350) has no slope to speak of."""


class IntegratedGradients(Explainer):
    """`| sum_d e_{t,d} int_0^1 dp_y/de_{t,d}(alpha e) d alpha |` at the embeddings, from a baseline of zeros.

    p_y is the probability of the class that the clean pass predicts; attention moves along the line. The sum over
    dimensions keeps its sign until the end, so that parts of a word that speak for and against the class cancel; its
    absolute value is taken because a word that speaks strongly against the class matters too.

    The integral is taken by the Gauss-Legendre rule, so a text costs `steps` runs of the encoder and as many backward
    passes through it. Several points of the line share a pass as long as they fit into the token budget.

    Source: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365; equal to captum's `IntegratedGradients` with
    its default rule.

    Args:
        steps: points of the quadrature, at least 1.

    Raises:
        ConfigurationError: `steps` is less than 1.
    """

    name: ClassVar[str] = "ig"

    def __init__(self, steps: int = 50) -> None:
        check_numbers(self, at_least=1, steps=steps)
        self.steps = steps

    def scores(self, subject: Subject, batch: Batch) -> Tensor:
        """See `Explainer.scores`."""
        return integrated_gradients(subject.model, batch, self.steps, subject.token_budget).abs()


def integrated_gradients(model: Backbone, batch: Batch, steps: int = 50, token_budget: int = 2**16) -> Tensor:
    """Contributions of the tokens to `p_y(text) - p_y(zeros)`, which is their sum up to the error of the quadrature.

    Args:
        model: any backbone; it is run in eval mode.
        batch: only `tokens` and `mask` are read.
        steps: points of the quadrature.
        token_budget: the most tokens of a pass, padding included; one point of the line is taken at least.

    Returns:
        (B, T) float32 signed contributions, detached, exactly 0 at padding.
    """
    with inference(model):
        predicted = model(batch.tokens, batch.mask).logits.argmax(-1)
    # Nodes on [-1, 1]; halved and moved below, since the line goes from 0 to 1.
    points, weights = np.polynomial.legendre.leggauss(steps)
    with differentiable(model):
        # Copies: what was made in inference mode can take no part in a backward pass.
        tokens, mask, predicted = batch.tokens.clone(), batch.mask.clone(), predicted.clone()
        embeddings = model.embed(tokens).detach()
        average = torch.zeros_like(embeddings)
        alphas, quadrature = (embeddings.new_tensor(values) for values in ((1 + points) / 2, weights / 2))
        # Several points of the line in a pass: short batches would leave the machine idle.
        together = max(1, token_budget // mask.numel())
        for alpha, share in zip(alphas.split(together), quadrature.split(together), strict=True):
            # The second text of a pair stays what it is: the line leads from no words of the first one.
            shares = torch.where(mask.unsqueeze(-1), alpha.view(-1, 1, 1, 1), 1.0)
            slopes = _slopes(model, model.scaled(embeddings, shares), mask, predicted)
            average += torch.einsum("a,abte->bte", share, slopes)
        return (embeddings * average).sum(-1).float().masked_fill(~mask, 0.0)


def class_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """(B,) float64 probability of given classes, `1 / (1 + sum_{c != y} exp(z_c - z_y))`.

    In float64 its gradient vanishes neither where the model is sure of the class nor where it is sure of another.

    Args:
        logits: (B, C).
        classes: (B,) int64.
    """
    own = logits.gather(1, classes.unsqueeze(1)).double()
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, classes.unsqueeze(1), False)
    margins = (logits.double() - own).clamp_max(_LARGEST_MARGIN)
    return 1 / (1 + margins.exp().masked_fill(~others, 0.0).sum(-1))


def _slopes(model: Backbone, points: Tensor, mask: Tensor, classes: Tensor) -> Tensor:
    """(A, B, T, E) gradients of the probability of `classes` (B,) at A points (A, B, T, E) of the line."""
    count = len(points)
    flat = points.flatten(0, 1).requires_grad_()
    repeated = mask.repeat(count, 1)
    # cuDNN differentiates a recurrent network in training mode only, and this one is in eval mode.
    with recurrent_kernels(model, flat):
        hidden = model.encode(flat, repeated)
        output = model.attend(hidden, model.score(hidden, repeated), repeated)
        total = class_probability(output.logits, classes.repeat(count)).sum()
        (slopes,) = torch.autograd.grad(total, flat)
    return slopes.view_as(points)
