"""Normalizers: what turns scores into attention, that is into weights that sum to 1 over the real tokens."""

from typing import ClassVar

from torch import Tensor, nn

from attn_lightning.numerics import masked_softmax


class Normalizer(nn.Module):
    """Base of every normalizer.

    Attributes:
        max_derivatives: how many times attention can be differentiated by the scores with finite results that mean
            something: 0 if the scores are ignored, 1 for first-order methods only, 2 for all methods.
    """

    max_derivatives: ClassVar[int]

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Normalize a batch.

        Args:
            scores: (B, T) any finite numbers; values at padding are ignored.
            mask: (B, T) bool, at least one True per row.

        Returns:
            (B, T) attention in [0, 1], in the type of the scores; rows sum to 1, exactly 0 at padding.
        """
        raise NotImplementedError


class Softmax(Normalizer):
    """Softmax over the real tokens, `a_t = exp(s_t) / sum_u exp(s_u)`: every real token gets some attention."""

    max_derivatives: ClassVar[int] = 2

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return masked_softmax(scores, mask)


class Uniform(Normalizer):
    """The same weight for all n real tokens, `a_t = 1 / n`, whatever the scores are: the control of attention.

    Methods that perturb or differentiate scores have nothing to act on here.

    Source: Wiegreffe and Pinter 2019, https://aclanthology.org/D19-1002, section 3.2.
    """

    max_derivatives: ClassVar[int] = 0

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return mask.to(scores.dtype) / mask.sum(-1, keepdim=True)
