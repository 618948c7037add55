"""The information bottleneck: a learner, and a compressor that lets through only what the prediction needs.

The attention of the model is the compressor's: how much of a token passes is how much attention it gets. The model is
deterministic, also in training mode: noise belongs to the training of the compressor and is drawn there, through
`BottleneckClassifier.noisy_logits`. At test time every token is represented by the mean of its noisy state.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.scorers import AdditiveScorer, Scorer
from attn_lightning.numerics import at_least_float32, full_precision, masked_softmax
from attn_lightning.types import AttentionOutput, DataSpec

LARGEST_GATE = 1 - 1e-3
"""A gate of 1 would carry infinitely many nats."""

_SMALLEST_DEVIATION = 1e-3


def open_gates(scores: Tensor) -> Tensor:
    """`l = (1 - 1e-3) sigmoid(s)`: the share of a token that passes.

    Args:
        scores: (B, T) real numbers.

    Returns:
        (B, T) in [0, 1 - 1e-3], smooth: clamping at the bound would leave a gate there for ever.
    """
    return LARGEST_GATE * torch.sigmoid(scores)


def gate_attention(scores: Tensor, mask: Tensor) -> Tensor:
    """`a_t = l_t / sum_u l_u` over the real tokens, as the softmax of `log l`: no gates are too small for it.

    Args:
        scores: (B, T) scores of the gates.
        mask: (B, T) bool.

    Returns:
        (B, T) attention, 0 at padding.
    """
    # Through the logarithm: where all gates are shut, a sum of sigmoids would be 0 and the division NaN.
    return masked_softmax(F.logsigmoid(scores), mask)


def gate_divergence(gates: Tensor, hidden: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """`KL( N(l h + (1 - l) m, (1 - l)^2 diag s^2) || N(m, diag s^2) )` of every token.

        KL_t = 1/2 sum_j [ (1 - l_t)^2 + l_t^2 ((h_tj - m_j) / s_j)^2 - 1 - 2 log(1 - l_t) ]

    Args:
        gates: (B, T) `l` in [0, 1).
        hidden: (B, T, D).
        mean: (D,) `m`.
        deviation: (D,) `s`, above 0.

    Returns:
        (B, T) nats, at least 0, and 0 where the gate is shut.
    """
    squares = ((hidden - mean) / deviation).square().sum(-1)
    # `log1p`, since `log(1 - l)` loses the digits of a gate that is nearly shut.
    per_dimension = (1 - gates).square() - 1 - 2 * torch.log1p(-gates)
    return 0.5 * (hidden.shape[-1] * per_dimension + gates.square() * squares)


def gaussian_divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """`KL( N(mu, diag sigma^2) || N(m, diag s^2) )` of every token.

        KL_t = 1/2 sum_j [ log s_j^2 - log sigma_tj^2 + (sigma_tj^2 + (mu_tj - m_j)^2) / s_j^2 - 1 ]

    Args:
        mean: (B, T, D) `mu`.
        log_variance: (B, T, D) `log sigma^2`.
        prior_mean: (D,) `m`.
        prior_log_variance: (D,) `log s^2`.

    Returns:
        (B, T) nats, at least 0.
    """
    # By the difference of logarithms: a variance itself may underflow where its logarithm is an ordinary number.
    difference = log_variance - prior_log_variance
    squares = (mean - prior_mean).square() * torch.exp(-prior_log_variance)
    return 0.5 * (difference.exp() - 1 - difference + squares).sum(-1)


def merged_moments(
    count: Tensor, mean: Tensor, squares: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations after more values, without cancellation.

    Args:
        count: () number of values so far.
        mean: (D,) their mean.
        squares: (D,) sum of their squared deviations from it.
        values: (B, T, D).
        mask: (B, T) bool, the values that count; at least one.

    Returns:
        The three of all values together. Source: Chan, Golub and LeVeque 1983, https://doi.org/10.2307/2683386.
    """
    inside = mask.unsqueeze(-1)
    new_count = mask.sum().to(count.dtype)
    new_mean = values.masked_fill(~inside, 0.0).sum((0, 1)) / new_count
    new_squares = (values - new_mean).masked_fill(~inside, 0.0).square().sum((0, 1))
    # Not a sum of squares less the square of a sum, which cancels to nothing where states lie far from 0.
    total, difference = count + new_count, new_mean - mean
    merged_squares = squares + new_squares + difference.square() * (count * new_count / total)
    return total, mean + difference * (new_count / total), merged_squares


