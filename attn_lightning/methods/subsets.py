"""Distributions over the subsets of k words, summed exactly without listing them."""

import torch
from torch import Tensor

_NOTHING = -1e30
"""The logarithm of no weight at all: finite, because -inf makes NaN of gradients."""

_FURTHEST = 1e5
"""A score that is further below the largest of its text counts as this: sums in float32 would lose the others."""


def log_binomial(n: Tensor, m: Tensor, most: int) -> Tensor:
    """`log (n choose m) = sum_{i=1..m} log((n - m + i) / i)`, exact to the last digits of float32 for any n.

    Args:
        n: (B,) whole numbers.
        m: (B,) whole numbers from 0 to n.
        most: the largest that m can be.

    Returns:
        (B,) float32.
    """
    steps = torch.arange(1, most + 1, device=n.device)
    ratios = ((n - m).unsqueeze(-1) + steps) / steps
    return ratios.log().masked_fill(steps > m.unsqueeze(-1), 0.0).sum(-1)


def subset_divergence(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """`KL( q || r )` of two distributions over the subsets S of k real tokens, in closed form.

        q(S) = prod_{t in S} exp(s_t) / sum_{|S'| = k} prod_{t in S'} exp(s_t),    r(S) = 1 / (n choose k)
        KL(q || r) = E_q[ sum_{t in S} s_t ] - log sum_{|S'| = k} prod_{t in S'} exp(s_t) + log (n choose k)

    The sums over subsets are coefficients of `prod_t (1 + exp(s_t) x)`. Pairs of neighbors are multiplied, then pairs
    of pairs, up to x^k, and the mean of `sum s_t` under q is carried along with every coefficient.

    Args:
        scores: (B, T); values at padding are ignored, and nothing counts as more than 1e5 below the largest of a text.
        mask: (B, T) bool, at least one True per row.
        k: at least 1; a text with no more than k tokens has one subset.

    Returns:
        (B,) nats in [0, log (n choose k)] up to rounding, 0 where all scores of a text are equal or there is one
        subset. It has a gradient everywhere.

    Cost: log2 T rounds of k + 1 small sums; no gradient of gradients is needed.
    """
    lengths = mask.sum(-1)
    # A constant for all scores of a text changes nothing; without it no exponential overflows.
    largest = scores.detach().masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    centered = (scores - largest).clamp_min(-_FURTHEST).masked_fill(~mask, 0.0)
    sums = torch.stack([torch.zeros_like(centered), centered.masked_fill(~mask, _NOTHING)], -1)
    means = torch.stack([torch.zeros_like(centered), centered], -1)
    while sums.shape[1] > 1:
        if sums.shape[1] % 2:
            factor = torch.full_like(sums[:, :1], _NOTHING)
            factor[..., 0] = 0.0  # a polynomial of 1
            sums, means = torch.cat([sums, factor], 1), torch.cat([means, torch.zeros_like(factor)], 1)
        sums, means = _products(sums, means, k)
    size = lengths.clamp_max(k)
    log_sum, mean = (table[:, 0].gather(1, size.unsqueeze(1)).squeeze(1) for table in (sums, means))
    return mean - log_sum + log_binomial(lengths, size, k)


def _products(sums: Tensor, means: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Products of neighboring polynomials up to x^k, as logarithms, and the mean score behind every coefficient."""
    degree = sums.shape[-1] - 1
    logs = sums[:, 0::2].unsqueeze(-1) + sums[:, 1::2].unsqueeze(-2).flip(-1)
    totals = means[:, 0::2].unsqueeze(-1) + means[:, 1::2].unsqueeze(-2).flip(-1)
    found = []
    for power in range(min(k, 2 * degree) + 1):
        # All pairs of coefficients whose powers add up to this one lie on a diagonal.
        pairs, scores = (table.diagonal(degree - power, -2, -1) for table in (logs, totals))
        found.append((pairs.logsumexp(-1), (pairs.softmax(-1) * scores).sum(-1)))
    new_sums, new_means = zip(*found, strict=True)
    return torch.stack(new_sums, -1), torch.stack(new_means, -1)
