"""Scorers: how much attention a hidden state asks for, before anything is normalized.

Scores are computed in float32 even under autocast, because perturbations of scores are what most methods are about.
"""

import math

import torch
from torch import Tensor, nn

from attn_lightning.checks import check_numbers
from attn_lightning.numerics import at_least_float32, full_precision


class Scorer(nn.Module):
    """Base of every scorer.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Score a batch.

        Args:
            hidden: (B, T, D).
            mask: (B, T) bool.

        Returns:
            (B, T) scores, float32 at least, finite; those of real tokens do not depend on padding.
        """
        raise NotImplementedError


class AdditiveScorer(Scorer):
    """Additive attention with a learned query, `s_t = v^T tanh(W h_t + b)`, so that `|s_t| <= |v|_1`.

    Source: Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, as Jain and Wallace 2019 use it for one text.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
        attention_size: rows of W; null takes half of D.
    """

    def __init__(self, hidden_size: int, attention_size: int | None = None) -> None:
        super().__init__(hidden_size)
        size = max(1, hidden_size // 2) if attention_size is None else attention_size
        check_numbers(self, at_least=1, advice="null takes half of the hidden size", attention_size=size)
        self.projection = nn.Linear(hidden_size, size)
        self.vector = nn.Linear(size, 1, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See `Scorer.forward`."""
        with full_precision(hidden.device.type):
            scores: Tensor = self.vector(torch.tanh(self.projection(at_least_float32(hidden))))
        return scores.squeeze(-1)


class ScaledDotScorer(Scorer):
    """Scaled dot product with a learned query, `s_t = q^T h_t / sqrt(D)`.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1, with one learned query.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.query = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """See `Scorer.forward`."""
        with full_precision(hidden.device.type):
            scores: Tensor = self.query(at_least_float32(hidden)) / math.sqrt(self.hidden_size)
        return scores.squeeze(-1)