class Compressor(nn.Module):
    """Base of the token bottlenecks.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) states to (B, T) scores."""
        raise NotImplementedError

    def attention(self, scores: Tensor, mask: Tensor) -> Tensor:
        """(B, T) scores to (B, T) attention: rows sum to 1, 0 at padding."""
        raise NotImplementedError

    def compressed(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """(B, T, D) mean of the noisy states."""
        raise NotImplementedError

    def sample(self, hidden: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) one draw of the noisy states by `torch.randn_like`, and the (B, T) attention that goes with it.

        `scores` are those of `score` for these states.
        """
        raise NotImplementedError

    def divergence(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """(B, T) nats that a noisy state carries about its token; meaningless at padding."""
        raise NotImplementedError

    def observe(self, hidden: Tensor, mask: Tensor) -> None:
        """Take note of the states of a training batch; changes no output before `update_statistics`."""

    def update_statistics(self) -> None:
        """Use what was observed since the last call."""

    def adopt(self, scorer: Scorer) -> None:
        """Take the shape of the learner's scorer where that is wanted; called once, when the model is built."""

    def begin(self, scorer: Scorer) -> None:
        """Take its weights where that is wanted; called when the learner's warm-up is over."""


class NoiseGate(Compressor):
    """Replace a share of every token by noise: `z_t = l_t h_t + (1 - l_t) eps_t`, `eps_t ~ N(m, diag s^2)`.

    `l_t = sigmoid(u . tanh(U h_t + b))`, scaled to at most 1 - 1e-3; attention is `a_t = l_t / sum_u l_u`.

    m and s are the mean and standard deviation of the hidden states over real tokens: exact over all training batches
    between two calls of `update_statistics`, and constant from one call to the next, so that the same input gives the
    same output within an epoch; before the first call they are 0 and 1. Under DDP they are those of the first process.

    Cost: less than the scorer of the learner, and one pass over the states for the statistics.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
        attention_size: rows of U; null takes half of D.

    Attributes:
        scorer: gives `u . tanh(U h_t + b)`.
        mean: (D,) `m`.
        deviation: (D,) `s`, at least 1e-3.
    """

    mean: Tensor
    deviation: Tensor
    observed_count: Tensor
    observed_mean: Tensor
    observed_squares: Tensor

    def __init__(self, hidden_size: int, attention_size: int | None = None) -> None:
        super().__init__(hidden_size)
        self.scorer: Scorer = AdditiveScorer(hidden_size, attention_size)
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("deviation", torch.ones(hidden_size))
        # Buffers, so that a run that is resumed in the middle of an epoch's statistics goes on with them.
        self.register_buffer("observed_count", torch.zeros(()))
        self.register_buffer("observed_mean", torch.zeros(hidden_size))
        self.register_buffer("observed_squares", torch.zeros(hidden_size))

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See `Compressor.score`."""
        scores: Tensor = self.scorer(hidden, mask)
        return scores

    def attention(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `gate_attention`."""
        return gate_attention(scores, mask)

    def compressed(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """`E z_t = m + l_t (h_t - m)`."""
        # `lerp` writes the result at once; the formula by hand would need three tensors of the size of the states.
        return torch.lerp(self.mean.expand_as(hidden), hidden, open_gates(scores).unsqueeze(-1))

    def sample(self, hidden: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `Compressor.sample`."""
        noise = self.mean + self.deviation * torch.randn_like(hidden)
        return torch.lerp(noise, hidden, open_gates(scores).unsqueeze(-1)), self.attention(scores, mask)

    def divergence(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """See `gate_divergence`."""
        return gate_divergence(open_gates(scores), hidden, self.mean, self.deviation)

    @torch.no_grad()
    def observe(self, hidden: Tensor, mask: Tensor) -> None:
        """See `Compressor.observe`."""
        observed = (self.observed_count, self.observed_mean, self.observed_squares)
        for kept, merged in zip(observed, merged_moments(*observed, hidden, mask), strict=True):
            # In place, as a new tensor would no longer be the buffer that a checkpoint stores.
            kept.copy_(merged)

    @torch.no_grad()
    def update_statistics(self) -> None:
        """Use the states of all batches since the last call; without any the old statistics stay."""
        # Asked once an epoch, so that the wait for a GPU does not matter.
        if self.observed_count == 0:
            return
        self.mean.copy_(self.observed_mean)
        self.deviation.copy_((self.observed_squares / self.observed_count).sqrt().clamp_min(_SMALLEST_DEVIATION))
        for observed in (self.observed_count, self.observed_mean, self.observed_squares):
            observed.zero_()


class LearnerGate(NoiseGate):
    """A `NoiseGate` that begins where the learner is, with a scorer of the learner's class.

    `l_t = sigmoid(b + s_t - max_u s_u)`, `s = scorer(h)` with the learner's weights after its warm-up, b from 3 on.
    A scorer that starts at random asks for nearly uniform attention, to which feedback pulls the learner; on points for
    good, as its classifier forgets the warm-up too.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.offset = nn.Parameter(torch.tensor(3.0))

    def adopt(self, scorer: Scorer) -> None:
        """See `Compressor.adopt`."""
        self.scorer = copy.deepcopy(scorer).requires_grad_()

    def begin(self, scorer: Scorer) -> None:
        """See `Compressor.begin`."""
        self.scorer.load_state_dict(scorer.state_dict())

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See the class; the largest score is part of the graph."""
        scores = super().score(hidden, mask)
        return self.offset + scores - scores.masked_fill(~mask, -math.inf).amax(-1, keepdim=True)


class GaussianBottleneck(Compressor):
    """A Gaussian code per token, `z_t ~ N(mu(h_t), diag sigma^2(h_t))`, with attention computed on `z`.

    `mu(h) = h + W h` and `log sigma^2(h) = V h + v` start as `mu = h` and `sigma = 0.1`: compression begins at the
    learner it was given. Attention is the softmax of additive scores of `z`.

    Cost: three linear maps of the states in a clean pass, two in a noisy one.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
        learnable_prior: learn mean and variance of the prior; otherwise it is N(0, I).
        attention_size: rows of the additive scorer; null takes half of D.
    """

    def __init__(self, hidden_size: int, learnable_prior: bool = False, attention_size: int | None = None) -> None:
        super().__init__(hidden_size)
        self.shift = nn.Linear(hidden_size, hidden_size, bias=False)
        self.log_variance = nn.Linear(hidden_size, hidden_size)
        self.scorer = AdditiveScorer(hidden_size, attention_size)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, 2 * math.log(0.1))
        self.prior_mean = nn.Parameter(torch.zeros(hidden_size), requires_grad=learnable_prior)
        self.prior_log_variance = nn.Parameter(torch.zeros(hidden_size), requires_grad=learnable_prior)

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Additive scores of the mean code."""
        scores: Tensor = self.scorer(self._mean(hidden), mask)
        return scores

    def attention(self, scores: Tensor, mask: Tensor) -> Tensor:
        """The softmax over real tokens."""
        return masked_softmax(scores, mask)

    def compressed(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """`mu(h_t)`."""
        return self._mean(hidden)

    def sample(self, hidden: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """See `Compressor.sample`; the attention is that of scores of the draw."""
        deviation = torch.exp(0.5 * self.log_variance(hidden))
        states = self._mean(hidden) + deviation * torch.randn_like(hidden)
        return states, self.attention(self.scorer(states, mask), mask)

    def divergence(self, hidden: Tensor, scores: Tensor) -> Tensor:
        """See `gaussian_divergence`."""
        mean, log_variance = self._mean(hidden), self.log_variance(hidden)
        return gaussian_divergence(mean, log_variance, self.prior_mean, self.prior_log_variance)

    def _mean(self, hidden: Tensor) -> Tensor:
        return torch.add(hidden, self.shift(hidden))


class BottleneckClassifier(AttentionClassifier):
    """Attention classifier whose attention and tokens come from an information bottleneck.

    `x_t = embedding(w_t)`, `h = encoder(x)`, then the compressor gives scores, attention `a` and the mean `z_t` of its
    noisy tokens; `c = sum_t a_t z_t`, `logits = W c + b`. So the attention of the output is the compressor's, its
    `hidden` are the states before the compression, and `context` is the sum of the compressed ones.

    The learner is the `AttentionClassifier` on the same encoder and classifier with a scorer of its own; only the
    method `InformationBottleneck` uses it, through `learner`. Other methods train the model as any other: their
    score-level perturbations act on the compressor's scores.

    Args:
        spec: what the data is like; the data module gives it.
        compressor: class of the bottleneck (`NoiseGate`, `LearnerGate`, `GaussianBottleneck`, your own), its options.
        options: those of `AttentionClassifier`; scorer and normalizer are the learner's.

    Raises:
        ConfigurationError: see `AttentionClassifier`.
    """

    def __init__(self, spec: DataSpec, compressor: Callable[[int], Compressor] = NoiseGate, **options: Any) -> None:
        super().__init__(spec, **options)
        self.compressor = compressor(self.encoder.output_size)
        self.compressor.adopt(self.scorer)

    def forward(self, tokens: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.forward`; while training, the compressor takes note of the states."""
        output = super().forward(tokens, mask, attention)
        # Detached: the statistics are constants of the objective, and must not keep the graph of every batch.
        if self.training:
            self.compressor.observe(output.hidden.detach(), mask)
        return output

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) to (B, T) scores of the compressor."""
        with full_precision(hidden.device.type):
            return self.compressor.score(at_least_float32(hidden), mask)

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        """See `Backbone.attend`; without noise, also while training."""
        with full_precision(scores.device.type):
            hidden, scores = at_least_float32(hidden), at_least_float32(scores)
            weights = self.compressor.attention(scores, mask) if attention is None else attention.to(hidden.dtype)
            output = self._classify(self.compressor.compressed(hidden, scores), scores, mask, weights)
        return replace(output, hidden=hidden)

    def learner(self, hidden: Tensor, mask: Tensor) -> AttentionOutput:
        """The model without its bottleneck: (B, T, D) states under the learner's own attention."""
        with full_precision(hidden.device.type):
            hidden = at_least_float32(hidden)
            return super().attend(hidden, self.scorer(hidden, mask), mask)

    def noisy_logits(self, hidden: Tensor, mask: Tensor, scores: Tensor | None = None) -> Tensor:
        """(B, C) logits of one draw of the noisy tokens, under the attention that goes with it.

        Args:
            hidden: (B, T, D) states.
            mask: (B, T) bool.
            scores: (B, T) what `score` gives for them, where that is known.
        """
        scores = self.score(hidden, mask) if scores is None else scores
        with full_precision(hidden.device.type):
            states, weights = self.compressor.sample(at_least_float32(hidden), scores, mask)
            return self._classify(states, weights, mask, weights).logits

    def attention_parameters(self) -> list[nn.Parameter]:
        """The scorer of the learner and the compressor: both are spared from weight decay."""
        return [*super().attention_parameters(), *self.compressor.parameters()]

    def _classify(self, states: Tensor, scores: Tensor, mask: Tensor, weights: Tensor) -> AttentionOutput:
        """The head of `AttentionClassifier` on other states."""
        return super().attend(states, scores, mask, weights)
