"""From scores to attention."""

from collections.abc import Callable

import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from attn_lightning.backbone.normalizers import (
    Entmax15,
    EntmaxAlpha,
    GumbelTopK,
    Normalizer,
    Softmax,
    Sparsemax,
    Spherical,
    TopK,
    Uniform,
)

NORMALIZERS: list[Callable[[], Normalizer]] = [
    Softmax,
    Uniform,
    Sparsemax,
    Entmax15,
    EntmaxAlpha,
    Spherical,
    TopK,
    lambda: GumbelTopK().eval(),
]
MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])


@pytest.mark.parametrize("build", NORMALIZERS)
def test_attention_is_a_distribution_over_real_tokens(build: Callable[[], Normalizer]) -> None:
    attention = build()(torch.randn(3, 4) * 50, MASK)
    torch.testing.assert_close(attention.sum(-1), torch.ones(3))
    assert torch.all(attention[~MASK] == 0)
    assert torch.all(attention >= 0)


@pytest.mark.parametrize("build", NORMALIZERS)
@pytest.mark.parametrize("value", [-1e9, 1e9, float("nan"), float("inf")])
def test_scores_at_padding_are_ignored(build: Callable[[], Normalizer], value: float) -> None:
    scores = torch.randn(3, 4)
    expected = build()(scores, MASK)
    assert torch.equal(build()(scores.masked_fill(~MASK, value), MASK), expected)


def test_softmax_equals_scipy() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64)
    for row, (ours, mask) in enumerate(zip(Softmax()(scores, MASK), MASK, strict=True)):
        torch.testing.assert_close(ours[mask], torch.from_numpy(softmax(scores[row][mask].numpy())))


def test_uniform_is_one_over_n() -> None:
    expected = torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0], [1, 0, 0, 0], [0.25] * 4])
    torch.testing.assert_close(Uniform()(torch.randn(3, 4), MASK), expected)


def random_scores() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, requires_grad=True)


def test_softmax_can_be_differentiated_as_often_as_it_says() -> None:
    assert Softmax.max_derivatives == 2
    assert torch.autograd.gradgradcheck(lambda scores: Softmax()(scores, MASK), random_scores())


def test_uniform_has_no_derivative() -> None:
    assert Uniform.max_derivatives == 0
    assert not Uniform()(random_scores(), MASK).requires_grad
