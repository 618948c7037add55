"""Penalties that concentrate attention on few tokens: entropy, sum of squares, maximum.

They lower the spread of any normalizer; those of `backbone/normalizers.py` that give exact zeros need none.
"""

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.numerics import at_least_float32, entropy_nats
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm

EntropyForm = Literal["plain", "sdc"]


def attention_entropy(attention: Tensor, mask: Tensor) -> Tensor:
    """`H(a) = -sum_t a_t log a_t` in nats, with `0 log 0 = 0`.

    Args:
        attention: (B, T), rows summing to 1; values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        (B,) in [0, log n]. A weight of exactly 0 has the gradient 0, not infinity: a normalizer that gives it (sparse
        weights, an exponential that vanished) does not move it either.
    """
    support = mask & (attention > 0)
    return entropy_nats(attention.masked_fill(~support, 1.0).log(), support)


def sum_of_squares(attention: Tensor, mask: Tensor) -> Tensor:
    """`sum_t a_t^2` over the real tokens: (B, T) to (B,) in [1 / n, 1]."""
    return attention.masked_fill(~mask, 0.0).square().sum(-1)


def largest_weight(attention: Tensor, mask: Tensor) -> Tensor:
    """`max_t a_t` over the real tokens: (B, T) to (B,) in [1 / n, 1]; tokens that tie share the gradient."""
    return attention.masked_fill(~mask, 0.0).amax(-1)


class EntropyPenalty(Method):
    """Penalty on the entropy of attention: fewer tokens with more weight each.

    Objective:
        "plain": `L = L_task + weight * mean_i H(a_i)`; "sdc": `L = (1 - weight) L_task + weight * mean_i H(a_i)`.
        `H(a) = -sum_t a_t log a_t` in nats over the real tokens.

    Source:
        The second form is that of selective dependence classification with soft attention; the first is the usual
        entropy regularization.

    Own choices:
        Entropy is not divided by its maximum `log n`, so that a long text is penalized more. A weight of exactly 0
        contributes 0 and has no gradient, so sparse normalizers stay finite.

    Cost:
        0 more passes of the encoder, 0 more of the head; about one reading of the attention weights.

    Interactions:
        Acts on the attention of the step: where another method replaces attention by constants, the term has no
        gradient. "sdc" multiplies the task loss of every example by `1 - weight`, after class weights and beside the
        weights of other methods. Needs a normalizer that depends on the scores by more than their order. Pulls
        against rationales of many tokens. Unlabelled examples are ignored.

    Args:
        weight: lambda (k of the "sdc" form), factor of the entropy, 0 or more; below 1 for "sdc".
        form: plain adds the entropy, sdc also scales the task loss down.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES

    def __init__(self, weight: float = 0.1, form: EntropyForm = "plain") -> None:
        super().__init__(weight)
        check_choice(self, choices=get_args(EntropyForm), form=form)
        if form == "sdc":
            check_numbers(self, below=1, advice="from 1 on nothing is left of the task loss", weight=weight)
        self.form: EntropyForm = form

    def loss(self, step: TrainStep) -> LossTerm:
        """Mean entropy of the labelled texts."""
        output = step.output
        value = attention_entropy(at_least_float32(output.attention), output.mask).mean()
        return LossTerm("entropy", value, self.weight)

    def example_weights(self, step: TrainStep) -> Tensor | None:
        """`1 - weight` for every example in the "sdc" form."""
        if self.form == "plain" or self.weight == 0:
            return None
        return torch.full_like(step.output.logits[:, 0], 1 - self.weight)


class TsallisPenalty(Method):
    """Penalty on the Tsallis entropy of order 2, which is a reward for the sum of squared weights.

    Objective:
        `L = L_task - weight * mean_i sum_t a_{i,t}^2` over the real tokens. The Tsallis entropy `1 - sum_t a_t^2`
        differs by a constant.

    Source:
        Tsallis 1988, https://doi.org/10.1007/BF01016429; the same quantity with the opposite sign turns softmax into
        sparsemax (Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068).

    Own choices:
        The constant is left out, so the logged term lies in [-1, -1 / n]. Unlike entropy its gradient is bounded at
        weights near 0: small weights are left alone and large ones grow.

    Cost:
        0 more passes of the encoder, 0 more of the head; about one reading of the attention weights.

    Interactions:
        Acts on the attention of the step: where another method replaces attention by constants, the term has no
        gradient. Needs a normalizer that depends on the scores by more than their order. Unlabelled examples are
        ignored.

    Args:
        weight: lambda, factor of the sum of squares, 0 or more.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def loss(self, step: TrainStep) -> LossTerm:
        """Minus the mean sum of squares of the labelled texts."""
        output = step.output
        value = -sum_of_squares(at_least_float32(output.attention), output.mask).mean()
        return LossTerm("tsallis", value, self.weight)


class MaxPenalty(Method):
    """Reward for the largest weight of every text: one token should carry the decision.

    Objective:
        `L = L_task - weight * mean_i max_t a_{i,t}` over the real tokens.

    Source:
        The limit of infinite order of the penalties on Renyi entropy; no paper is followed.

    Own choices:
        The term is the weight itself, not its logarithm, so that its gradient is bounded. Tokens that tie for the
        maximum share its gradient.

    Cost:
        0 more passes of the encoder, 0 more of the head; about one reading of the attention weights.

    Interactions:
        Acts on the attention of the step: where another method replaces attention by constants, the term has no
        gradient. Needs a normalizer that depends on the scores by more than their order. Unlabelled examples are
        ignored.

    Args:
        weight: lambda, factor of the largest weight, 0 or more.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def loss(self, step: TrainStep) -> LossTerm:
        """Minus the mean largest weight of the labelled texts."""
        output = step.output
        value = -largest_weight(at_least_float32(output.attention), output.mask).mean()
        return LossTerm("max", value, self.weight)
