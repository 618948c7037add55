"""Objectives of selective dependence classification: the label depends on one segment, and which one is hidden."""

from typing import ClassVar

import torch
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_numbers
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.numerics import at_least_float32, full_precision, log_mixture
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput


def single_logits(model: Backbone, states: Tensor, scores: Tensor) -> Tensor:
    """What the model says of each state alone: `g(v)`, the head on a text of one token with all attention on it.

    Args:
        model: the backbone; only `attend` runs, once, on N texts of one token.
        states: (N, D).
        scores: (N,) of the states; they matter only to a model that does more with them than attention.

    Returns:
        (N, C) logits; in eval mode of a model that averages outputs their logarithmic softmax.
    """
    # One (N, 1) tensor serves twice: as the mask of texts of one token and as attention that is all on it.
    ones = torch.ones_like(scores).unsqueeze(1)
    with full_precision(states.device.type):
        return model.attend(states.unsqueeze(1), scores.unsqueeze(1), ones.bool(), ones).logits


def segment_logits(model: Backbone, output: AttentionOutput) -> Tensor:
    """(B, T, C) `g(v_t)` of every token; finite but without meaning at padding. See `single_logits`."""
    # Padding goes through the head too: leaving it out would make the shape depend on the values, which a GPU waits
    # for.
    hidden, scores = at_least_float32(output.hidden), at_least_float32(output.scores)
    behind = getattr(model, "columns_behind", 0)
    if not behind:
        return single_logits(model, hidden.flatten(0, 1), scores.flatten()).reshape(*output.mask.shape, -1)
    # What stands behind a text belongs to each of its tokens: a question that is left out is another one.
    length = hidden.shape[1]
    columns = torch.arange(length - behind, length, device=hidden.device).repeat(length, 1)
    places = torch.cat([torch.arange(length, device=hidden.device).unsqueeze(1), columns], 1)
    first = torch.zeros(len(hidden) * length, 1 + behind, dtype=torch.bool, device=hidden.device)
    first[:, 0] = True
    texts, kept = hidden[:, places].flatten(0, 1), scores[:, places].flatten(0, 1)
    with full_precision(hidden.device.type):
        logits = model.attend(texts, kept, first, first.to(hidden.dtype)).logits
    return logits.reshape(*output.mask.shape, -1)


def expected_loss(attention: Tensor, losses: Tensor, mask: Tensor) -> Tensor:
    """`sum_t a_t L_t` over the real tokens.

    Args:
        attention: (B, T).
        losses: (B, T); values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        (B,).
    """
    # Masked although attention is 0 there: 0 times an infinite loss would be NaN.
    return (attention * losses.masked_fill(~mask, 0.0)).sum(-1)


class _SelectiveObjective(Method):
    """Base of the objectives that replace the task loss.

    Args:
        weight: share of the objective in the task loss.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        check_numbers(self, at_most=1, advice="1 is the objective alone", weight=weight)

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) the objective, mixed with the usual loss where `weight` is below 1."""
        if self.weight == 0:
            return None
        # Logarithms of mixtures lose small probabilities in bfloat16.
        with full_precision(step.output.scores.device.type):
            objective = self._objective(step)
            if self.weight == 1:
                return objective
            return torch.lerp(soft_attention_loss(step), objective, self.weight)

    def _objective(self, step: TrainStep) -> Tensor:
        raise NotImplementedError


