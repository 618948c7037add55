"""Normalizers with zeros among their weights, against sorting and bisection loops and finite differences."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
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
    top_k_selection,
)
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.numerics import masked_softmax
from attn_lightning.types import DataSpec

LENGTHS = torch.tensor([7, 1, 4, 2])
MASK = torch.arange(7) < LENGTHS[:, None]
SPARSE: dict[str, Callable[[], Normalizer]] = {
    "sparsemax": Sparsemax,
    "entmax15": Entmax15,
    "alpha1.2": partial(EntmaxAlpha, 1.2),
    "alpha1.5": EntmaxAlpha,
    "alpha2": partial(EntmaxAlpha, 2.0),
}
SMOOTH = {**SPARSE, "spherical": Spherical}
DETERMINISTIC = {**SMOOTH, "top_k": partial(TopK, 2)}
every_sparse = pytest.mark.parametrize("build", SPARSE.values(), ids=SPARSE)
every_smooth = pytest.mark.parametrize("build", SMOOTH.values(), ids=SMOOTH)
every_deterministic = pytest.mark.parametrize("build", DETERMINISTIC.values(), ids=DETERMINISTIC)
every_scale = pytest.mark.parametrize("scale", [1e-5, 1e-2, 1.0, 3.0, 100.0, 1e4])


def make_scores(scale: float = 1.0, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return scale * torch.randn(MASK.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rows(scores: Tensor) -> list[np.ndarray]:
    """The real tokens of every text."""
    return [row[mask].numpy() for row, mask in zip(scores, MASK, strict=True)]


def simplex_projection(point: np.ndarray) -> np.ndarray:
    """Held, Wolfe and Crowder 1974, by a sorted loop."""
    threshold, total = 0.0, 0.0
    for count, value in enumerate(sorted(point, reverse=True), start=1):
        total += value
        if value - (total - 1) / count > 0:
            threshold = (total - 1) / count
    return np.maximum(point - threshold, 0)


def entmax_by_root(scores: np.ndarray, alpha: float) -> np.ndarray:
    def weights(threshold: float) -> np.ndarray:
        return np.maximum((alpha - 1) * scores - threshold, 0) ** (1 / (alpha - 1))

    highest = (alpha - 1) * scores.max()
    return weights(brentq(lambda threshold: weights(threshold).sum() - 1, highest - 1.1, highest, xtol=1e-15))


@every_scale
def test_sparsemax_is_the_projection_on_the_simplex(scale: float) -> None:
    scores = make_scores(scale)
    for got, row in zip(rows(Sparsemax()(scores, MASK)), rows(scores), strict=True):
        np.testing.assert_allclose(got, simplex_projection(row), atol=1e-11)


@every_scale
@pytest.mark.parametrize(
    ("build", "alpha"),
    [(Entmax15, 1.5), *((partial(EntmaxAlpha, alpha), alpha) for alpha in (1.05, 1.2, 1.5, 1.8, 2.0))],
)
def test_entmax_is_the_root_of_its_equation(build: Callable[[], Normalizer], alpha: float, scale: float) -> None:
    scores = make_scores(scale)
    for got, row in zip(rows(build()(scores, MASK)), rows(scores), strict=True):
        np.testing.assert_allclose(got, entmax_by_root(row, alpha), atol=1e-9)


def test_entmax_near_order_one_is_close_to_softmax() -> None:
    scores = make_scores()
    torch.testing.assert_close(EntmaxAlpha(1.01)(scores, MASK), masked_softmax(scores, MASK), atol=0.01, rtol=0.0)


@every_scale
def test_spherical_is_the_share_of_squares(scale: float) -> None:
    scores = make_scores(scale)
    for got, row in zip(rows(Spherical()(scores, MASK)), rows(scores), strict=True):
        np.testing.assert_allclose(got, row**2 / sum(value**2 for value in row), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    scores = make_scores(dtype=torch.float32).requires_grad_()
    attention = Spherical()(scores * scale, MASK)
    torch.testing.assert_close(attention, Spherical()(scores, MASK))
    (gradient,) = torch.autograd.grad(attention.square().sum(), scores)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 1e-3


def test_spherical_of_zeros_is_uniform_without_gradient() -> None:
    scores = torch.zeros(MASK.shape, requires_grad=True)
    attention = Spherical()(scores, MASK)
    assert torch.equal(attention, MASK / LENGTHS[:, None])
    (gradient,) = torch.autograd.grad(attention.square().sum(), scores)
    assert torch.equal(gradient, torch.zeros_like(scores))


@every_deterministic
@every_scale
def test_float32_rows_sum_to_one(build: Callable[[], Normalizer], scale: float) -> None:
    mask = torch.arange(300) < torch.tensor([300, 17, 1])[:, None]
    attention = build()(scale * torch.randn(3, 300), mask)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(-1), torch.ones(3))
    assert torch.all(attention >= 0)
    assert torch.all(attention[~mask] == 0)


@every_sparse
def test_far_scores_get_exactly_nothing(build: Callable[[], Normalizer]) -> None:
    scores = torch.tensor([[0.0, 0.1, -30.0, -0.1, -6.0]], requires_grad=True)
    attention = build()(scores, torch.ones(1, 5, dtype=torch.bool))
    assert (attention == 0).tolist() == [[False, False, True, False, True]]
    (gradient,) = torch.autograd.grad(attention[0, 0], scores)
    assert torch.all(gradient[attention == 0] == 0)
    assert torch.all(gradient[attention > 0] != 0)


@every_deterministic
def test_order_of_tokens_changes_nothing(build: Callable[[], Normalizer]) -> None:
    scores, order, mask = make_scores(), torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.ones_like(MASK)
    torch.testing.assert_close(build()(scores[:, order], mask), build()(scores, mask)[:, order])


@every_deterministic
def test_amount_of_padding_changes_nothing(build: Callable[[], Normalizer]) -> None:
    scores = make_scores()
    expected = build()(scores, MASK)
    more = torch.nn.functional.pad(scores, (0, 9), value=123.0)
    got = build()(more, torch.nn.functional.pad(MASK, (0, 9)))
    torch.testing.assert_close(got[:, :7], expected, atol=1e-12, rtol=1e-12)
    assert torch.all(got[:, 7:] == 0)


@every_smooth
def test_a_constant_shift_matters_only_to_squares(build: Callable[[], Normalizer]) -> None:
    scores = make_scores()
    same = torch.allclose(build()(scores + 5, MASK), build()(scores, MASK), atol=1e-9)
    assert same == (build is not Spherical)


def at(values: list[list[float]]) -> tuple[Tensor, Tensor]:
    scores = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    return scores, torch.ones_like(scores, dtype=torch.bool)


POINTS = {
    "ties": at([[0.5, 0.5, 0.5, 0.5], [1.0, 0.2, 0.2, 1.0], [3.0, 3.0, -9.0, -9.0]]),
    "one token": at([[0.7], [-2.0]]),
    "tiny": at([[1e-5, -2e-5, 3e-5, 2e-5]]),
    "huge": at([[1e4, -1e4, 5e3, 1e4], [1e4, 1e4 + 0.3, 1e4 - 0.4, 3.0]]),
    "mixed": (make_scores().requires_grad_(), MASK),
    "zeros among the weights": (make_scores(4.0, seed=1).requires_grad_(), MASK),
}
every_point = pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)


def step_of(scores: Tensor) -> float:
    """Finite differences must be small against tiny scores, whose squares bend quickly, and large against rounding."""
    return 1e-9 if scores.abs().max() < 1e-3 else 1e-6


@every_smooth
@every_point
def test_gradient_equals_finite_differences(build: Callable[[], Normalizer], point: tuple[Tensor, Tensor]) -> None:
    scores, mask = point
    tolerance = {"atol": 2e-4, "rtol": 2e-3}
    assert torch.autograd.gradcheck(lambda scores: build()(scores, mask), scores, eps=step_of(scores), **tolerance)


TWICE = {name: build for name, build in SMOOTH.items() if build().max_derivatives == 2}


@pytest.mark.parametrize("build", TWICE.values(), ids=TWICE)
@every_point
def test_second_derivative_where_promised(build: Callable[[], Normalizer], point: tuple[Tensor, Tensor]) -> None:
    scores, mask = point
    if build is Spherical and scores.abs().max() < 1e-3:
        scores = (scores.detach() * 1e3).requires_grad_()  # its second derivative is of size 1e10 at the tiny ones
    assert torch.autograd.gradgradcheck(lambda scores: build()(scores, mask), scores, atol=1e-3, rtol=1e-3)


def test_bisection_has_no_second_derivative_and_says_so() -> None:
    scores, mask = at([[0.0, 0.1, -9.0]])
    (first,) = torch.autograd.grad(EntmaxAlpha()(scores, mask).square().sum(), scores, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), scores)
    assert torch.isnan(second).any()
    assert EntmaxAlpha.max_derivatives == 1


@every_deterministic
def test_gradient_at_padding_is_zero_and_finite_elsewhere(build: Callable[[], Normalizer]) -> None:
    scores = make_scores(dtype=torch.float32).masked_fill(~MASK, float("nan")).requires_grad_()
    (gradient,) = torch.autograd.grad(build()(scores, MASK).square().sum(), scores)
    assert torch.all(gradient[~MASK] == 0)
    assert torch.isfinite(gradient).all()


def test_top_k_by_hand() -> None:
    scores = torch.tensor([[0.3, 2.0, -1.0, 0.9], [5.0, 5.0, 5.0, 9.0], [1.0, 7.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
    expected = [[0, 0.5, 0, 0.5], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]]
    assert top_k_selection(scores, mask, 2).tolist() == expected
    assert TopK(2)(scores, mask).tolist() == expected


@pytest.mark.parametrize("normalizer", [TopK(2), GumbelTopK(2, temperature=0.5).eval()])
def test_hard_choice_has_the_gradient_of_softmax(normalizer: TopK) -> None:
    scores, weights = make_scores().requires_grad_(), make_scores(seed=5)
    (got,) = torch.autograd.grad((normalizer(scores, MASK) * weights).sum(), scores)
    temperature = getattr(normalizer, "temperature", 1.0)
    (expected,) = torch.autograd.grad((masked_softmax(scores / temperature, MASK) * weights).sum(), scores)
    torch.testing.assert_close(got, expected)


def test_k_beyond_the_text_takes_all_tokens_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    normalizer = TopK(5)
    with caplog.at_level(logging.WARNING, logger="attn_lightning"):
        attention = normalizer(make_scores(), MASK)
        normalizer(make_scores(), MASK)
    assert attention[1:].count_nonzero(-1).tolist() == [1, 4, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "TopK: a text of 1 tokens has fewer than k = 5; it keeps all"
    ]


def test_gumbel_draws_tokens_with_the_probabilities_of_softmax() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[0.0, 1.0, -1.0, 0.5, 9.0]]).expand(20_000, -1)
    mask = torch.tensor([[True] * 4 + [False]]).expand_as(scores)
    attention = GumbelTopK(1)(scores, mask)
    assert set(attention.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(attention.mean(0), masked_softmax(scores, mask)[0], atol=0.015, rtol=0.0)
    # Without replacement: the pair {a, b} has the probability p_a p_b / (1 - p_a) + p_b p_a / (1 - p_b).
    pair = (GumbelTopK(2)(scores, mask)[:, :2] > 0).all(-1).float().mean()
    p, q = masked_softmax(scores, mask)[0, :2].tolist()
    assert pair.item() == pytest.approx(p * q / (1 - p) + p * q / (1 - q), abs=0.015)


def test_gumbel_evaluates_without_noise() -> None:
    normalizer = GumbelTopK(2).eval()
    assert torch.equal(normalizer(make_scores(), MASK), TopK(2)(make_scores(), MASK))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (partial(TopK, 0), "`k` of TopK"),
        (partial(GumbelTopK, -1), "`k` of GumbelTopK"),
        (partial(GumbelTopK, 2, 0.0), "temperature"),
        (partial(GumbelTopK, 2, float("nan")), "temperature"),
        (partial(EntmaxAlpha, 1.0), "alpha"),
        (partial(EntmaxAlpha, 2.5), "alpha"),
        (partial(EntmaxAlpha, float("nan")), "alpha"),
    ],
)
def test_arguments_out_of_range_are_refused(build: Callable[[], Normalizer], name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        build()


def test_normalizers_declare_how_often_they_can_be_differentiated() -> None:
    declared = {cls.__name__: cls.max_derivatives for cls in (Softmax, Sparsemax, Entmax15, EntmaxAlpha, Spherical)}
    assert declared == {"Softmax": 2, "Sparsemax": 2, "Entmax15": 2, "EntmaxAlpha": 1, "Spherical": 2}
    # The gradient of a hard choice is a stand-in.
    assert TopK.max_derivatives == GumbelTopK.max_derivatives == 0


class Twice(Method):
    """Needs second derivatives by the scores."""

    differentiates = Differentiates.SCORES_TWICE


class Once(Method):
    """Needs first derivatives by the scores."""

    differentiates = Differentiates.SCORES


@pytest.mark.parametrize(
    ("method", "normalizer", "served"),
    [
        (Twice, EntmaxAlpha, False),
        (Once, EntmaxAlpha, True),
        (Twice, Sparsemax, True),
        (Twice, Entmax15, True),
        (Once, TopK, False),
        (Once, GumbelTopK, False),
        (Method, GumbelTopK, True),
    ],
)
def test_combinations_that_break_are_refused(method: type[Method], normalizer: type[Normalizer], served: bool) -> None:
    model = AttentionClassifier(DataSpec(2, 5, 4, ("a", "b")), normalizer=normalizer)
    if served:
        check_requirements(method(), model)
    else:
        with pytest.raises(ConfigurationError, match=normalizer.__name__):
            check_requirements(method(), model)


def gradients_of_one_step(**options: Any) -> dict[str, Tensor | None]:
    model = AttentionClassifier(DataSpec(2, 20, 4, ("a", "b")), **options)
    tokens = torch.randint(1, 20, MASK.shape) * MASK
    model(tokens, MASK).logits.square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("options", [{"freeze_scorer": True}, {"normalizer": Uniform}])
def test_frozen_and_unused_scorers_are_left_out_of_the_training(options: dict[str, Any]) -> None:
    found = gradients_of_one_step(**options)
    assert not any(name.startswith("scorer") for name in found)
    assert all(gradient is not None for gradient in found.values())


@pytest.mark.parametrize("normalizer", [Sparsemax, Entmax15, EntmaxAlpha, Spherical, TopK, GumbelTopK])
def test_every_parameter_is_trained(normalizer: type[Normalizer]) -> None:
    found = gradients_of_one_step(normalizer=normalizer)
    assert any(name.startswith("scorer") for name in found)
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in found.values())
