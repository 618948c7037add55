"""Scorers: how much attention a hidden state asks for, before anything is normalized.

Scores are computed in float32 even under autocast, because perturbations of scores are what most methods are about.
"""

import math

import torch
from torch import Tensor, nn

from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision


class Scorer(nn.Module):
    """Base of every scorer.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size

    def condition(self) -> None:
        """Make room for a query: in data of pairs the backbone calls this once, and `forward` then gets
        the (B, D) second text as a third argument, `query`.

        Raises:
            ConfigurationError: the scorer reads one text only.
        """
        raise ConfigurationError(
            f"Expected a scorer that takes a second text, such as AdditiveScorer or ScaledDotScorer, but got "
            f"{type(self).__name__}; use one of them, or define `condition`."
        )

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

    With a second text `s_t = v^T tanh(W h_t + U q + b)`.

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
        # No bias: the same number on every score of a text changes no attention.
        self.vector = nn.Linear(size, 1, bias=False)

    def condition(self) -> None:
        """See `Scorer.condition`: adds U."""
        self.query = nn.Linear(self.hidden_size, self.projection.out_features, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor, query: Tensor | None = None) -> Tensor:
        """See `Scorer.forward`."""
        with full_precision(hidden.device.type):
            projected = self.projection(at_least_float32(hidden))
            if query is not None:
                projected = projected + self.query(at_least_float32(query)).unsqueeze(1)
            scores: Tensor = self.vector(torch.tanh(projected))
        return scores.squeeze(-1)


class ScaledDotScorer(Scorer):
    """Scaled dot product with a learned query, `s_t = q^T h_t / sqrt(D)`; with a second text q is that text.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1, with one learned query.

    Args:
        hidden_size: D, size of a hidden state; the backbone gives it.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.query: nn.Linear | None = nn.Linear(hidden_size, 1, bias=False)

    def condition(self) -> None:
        """See `Scorer.condition`: the learned query goes."""
        # The second text is the query from now on, as in the published models of pairs.
        self.query = None

    def forward(self, hidden: Tensor, mask: Tensor, query: Tensor | None = None) -> Tensor:
        """See `Scorer.forward`."""
        with full_precision(hidden.device.type):
            if self.query is None:
                assert query is not None, "condition() was called for pairs"
                given = at_least_float32(query).unsqueeze(-1)
                return torch.bmm(at_least_float32(hidden), given).squeeze(-1) / math.sqrt(self.hidden_size)
            scores: Tensor = self.query(at_least_float32(hidden)) / math.sqrt(self.hidden_size)
        return scores.squeeze(-1)