class HardAttention(_SelectiveObjective):
    """Hard attention in exact expectation: attention is the probability that a segment alone is classified.

    Objective:
        `L = mean_i sum_t a_{i,t} CE(g(v_{i,t}), y_i)` in the place of `CE(g(sum_t a_t v_t), y)`; v are the states that
        attention averages, g is the head of the model.

    Source:
        Hard attention, Xu et al. 2015, https://arxiv.org/abs/1502.03044, section 4.1; as an objective beside soft
        attention in Vashisht and Ramaswamy 2023, https://arxiv.org/abs/2307.13421.

    Own choices:
        The expectation is summed over all segments, not sampled, so there is no variance and no baseline. `weight`
        below 1 mixes it with the usual loss.

    Cost:
        0 more passes of the encoder, 1 more of the head, on every token of the batch in the place of one average: cheap
        for a linear classifier, T times the classifier for a deep one.

    Interactions:
        Replaces the task loss, so it excludes other methods that do. Class weights act on every term. Training looks at
        single segments, so test with `--model.backbone.prediction=argmax_segment` (or averaged_output). Needs a
        normalizer that depends on the scores by more than their order. Terms of other methods are added as usual, and
        see the averaged input. Unlabelled examples are ignored.

    Args:
        weight: share of the objective in the task loss, 0 to 1.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def _objective(self, step: TrainStep) -> Tensor:
        return hard_attention_loss(step)


class MarginalLikelihood(_SelectiveObjective):
    """Likelihood of the label with the segment it depends on as a latent variable, whose prior is attention.

    Objective:
        `L = mean_i -log sum_t a_{i,t} p_g(y_i | v_{i,t})` in the place of `CE(g(sum_t a_t v_t), y)`;
        `p_g(. | v) = softmax(g(v))`, v are the states that attention averages, g is the head of the model.

    Source:
        Latent variable maximum likelihood, Vashisht and Ramaswamy 2023, https://arxiv.org/abs/2307.13421; Deng et al.
        2018, https://arxiv.org/abs/1807.03756, section 3.

    Own choices:
        The sum is exact. Zeros of sparse attention stay zeros and get a gradient. `weight` below 1 mixes it with the
        usual loss.

    Cost:
        0 more passes of the encoder, 1 more of the head, on every token of the batch in the place of one average: cheap
        for a linear classifier, T times the classifier for a deep one.

    Interactions:
        Replaces the task loss, so it excludes other methods that do. Class weights act as in the usual loss. Test with
        `--model.backbone.prediction=averaged_output`, whose log loss is this objective. Needs a normalizer that depends
        on the scores by more than their order. Terms of other methods are added as usual, and see the averaged input.
        Unlabelled examples are ignored.

    Args:
        weight: share of the objective in the task loss, 0 to 1.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def _objective(self, step: TrainStep) -> Tensor:
        output = step.output
        log_probabilities = segment_logits(step.model, output).log_softmax(-1)
        return step.task_loss(log_mixture(at_least_float32(output.attention), log_probabilities), step.batch.labels)


class Hybrid(_SelectiveObjective):
    """Soft attention first, then hard attention from the point that it reached.

    Objective:
        `L = mean_i CE(g(sum_t a_{i,t} v_{i,t}), y_i)` for the first `fraction` of the training, then
        `L = mean_i sum_t a_{i,t} CE(g(v_{i,t}), y_i)`; see `HardAttention`.

    Source:
        Vashisht and Ramaswamy 2023, https://arxiv.org/abs/2307.13421: the soft objective moves fast at first, the hard
        one ends at sharper attention.

    Own choices:
        The switch is a share of the training's steps, so a resumed run switches at the same step; the optimizer keeps
        its moments over it. `weight` below 1 mixes the hard objective with the usual loss.

    Cost:
        0 more passes of the encoder; nothing before the switch, 1 more pass of the head, on every token, after it.

    Interactions:
        Replaces the task loss, so it excludes other methods that do. Class weights act on every term. Test with
        `--model.backbone.prediction=argmax_segment` (or averaged_output). The best validation epoch may lie before the
        switch. Needs a normalizer that depends on the scores by more than their order, and a training of known length
        (without one it stays soft). Terms of other methods are added as usual. Unlabelled examples are ignored.

    Args:
        weight: share of the objective in the task loss, 0 to 1.
        fraction: share of the training that is soft, 0 to 1.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(self, weight: float = 1.0, fraction: float = 0.5) -> None:
        super().__init__(weight)
        check_numbers(self, at_least=0, at_most=1, fraction=fraction)
        self.fraction = fraction

    def _objective(self, step: TrainStep) -> Tensor:
        return hard_attention_loss(step) if step.progress >= self.fraction else soft_attention_loss(step)


def hard_attention_loss(step: TrainStep) -> Tensor:
    """(B,) `sum_t a_t CE(g(v_t), y)`."""
    output, labels = step.output, step.batch.labels
    logits = segment_logits(step.model, output)
    of_each = step.task_loss(logits.flatten(0, 1), labels.repeat_interleave(output.mask.shape[1]))
    return expected_loss(at_least_float32(output.attention), of_each.unflatten(0, output.mask.shape), output.mask)


def soft_attention_loss(step: TrainStep) -> Tensor:
    """(B,) `CE(g(sum_t a_t v_t), y)`, the usual loss of a model that is in training mode."""
    return step.task_loss(step.output.logits, step.batch.labels)
