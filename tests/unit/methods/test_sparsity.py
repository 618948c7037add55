"""Penalties on attention, against scipy and plain loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.normalizers import Entmax15, Normalizer, Softmax, Sparsemax, TopK, Uniform
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.methods.sparsity import (
    EntropyPenalty,
    MaxPenalty,
    TsallisPenalty,
    attention_entropy,
    largest_weight,
    sum_of_squares,
)
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec
from support.defaults import defaults

MASK = torch.arange(5) < torch.tensor([5, 1, 3])[:, None]
SPEC = DataSpec(2, 20, 4, ("a", "b"))
FORMULAS = (attention_entropy, sum_of_squares, largest_weight)
every_formula = pytest.mark.parametrize("formula", FORMULAS)


def make_attention(normalizer: Normalizer | None = None) -> Tensor:
    scores = 2 * torch.randn(MASK.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (normalizer or Softmax())(scores, MASK)


def make_step(normalizer: type[Normalizer] = Softmax) -> TrainStep:
    torch.manual_seed(0)
    model = AttentionClassifier(SPEC, normalizer=normalizer)
    batch = Batch(torch.randint(1, 20, MASK.shape) * MASK, MASK, torch.tensor([0, 1, 1]), torch.arange(3))

    def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    return TrainStep(model, batch, model(batch.tokens, MASK), task_loss, progress=0.0)


@pytest.mark.parametrize("normalizer", [Softmax(), Sparsemax(), Uniform()])
def test_entropy_equals_scipy(normalizer: Normalizer) -> None:
    attention = make_attention(normalizer)
    expected = [scipy_entropy(row[mask].numpy()) for row, mask in zip(attention, MASK, strict=True)]
    assert attention_entropy(attention, MASK).tolist() == pytest.approx(expected, abs=1e-12)


def test_squares_and_maximum_equal_a_loop() -> None:
    attention = make_attention()
    rows = [row[mask].tolist() for row, mask in zip(attention, MASK, strict=True)]
    assert sum_of_squares(attention, MASK).tolist() == pytest.approx([sum(a * a for a in row) for row in rows])
    assert largest_weight(attention, MASK).tolist() == pytest.approx([max(row) for row in rows])


@every_formula
def test_values_at_padding_are_ignored(formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    attention = make_attention()
    junk = attention.masked_fill(~MASK, 7.0)
    assert torch.equal(formula(junk, MASK), formula(attention, MASK))


@every_formula
@pytest.mark.parametrize("normalizer", [Softmax(), Sparsemax(), Entmax15()])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_gradient_of_scores_is_finite_with_zeros_among_the_weights(
    formula: Callable[[Tensor, Tensor], Tensor], normalizer: Normalizer, scale: float
) -> None:
    scores = (scale * torch.randn(MASK.shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(formula(normalizer(scores, MASK), MASK).sum(), scores)
    assert torch.isfinite(gradient).all()
    assert torch.all(gradient[~MASK] == 0)


@every_formula
@pytest.mark.parametrize("normalizer", [Softmax(), Sparsemax(), Entmax15()])
def test_gradient_of_scores_equals_finite_differences(
    formula: Callable[[Tensor, Tensor], Tensor], normalizer: Normalizer
) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(MASK.shape, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: formula(normalizer(scores, MASK), MASK), scores, atol=1e-4)


@pytest.mark.parametrize(
    ("cls", "formula", "sign"),
    [
        (EntropyPenalty, attention_entropy, 1),
        (TsallisPenalty, sum_of_squares, -1),
        (MaxPenalty, largest_weight, -1),
    ],
)
def test_term_is_the_mean_over_texts(cls: type[Method], formula: Callable[[Tensor, Tensor], Tensor], sign: int) -> None:
    step = make_step()
    term = cls(weight=0.3).loss(step)
    assert term is not None
    assert term.weight == 0.3
    torch.testing.assert_close(term.value, sign * formula(step.output.attention, MASK).mean())


def test_sdc_form_mixes_task_loss_and_entropy() -> None:
    step, k = make_step(), 0.3
    method = EntropyPenalty(weight=k, form="sdc")
    term, weights = method.loss(step), method.example_weights(step)
    assert weights is not None
    assert weights.shape == (3,)
    losses = step.task_loss(step.output.logits, step.batch.labels)
    total = (weights * losses).mean() + term.weight * term.value
    expected = (1 - k) * losses.mean() + k * attention_entropy(step.output.attention, MASK).mean()
    torch.testing.assert_close(total, expected)


def test_plain_form_and_weight_zero_leave_the_task_loss_alone() -> None:
    assert EntropyPenalty(weight=0.3).example_weights(make_step()) is None
    assert EntropyPenalty(weight=0.0, form="sdc").example_weights(make_step()) is None


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="below 1"):
        EntropyPenalty(weight=1.0, form="sdc")
    with pytest.raises(ConfigurationError, match="form"):
        EntropyPenalty(form="other")  # type: ignore[arg-type]
    assert EntropyPenalty(weight=1.0).weight == 1.0


@pytest.mark.parametrize("cls", [EntropyPenalty, TsallisPenalty, MaxPenalty])
def test_attention_without_a_derivative_is_refused(cls: type[Method]) -> None:
    for normalizer in (Uniform, TopK):
        with pytest.raises(ConfigurationError, match=normalizer.__name__):
            check_requirements(cls(), AttentionClassifier(SPEC, normalizer=normalizer))
    check_requirements(cls(), AttentionClassifier(SPEC, normalizer=Sparsemax))


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (EntropyPenalty, {"weight": 0.1, "form": "plain"}),
        (TsallisPenalty, {"weight": 1.0}),
        (MaxPenalty, {"weight": 1.0}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected


def test_a_form_that_is_none_names_the_method():
    with pytest.raises(ConfigurationError, match=r"`form` of EntropyPenalty to be one of .*, but got 'other'"):
        EntropyPenalty(form="other")
