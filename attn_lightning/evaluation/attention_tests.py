"""Tests of attention itself: what happens to the prediction when other weights take its place.

All of them hold the hidden states and run the head only, for many weights of every text at once.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.evaluation.subject import Subject
from attn_lightning.metrics.agreement import JENSEN_SHANNON, jensen_shannon
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import FloatArray, to_array
from attn_lightning.types import AttentionOutput

Head = Callable[[Tensor], Tensor]
"""(B, K, T) weights, K of every text, to (B, K, C) logits with the hidden states held; differentiable."""


class Held(NamedTuple):
    """A pass over a batch whose hidden states are held.

    Attributes:
        head: what gives logits for other weights.
        output: the pass.
        uniform: (B, C) logits under uniform weights.
    """

    head: Head
    output: AttentionOutput
    uniform: Tensor


MAX_ATTENTION = Measure("max_attention", "largest weight of a text", higher_is_better=None)
PERMUTATION_CHANGE = Measure(
    "permutation_change", "median change of the prediction when the weights are permuted", uninformative=0.0
)
ADVERSARIAL_DIVERGENCE = JENSEN_SHANNON.called(
    "adversarial_divergence", "largest divergence found of weights that keep the prediction"
)
ATTENTION_DIVERGENCE = Measure(
    "attention_divergence", "Jensen-Shannon divergence from another model", 0.0, math.log(2), None, "nats"
)

PENALTY = 500.0
"""Price of a change of the prediction beyond the threshold, against nats of divergence."""

START_DEVIATION = 3.0
"""Standard deviation of the scores from which a search starts."""

_NEVER = -1e4
"""A score whose softmax is exactly 0 beside any real one, while its logarithm is finite."""


def held_head(model: Backbone, output: AttentionOutput) -> Head:
    """The head of a model on the hidden states of one pass.

    For the linear layer of `AttentionClassifier` and `BottleneckClassifier` the classifier is applied to every token
    once, and every further set of weights costs T C multiplications instead of T D, since
    `W sum_t a_t h_t + b = sum_t a_t (W h_t) + b`. Any other head is run by `attend`, one set of weights after the
    other, so that no hidden state is ever copied.

    Args:
        model: in eval mode.
        output: a pass of it.
    """
    states = summed_states(model, output)
    if states is None:
        return attend_head(model, output)
    classifier: nn.Linear = model.classifier  # type: ignore[assignment]
    return linear_head(classifier, states)


def summed_states(model: Backbone, output: AttentionOutput) -> Tensor | None:
    """(B, T, D) what attention sums before a linear layer; None for a model that is not known to work that way."""
    if not isinstance(model, AttentionClassifier) or not model.has_linear_head:
        return None
    if type(model).attend is AttentionClassifier.attend:
        return output.hidden
    if isinstance(model, BottleneckClassifier) and type(model).attend is BottleneckClassifier.attend:
        return model.compressor.compressed(output.hidden, output.scores)
    return None


def linear_head(classifier: nn.Linear, hidden: Tensor) -> Head:
    """See `held_head`.

    Args:
        classifier: D to C.
        hidden: (B, T, D).
    """
    # (B, T, C): what each token alone says for every class, before any weights.
    votes = hidden @ classifier.weight.T
    bias = classifier.bias

    def head(weights: Tensor) -> Tensor:
        logits = torch.bmm(weights, votes)
        return logits if bias is None else logits + bias

    return head


def attend_head(model: Backbone, output: AttentionOutput) -> Head:
    """See `held_head`; for every backbone."""

    def head(weights: Tensor) -> Tensor:
        passes = (model.attend(output.hidden, output.scores, output.mask, one) for one in weights.unbind(1))
        return torch.stack([each.logits for each in passes], 1)

    return head


def prediction_change(logits: Tensor, original: Tensor) -> Tensor:
    """Total variation distance of predictions, `1/2 sum_c |p_c - q_c|`; of two classes it is `|p_1 - q_1|`.

    So this is the `|Delta p|` of Jain and Wallace for two classes.

    Args:
        logits: (..., C).
        original: (..., C).

    Returns:
        (...) in [0, 1].
    """
    return 0.5 * (logits.softmax(-1) - original.softmax(-1)).abs().sum(-1)


def row_draws(subject: Subject, rows: Tensor, lengths: Tensor, shape: tuple[int, int], purpose: int) -> Tensor:
    """Normal numbers that depend on the row of the example alone, not on its batch.

    Args:
        subject: its seed is part of the key.
        rows: (B,).
        lengths: (B,) tokens.
        shape: (K, T) of every row's numbers.
        purpose: another key.

    Returns:
        (B, K, T) float32 on the subject's device; 0 beyond the length.
    """
    draws = torch.zeros(len(rows), *shape)
    for part, row, length in zip(draws, rows.tolist(), lengths.tolist(), strict=True):
        # Filled in place, a row without padding would be drawn in another way.
        part[:, :length] = torch.randn(shape[0], length, generator=subject.generator(row, purpose))
    return draws.to(subject.device)


def permuted(attention: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """Attention with its weights dealt out to the real tokens in other orders.

    Args:
        attention: (B, T).
        mask: (B, T) bool, the real tokens first in every row.
        keys: (B, K, T) random numbers, whose order is the permutation; those at padding are ignored.

    Returns:
        (B, K, T); rows hold the same weights, exactly 0 at padding.
    """
    # Infinite keys send padding behind the tokens, so each row is a permutation of its real tokens.
    order = keys.masked_fill(~mask.unsqueeze(1), torch.inf).argsort(-1)
    return attention.unsqueeze(1).expand(keys.shape).gather(-1, order).masked_fill(~mask.unsqueeze(1), 0.0)


def permutation_change(head: Head, output: AttentionOutput, keys: Tensor, chunk: int) -> Tensor:
    """Change of the prediction under random permutations of attention.

    Args:
        head: of `output`.
        output: the clean pass.
        keys: (B, P, T) random numbers; see `permuted`.
        chunk: how many permutations of every text are in memory at once.

    Returns:
        (B, P) in [0, 1], total variation distance of every permutation; 0 for texts of one token and for constant
        weights, where permutations change nothing.

    Source: Jain and Wallace 2019, section 4.2.1, https://aclanthology.org/N19-1357.
    """
    original = output.logits.unsqueeze(1)
    parts = [
        prediction_change(head(permuted(output.attention, output.mask, part)), original)
        for part in keys.split(max(1, chunk), dim=1)
    ]
    return torch.cat(parts, 1)


def adversarial_divergence(
    head: Head,
    output: AttentionOutput,
    start: Tensor,
    num_steps: int = 500,
    learning_rate: float = 0.01,
    threshold: float = 0.01,
) -> Tensor:
    """Largest divergence from the attention among searched weights under which the prediction stays.

    Every candidate c is the softmax of free scores, which Adam (with amsgrad) moves to maximise

        JSD(a, c) - 500 max(0, TVD(p(c), p(a)) - threshold).

    Source: Jain and Wallace 2019, section 4.2.2, https://aclanthology.org/N19-1357, with the penalty, the start and
    the optimizer of their code.

    Own choices: candidates do not repel each other (their term for the divergence among candidates is left out), so
    that no result depends on the number of candidates but by taking the best. Of every path the best point that keeps
    the prediction counts, not the last one, which the penalty leaves on either side of the threshold by chance.

    Args:
        head: of `output`.
        output: the clean pass.
        start: (B, K, T) first scores of K candidates.
        num_steps: of Adam.
        learning_rate: of Adam.
        threshold: largest total variation distance of the predictions.

    Returns:
        (B,) nats in [0, ln 2]; the attention itself is a candidate too, so 0 where nothing else keeps the prediction,
        and for texts of one token.

    Cost: `num_steps` times the head and its gradient with respect to the weights; the encoder is not run.
    """
    attention = output.attention.detach().unsqueeze(1)
    # Constant over all steps, and `0 log 0 = 0` for sparse attention.
    negative_entropy = torch.special.xlogy(attention, attention).sum(-1)
    original = output.logits.detach().softmax(-1).unsqueeze(1)
    # Their weight is exactly 0, and so is their gradient: no mask is needed again.
    scores = start.to(attention.dtype).masked_fill(~output.mask.unsqueeze(1), _NEVER)
    # Adam acts on every number by itself, so the candidates of all texts are one tensor and still independent.
    optimizer = torch.optim.Adam([scores], lr=learning_rate, amsgrad=True, fused=True)
    best = attention.new_zeros(len(attention))
    for step in range(num_steps + 1):
        log_weights = scores.log_softmax(-1)
        weights = log_weights.exp()
        logits, pull = _with_pullback(head, weights)
        probabilities = logits.softmax(-1)
        difference = probabilities - original
        change = 0.5 * difference.abs().sum(-1)
        # JSD(a, c) = KL(a || m) / 2 + KL(c || m) / 2 with m = (a + c) / 2, and dJSD/dc_t = log(c_t / m_t) / 2.
        log_middle = (0.5 * (attention + weights)).clamp_min(torch.finfo(weights.dtype).tiny).log()
        ratio = log_weights - log_middle
        divergence = 0.5 * (negative_entropy + (weights * ratio - attention * log_middle).sum(-1))
        # After every step: the penalty lets a path cross the threshold and come back.
        best = torch.maximum(best, divergence.where(change <= threshold, 0.0).amax(1))
        if step == num_steps:
            break
        direction = difference.sign() * (0.5 * PENALTY * (change > threshold)).unsqueeze(-1)
        # The derivative of a softmax, `p (g - sum p g)`, by hand: autograd would keep the graph of all candidates.
        at_logits = probabilities * (direction - (probabilities * direction).sum(-1, keepdim=True))
        downhill = pull(at_logits) - 0.5 * ratio
        # The same for the softmax that made the weights; no graph goes from step to step.
        scores.grad = weights * (downhill - (weights * downhill).sum(-1, keepdim=True))
        optimizer.step()
    return best.clamp_max(math.log(2))


def _with_pullback(head: Head, weights: Tensor) -> tuple[Tensor, Head]:
    """(B, K, C) detached logits, and the function from gradients at them to gradients at the weights."""
    with torch.enable_grad():
        weights = weights.detach().requires_grad_()
        logits = head(weights)
    return logits.detach(), lambda gradient: torch.autograd.grad(logits, weights, gradient)[0]


def uniform_attention(mask: Tensor) -> Tensor:
    """(B, T) float32, `1 / n` at every real token."""
    return mask / mask.sum(1, keepdim=True)


PER_TEXT: Mapping[Measure, Callable[[Held], Tensor]] = {
    MAX_ATTENTION: lambda held: held.output.attention.amax(1),
    Measure("uniform_change", "change of the prediction under uniform weights", uninformative=0.0): (
        lambda held: prediction_change(held.uniform, held.output.logits)
    ),
    Measure("uniform_flip", "share of texts with another class under uniform weights", uninformative=0.0): (
        lambda held: held.uniform.argmax(1) != held.output.logits.argmax(1)
    ),
}
"""(B,) numbers about the weights of each text, beyond those that draw random numbers, and how to compute them."""

COMPARED: Mapping[Measure, Callable[[AttentionOutput, AttentionOutput], FloatArray]] = {
    ATTENTION_DIVERGENCE: lambda own, other: jensen_shannon(
        to_array(own.attention), to_array(other.attention), to_array(own.mask)
    ),
    Measure("prediction_change", "difference of the prediction from that of another model", higher_is_better=None): (
        lambda own, other: to_array(prediction_change(other.logits, own.logits))
    ),
}
"""(B,) numbers from the passes of this and of another model, and how to compute them."""

MEASURES = (*dict.fromkeys([MAX_ATTENTION, PERMUTATION_CHANGE, ADVERSARIAL_DIVERGENCE, *PER_TEXT]), *COMPARED)
