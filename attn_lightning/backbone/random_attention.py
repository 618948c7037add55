"""Attention that is drawn at random and knows neither text nor label."""

import torch
from torch import Tensor


def random_subset_attention(mask: Tensor, size: int) -> Tensor:
    """The same weight on `min(size, n)` of a text's n real tokens, every such subset equally likely.

    Args:
        mask: (B, T) bool; nothing else of the examples is looked at.
        size: k, at least 1.

    Returns:
        (B, T) float32, rows sum to 1, 0 at padding.
    """
    # The k largest of independent keys are a uniform subset, for all texts at once.
    keys = torch.randn_like(mask, dtype=torch.float32).masked_fill(~mask, -torch.inf)
    ranks = keys.argsort(dim=1, descending=True).argsort(dim=1)
    chosen = ((ranks < size) & mask).float()
    return chosen / chosen.sum(1, keepdim=True)


def random_soft_attention(mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Weights drawn uniformly from all attention a text can get: normalized independent exponential variables.

    Args:
        mask: (B, T) bool; nothing else of the examples is looked at.
        generator: of the draws; None takes torch's own.

    Returns:
        (B, T) float32, rows sum to 1, 0 at padding: a flat Dirichlet distribution over the real tokens.
    """
    # Half the sum of two squared normal variables is exponential.
    first, second = (torch.randn(mask.shape, generator=generator, device=mask.device) for _ in range(2))
    weights = (first.square() + second.square()).masked_fill(~mask, 0.0)
    return weights / weights.sum(1, keepdim=True)
