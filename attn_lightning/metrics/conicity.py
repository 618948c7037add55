"""How narrow the cone is in which the hidden states of a text lie.

Where all states point the same way, any attention gives about the same context, so the weights explain little.
"""

import torch
from torch import Tensor
from torch.nn import functional

from attn_lightning.metrics.measure import Measure
from attn_lightning.numerics import at_least_float32

CONICITY = Measure("conicity", "mean cosine of a text's states to their mean", -1.0, higher_is_better=False)
ABSOLUTE_CONICITY = Measure("absolute_conicity", "mean |cosine| of states to their mean", higher_is_better=False)


def conicity(hidden: Tensor, mask: Tensor, *, absolute: bool = False) -> Tensor:
    """Mean cosine of the hidden states of a text to their mean, `1/n sum_t cos(h_t, 1/n sum_s h_s)`.

    Args:
        hidden: (B, T, D) any floating type; half precision is taken as float32. Its gradient is finite.
        mask: (B, T) bool, at least one True per row; states at padding are ignored, whatever they are.
        absolute: take the mean of `|cos|` instead.

    Returns:
        (B,) in [-1, 1], or [0, 1] with `absolute`; 1 if all states have one direction. States of n independent random
        directions in a large space give about `1 / sqrt(n)`. A state that is exactly 0 has no direction and is left
        out of the mean of cosines. NaN for a text of one token and where the mean state is exactly 0.

    Source: Chandrahas et al. 2018, https://aclanthology.org/P18-1012; for attention Mohankumar et al. 2020,
    https://aclanthology.org/2020.acl-main.387.
    Cost: two passes over the states, no product of states with states.
    """
    real, lengths = at_least_float32(hidden).masked_fill(~mask.unsqueeze(-1), 0.0), mask.sum(1)
    # Scaled by text before the sum and by vector after: neither step can under- or overflow.
    mean = _near_one(_near_one(real, (1, 2)).sum(1) / lengths.unsqueeze(1), (1,))
    cosines = functional.cosine_similarity(_near_one(real, (2,)), mean.unsqueeze(1), dim=-1)
    if absolute:
        cosines = cosines.abs()
    # `cosine_similarity` gives 0 for a zero vector, which would count as a right angle.
    directed = (real != 0).any(-1).sum(1)
    average = cosines.sum(1) / directed.clamp_min(1)
    defined = (lengths >= 2) & (mean != 0).any(-1)
    return torch.where(defined, average.clamp(-1, 1), torch.nan)


def _near_one(vectors: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Vectors times a power of two that brings their largest entry near 1: exact, so that no digit of a cosine changes.

    The smallest length that torch divides by is 1e-8, below which it would call two parallel vectors orthogonal.
    """
    exponent = vectors.detach().abs().amax(axes, keepdim=True).frexp().exponent
    # Not `torch.ldexp`, whose gradient is 0.
    return vectors * torch.exp2(-exponent.clamp_min(-126).to(vectors))
