"""Normalizers: what turns scores into attention, that is into weights that sum to 1 over the real tokens."""

import logging
import math
from typing import ClassVar

import entmax
import torch
from torch import Tensor, nn

from attn_lightning.checks import check_numbers
from attn_lightning.numerics import masked_softmax

_logger = logging.getLogger(__name__)


def _below_largest(scores: Tensor, mask: Tensor, depth: float) -> Tensor:
    """Scores minus the largest of their row, nothing lower than `-depth`, where padding is put.

    A sparse normalizer gives weight 0 to everything that far below the largest score. Keeping it finite avoids the
    NaN that squares of -inf, or of the smallest float, make inside of it.
    """
    scores = scores.masked_fill(~mask, -math.inf)
    # Detached: the shift cancels in what follows, and its gradient would only add rounding.
    return (scores - scores.detach().amax(-1, keepdim=True)).clamp_min(-depth)


def sparsemax(scores: Tensor, mask: Tensor) -> Tensor:
    """`argmin_a ||a - s||_2` over the distributions on the real tokens; shapes as in `Normalizer.forward`."""
    attention: Tensor = entmax.sparsemax(_below_largest(scores, mask, 2.0), dim=-1)
    return attention


def entmax15(scores: Tensor, mask: Tensor) -> Tensor:
    """`a_t = max(0, s_t / 2 - tau)^2` with the tau that makes a sum of 1; shapes as in `Normalizer.forward`.

    The package finds which tokens get weight. On those, tau is a root of a quadratic equation, and that formula can
    be differentiated any number of times; the package's own backward takes the root of weights that are 0, where
    second derivatives are NaN.
    """
    # Nothing 2 below the largest score gets weight, so that 4 is far enough to be out and near enough to be squared.
    halves = _below_largest(scores, mask, 4.0) / 2
    support: Tensor = entmax.entmax15(2 * halves.detach(), dim=-1) > 0
    size = support.sum(-1, keepdim=True)
    # On the support S: `sum_S (s/2 - tau)^2 = 1` gives `tau = mean - sqrt((1 - sum_S (s/2 - mean)^2) / |S|)`.
    mean = halves.masked_fill(~support, 0.0).sum(-1, keepdim=True) / size
    spread = (halves - mean).masked_fill(~support, 0.0).square().sum(-1, keepdim=True)
    threshold = mean - ((1 - spread) / size).sqrt()
    # The support is a constant almost everywhere, hence the derivatives of the formula are those of entmax.
    return (halves - threshold).masked_fill(~support, 0.0).square()


def entmax_alpha(scores: Tensor, mask: Tensor, alpha: float) -> Tensor:
    """`a_t = max(0, (alpha - 1) s_t - tau)^(1 / (alpha - 1))` by bisection; shapes as in `Normalizer.forward`.

    Args:
        scores: (B, T).
        mask: (B, T) bool.
        alpha: in (1, 2].
    """
    # Each round halves the error: 30 reach the last bit of float32, 50 nearly that of float64.
    num_rounds = 50 if scores.dtype == torch.float64 else 30
    shifted = _below_largest(scores, mask, 2 / (alpha - 1))
    attention: Tensor = entmax.entmax_bisect(shifted, alpha=alpha, dim=-1, n_iter=num_rounds)
    return attention


def spherical_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """`a_t = s_t^2 / sum_u s_u^2`; equal weights where all scores are 0; shapes as in `Normalizer.forward`.

    The largest score is divided out first, which changes neither value nor gradient, so that no square overflows or
    vanishes.
    """
    scores = scores.masked_fill(~mask, 0.0)
    largest = scores.detach().abs().amax(-1, keepdim=True)
    undefined = largest == 0
    # The denominator is filled too: `where` hides a 0 / 0 in the value, but its gradient would be NaN.
    scaled = torch.where(undefined, mask.to(scores.dtype), scores / largest.masked_fill(undefined, 1.0))
    squares = scaled.square()
    return squares / squares.sum(-1, keepdim=True)


