"""The divergence over subsets, against lists of all subsets and scipy."""

import itertools
import math

import pytest
import torch
from scipy.special import comb
from scipy.stats import entropy
from torch import Tensor

from attn_lightning.methods.subsets import log_binomial, subset_divergence

LENGTHS = (7, 5, 3, 2, 1)
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def scores_of(seed: int, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(MASK.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def listed(scores: Tensor, k: int) -> Tensor:
    """All subsets of one text, one by one."""
    subsets = list(itertools.combinations(range(len(scores)), min(k, len(scores))))
    weights = torch.stack([torch.stack([scores[t] for t in subset]).sum().exp() for subset in subsets])
    q = weights / weights.sum()
    return sum(p * (torch.log(p) - math.log(1 / len(subsets))) for p in q)  # type: ignore[return-value]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 9])
def test_values_and_gradients_are_those_of_a_list_of_all_subsets(k: int) -> None:
    scores = scores_of(k).requires_grad_()
    found = subset_divergence(scores, MASK, k)
    expected = torch.stack([listed(scores[row, :n], k) for row, n in enumerate(LENGTHS)])
    # Of logarithms of small probabilities: digits of float32 would be 1e-5.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-6)
    for ours, theirs in zip(
        *(torch.autograd.grad(value.sum(), scores, allow_unused=True) for value in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_a_single_word_is_drawn_as_the_gumbel_trick_draws_it() -> None:
    scores = scores_of(0)
    for row, n in enumerate(LENGTHS):
        p = scores[row, :n].softmax(0).numpy()
        assert subset_divergence(scores, MASK, 1)[row].item() == pytest.approx(entropy(p, [1 / n] * n), abs=1e-6)


def test_it_is_0_for_equal_scores_and_log_of_the_subsets_for_certain_ones() -> None:
    mask = torch.ones(1, 240, dtype=torch.bool)
    assert subset_divergence(torch.full((1, 240), 3.0), mask, 10).abs().item() < 1e-3
    certain = torch.zeros(1, 240)
    certain[:, :10] = 1e30
    assert subset_divergence(certain, mask, 10).item() == pytest.approx(math.log(comb(240, 10, exact=True)), rel=1e-4)


def test_padding_and_a_constant_change_nothing_and_extremes_have_gradients() -> None:
    scores = scores_of(1)
    other = scores.masked_fill(~MASK, 1e9) + 5.0
    torch.testing.assert_close(subset_divergence(scores, MASK, 3), subset_divergence(other, MASK, 3))
    wild = (1e30 * scores_of(2)).float().requires_grad_()
    value = subset_divergence(wild, MASK, 3)
    (gradient,) = torch.autograd.grad(value.sum(), wild)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


def test_log_binomial_is_scipys() -> None:
    n, m = torch.tensor([240, 5, 3, 1]), torch.tensor([10, 5, 0, 1])
    expected = [math.log(comb(a, b, exact=True)) for a, b in zip(n.tolist(), m.tolist(), strict=True)]
    assert log_binomial(n, m, 10).tolist() == pytest.approx(expected, rel=1e-6)
