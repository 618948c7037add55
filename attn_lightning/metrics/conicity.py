"""How narrow the cone is in which the hidden states of a text lie.

Where all states point the same way, any attention gives about the same context, so the weights explain little.
"""

import torch
from torch import Tensor

from attn_lightning.metrics.measure import Measure
from attn_lightning.numerics import at_least_float32, unit_vectors

CONICITY = Measure(
    "conicity", "mean cosine of a text's hidden states to their mean", minimum=-1.0, higher_is_better=False
)
ABSOLUTE_CONICITY = Measure(
    "absolute_conicity", "mean absolute cosine of a text's hidden states to their mean", higher_is_better=False
)


def conicity(hidden: Tensor, mask: Tensor, *, absolute: bool = False) -> Tensor:
    """Mean cosine of the hidden states of a text to their mean, `1/n sum_t cos(h_t, 1/n sum_s h_s)`.

    Args:
        hidden: (B, T, D) any floating type; half precision is taken as float32.
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
    real = at_least_float32(hidden.detach()).masked_fill(~mask.unsqueeze(-1), 0.0)
    direction = unit_vectors(real.sum(1))
    cosines = torch.einsum("btd,bd->bt", unit_vectors(real, start_dim=2), direction)
    if absolute:
        cosines = cosines.abs()
    directed = (real != 0).any(-1).sum(1)
    mean = cosines.sum(1) / directed.clamp_min(1)
    defined = (mask.sum(1) >= 2) & (direction != 0).any(-1)
    return torch.where(defined, mean.clamp(-1, 1), torch.nan)