def top_k_selection(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """`1 / k` for the k real tokens with the highest scores, 0 for the others; no gradient.

    Args:
        scores: (B, T).
        mask: (B, T) bool.
        k: tokens to choose, all of them in texts with fewer; of equal scores the first tokens are chosen.

    Returns:
        (B, T), rows sum to 1.
    """
    # Sorted and not `topk`, which does not say which of equal scores it takes.
    order = scores.detach().masked_fill(~mask, -math.inf).argsort(dim=-1, descending=True, stable=True)
    num_chosen = mask.sum(-1, keepdim=True).clamp_max(k)
    # The inverse of the order is the rank of every token.
    return (order.argsort(dim=-1) < num_chosen).to(scores.dtype) / num_chosen


class Normalizer(nn.Module):
    """Base of every normalizer.

    Attributes:
        max_derivatives: how many times attention can be differentiated by the scores with finite results that mean
            something: 0 if the scores are ignored or their gradient is a stand-in, 1 for first-order methods only, 2
            for all methods.
        uses_scores: whether attention depends on the scores at all; if not, the scorer is not trained.
    """

    max_derivatives: ClassVar[int]
    uses_scores: ClassVar[bool] = True

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
    uses_scores: ClassVar[bool] = False

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return mask.to(scores.dtype) / mask.sum(-1, keepdim=True)


class Sparsemax(Normalizer):
    """Euclidean projection of the scores onto the distributions, `a_t = max(0, s_t - tau)`: most tokens get exactly 0.

    A token more than 1 below the highest score gets nothing, and no gradient either. The second derivative is 0
    wherever it exists.

    Source: Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068; implementation of the `entmax` package.
    Cost: one sort per text.
    """

    max_derivatives: ClassVar[int] = 2

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return sparsemax(scores, mask)


class Entmax15(Normalizer):
    """Entmax with alpha = 1.5, `a_t = max(0, s_t / 2 - tau)^2`: between softmax and sparsemax, with a smooth edge.

    A token more than 2 below the highest score gets exactly 0 and no gradient. Second derivatives are finite also
    with zeros among the weights.

    Source: Peters et al. 2019, https://arxiv.org/abs/1905.05702, algorithm 2. The `entmax` package finds the tokens
    that get weight; gradients are those of the closed form on them.
    Cost: one sort per text.
    """

    max_derivatives: ClassVar[int] = 2

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return entmax15(scores, mask)


class EntmaxAlpha(Normalizer):
    """Entmax of any order, `a_t = max(0, (alpha - 1) s_t - tau)^(1 / (alpha - 1))`, with tau by bisection.

    A token more than `1 / (alpha - 1)` below the highest score gets exactly 0 and no gradient. Methods that
    differentiate twice are refused: second derivatives are NaN where a weight is 0. `Entmax15` and `Sparsemax` are
    the same at 1.5 and 2, faster, and can be differentiated twice.

    Source: Peters et al. 2019, https://arxiv.org/abs/1905.05702, algorithm 1; implementation of the `entmax` package.
    Cost: 30 rounds of bisection.

    Args:
        alpha: order, above 1 (softmax is the limit) and at most 2 (sparsemax); it is not learned.

    Raises:
        ConfigurationError: `alpha` is out of its range.
    """

    max_derivatives: ClassVar[int] = 1

    def __init__(self, alpha: float = 1.5) -> None:
        super().__init__()
        check_numbers(self, at_least=1.01, at_most=2, advice="use Softmax for 1", alpha=alpha)
        self.alpha = alpha

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return entmax_alpha(scores, mask, self.alpha)


class Spherical(Normalizer):
    """Squared scores, `a_t = s_t^2 / sum_u s_u^2`: only the ratios of the scores count, not their size or sign.

    It is undefined where all scores of a text are exactly 0; such a text gets equal weights and no gradient. Near
    that point gradients grow as 1 over the largest score.

    Source: spherical softmax, de Brebisson and Vincent 2016, https://arxiv.org/abs/1511.05042.
    """

    max_derivatives: ClassVar[int] = 2

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return spherical_softmax(scores, mask)


class TopK(Normalizer):
    """Selection of k tokens, `a_t = 1 / k` for the k highest scores and 0 for all other tokens.

    The gradient is that of softmax in its place (straight-through), so the scorer learns although the choice has no
    derivative. Methods that perturb or differentiate scores are refused: they would act on the stand-in. Of equal
    scores the first tokens are chosen. A text of fewer than k tokens keeps all of them, which is logged once.

    Source: straight-through estimator, Bengio et al. 2013, https://arxiv.org/abs/1308.3432.

    Args:
        k: tokens that get attention, 1 or more.

    Raises:
        ConfigurationError: `k` is out of its range.
    """

    max_derivatives: ClassVar[int] = 0

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        check_numbers(self, at_least=1, k=k)
        self.k = k
        self._logged = False

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        return self._straight_through(scores, scores, mask)

    def _straight_through(self, scores: Tensor, surrogate: Tensor, mask: Tensor) -> Tensor:
        """The hard choice by `scores`, with the gradient of the softmax of `surrogate`."""
        self._log_short_texts(mask)
        soft = masked_softmax(surrogate, mask)
        # The bracket is exactly 0 in the value and the softmax in the gradient; in this order the sum rounds nothing.
        return top_k_selection(scores, mask, self.k) + (soft - soft.detach())

    def _log_short_texts(self, mask: Tensor) -> None:
        if self._logged:
            return
        # Waits for a GPU at each step until the first short text; after that never again.
        shortest = int(mask.sum(-1).min())
        if shortest < self.k:
            self._logged = True
            name = type(self).__name__
            _logger.warning("%s: a text of %d tokens has fewer than k = %d; it keeps all", name, shortest, self.k)


class GumbelTopK(TopK):
    """Sampled selection: `a_t = 1 / k` for the k highest of `s_t + g_t`, `g_t` Gumbel noise, while training.

    This draws k tokens without replacement, each in turn with its softmax probability among those left. Evaluation
    takes the k highest scores. The gradient is that of `softmax((s + g) / temperature)` in its place
    (straight-through). Methods that perturb or differentiate scores are refused. Every pass while training draws
    anew: a method that perturbs words compares two draws. Texts with fewer than k tokens keep all of them, see TopK.

    Source: Gumbel top-k trick, Kool et al. 2019, https://arxiv.org/abs/1903.06059; straight-through Gumbel softmax,
    Jang et al. 2017, https://arxiv.org/abs/1611.01144.

    Args:
        k: tokens that get attention, 1 or more.
        temperature: of the softmax that lends its gradient, above 0; lower is closer to the hard choice, with
            gradients of more variance.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(self, k: int = 5, temperature: float = 1.0) -> None:
        super().__init__(k)
        check_numbers(self, above=0, temperature=temperature)
        self.temperature = temperature

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """See `Normalizer.forward`."""
        if self.training:
            # Half the squared length of a Gaussian pair is exponential; `check_method` can hold this noise still.
            exponential = (torch.randn_like(scores).square() + torch.randn_like(scores).square()) / 2
            scores = scores - exponential.log()
        return self._straight_through(scores, scores / self.temperature, mask)
