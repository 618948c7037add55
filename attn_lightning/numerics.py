"""Numerically careful pieces that every formula of the package is made of.

Each one is a pure function over padded tensors. They exist because the obvious one-liners are wrong here: a
masked softmax times its log has NaN gradients, `F.kl_div` averages over the wrong axis, and dividing a tiny
gradient by `norm + 1e-8` silently switches virtual adversarial training off.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def masked_log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Log of the softmax over real tokens.

    Args:
        scores: (..., T) any real numbers; values at padding are ignored.
        mask: (..., T) bool, at least one True per row.

    Returns:
        (..., T) log-probabilities; 0 at padding, so that a product with any probability stays finite and its
        gradient too (`-inf * 0` would be NaN). Do not exponentiate without the mask.
    """
    # `log_softmax` and not the logarithm of `softmax`: a weight below 1e-45 is 0 in float32, its logarithm is not.
    log_probabilities = torch.log_softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
    return log_probabilities.masked_fill(~mask, 0.0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over real tokens, exactly 0 at padding.

    Args:
        scores: (..., T) any real numbers; values at padding are ignored.
        mask: (..., T) bool, at least one True per row.

    Returns:
        (..., T) probabilities that sum to 1 over the last axis.
    """
    # -inf and not a large negative number, so that padding is exactly 0 whatever the scale of the scores.
    return torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)


def log_attention(attention: Tensor) -> Tensor:
    """Logarithm of attention weights, with zeros (padding, sparse normalizers) taken as the smallest normal number.

    Args:
        attention: (B, T) in [0, 1].

    Returns:
        (B, T) at least -88 in float32; no gradient where the weight is 0.
    """
    # The smallest normal number: below it a CPU that flushes denormals would make 0, and the logarithm -inf.
    return attention.clamp_min(torch.finfo(attention.dtype).tiny).log()


def log_mixture(attention: Tensor, log_probabilities: Tensor) -> Tensor:
    """Logarithm of a mixture of distributions, `log sum_t a_t p_t`.

    Args:
        attention: (B, T) rows that sum to 1; padding has 0.
        log_probabilities: (B, T, C) logarithms of one distribution per token, finite also at padding.

    Returns:
        (B, C) at most 0. Its gradient is finite, also for weights of exactly 0, where a distribution that is more than
        e^50 times as likely as any attended one counts as if it were e^50 times.
    """
    weights = attention.unsqueeze(-1)
    # The shift cancels in the value, so it is a constant: the gradient through it would only add rounding.
    attended = log_probabilities.detach().masked_fill(weights == 0, -math.inf)
    largest = attended.amax(1, keepdim=True)
    # Tokens without weight may be more likely than all with one: unbounded, `0 * inf` would be NaN.
    ratios = (log_probabilities - largest).clamp_max(50.0).exp()
    return (weights * ratios).sum(1).log() + largest.squeeze(1)


def entropy_nats(log_probabilities: Tensor, mask: Tensor) -> Tensor:
    """Shannon entropy `H(p) = -sum_t p_t log p_t` in nats, of a distribution given by its logarithm.

    What is learned and logged in training is in nats; the metrics of `attn_lightning.metrics.sparsity` are in bits, as
    published tables are: the same number divided by `ln 2`.

    Args:
        log_probabilities: (..., T), for example from `masked_log_softmax`.
        mask: (..., T) bool.

    Returns:
        (...) in [0, log n] with n real tokens. Its gradient is finite.
    """
    # Filled before the exponential as well as after: a NaN at padding would reach the gradient of every token.
    log_probabilities = log_probabilities.masked_fill(~mask, 0.0)
    return -(log_probabilities.exp().masked_fill(~mask, 0.0) * log_probabilities).sum(-1)


def kl_divergence(*, log_p: Tensor, log_q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence `KL(p || q) = sum_k p_k (log p_k - log q_k)` per row, in nats.

    The arguments are named because swapping them is the commonest error of published attention code.

    Args:
        log_p: (..., K) logarithm of the first distribution: the one the expectation is taken over.
        log_q: (..., K) logarithm of the second distribution.
        mask: (..., K) bool, True where a term counts; None if all do.

    Returns:
        (...) at least 0; no mean is taken, so that no caller can take it over the wrong axis.
    """
    # Finite logarithms are the callers' part (see `log_attention`): with -inf for both, 0 log 0 would be NaN here.
    terms = log_p.exp() * (log_p - log_q)
    if mask is not None:
        terms = terms.masked_fill(~mask, 0.0)
    return terms.sum(-1)


def unit_vectors(vectors: Tensor, start_dim: int = 1) -> Tensor:
    """Every example's vector divided by its L2 norm, exactly, however small it is.

    The largest absolute entry is divided out first, so a vector of norm 1e-30 still reaches length 1 in float32;
    adding a constant to the norm instead shortens small vectors, which for the gradients of virtual adversarial
    training (they shrink with the square of xi) means no perturbation at all.

    Args:
        vectors: (B, ...) detached: the second derivative of a norm at zero is NaN.
        start_dim: the first axis that belongs to the vector; one norm per index of the axes before it.

    Returns:
        The same shape; rows of norm 1, and rows of zeros where the input row is all zeros (there is no direction).
    """
    axes = tuple(range(start_dim, vectors.dim()))
    # The square of 1e-30 is 0 in float32; divided by the largest entry first, the sum of squares lies in [1, n].
    largest = torch.linalg.vector_norm(vectors, ord=math.inf, dim=axes, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = torch.linalg.vector_norm(scaled, dim=axes, keepdim=True)
    # In place: the vectors are detached, and for words this is the largest tensor of the step.
    return scaled.div_(torch.where(norm > 0, norm, torch.ones_like(norm)))


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32 if they come in half precision, untouched (no copy) if in float32 or float64."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Run the block outside autocast, so that matrix products of float32 tensors stay float32.

    The head of the model runs under it: in bfloat16 the finite differences of virtual adversarial training have a
    cosine of about 0 with the true direction, while float32 on bfloat16 hidden states is exact to 0.99.

    Args:
        device_type: "cpu", "cuda", ...: `tensor.device.type`.
    """
    with torch.autocast(device_type, enabled=False):
        yield


def flush_denormals() -> None:
    """Let the CPU round numbers nearer to 0 than its normal ones, below 1.2e-38 in float32, to 0.

    Weight decay drives weights that get no gradient, or one that underflows, into that range, and arithmetic there is
    done in microcode: every step of such a model is several times slower.
    Nothing here depends on such numbers: whatever divides by small ones scales first (`unit_vectors`). Holds for the
    thread that calls it and for those it starts afterwards; does nothing on a processor that cannot.
    """
    torch.set_flush_denormal(True)
