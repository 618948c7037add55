"""The relation loss against a literal loop with finite differences, hand derivations and scipy."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Softmax, Uniform
from attn_lightning.backbone.scorers import AdditiveScorer, ScaledDotScorer, Scorer
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Differentiates
from attn_lightning.methods.relation import (
    GradientPath,
    Output,
    Relation,
    Sigma,
    Target,
    attention_times_value,
    gradient_times_state,
    log_gradient_distribution,
    measured_output,
)
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, Batch, DataSpec
from support.defaults import defaults

SPEC = DataSpec(3, 12, 5, ("a", "b", "c"))
OUTPUTS: tuple[Output, ...] = ("logit", "probability", "loss")
PATHS: tuple[GradientPath, ...] = ("full", "context")
per_example = partial(F.cross_entropy, weight=torch.tensor([1.0, 2.0, 0.5]).double(), reduction="none")


class OwnAttend(AttentionClassifier):
    """The same model, but nobody may know that its head is linear."""

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        return super().attend(hidden, scores, mask, attention)


def make_model(
    cls: type[AttentionClassifier] = AttentionClassifier, scorer: type[Scorer] = ScaledDotScorer
) -> AttentionClassifier:
    torch.manual_seed(0)
    model = cls(SPEC, encoder=lambda size: Average(size, 6), scorer=scorer).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


def make_batch() -> Batch:
    tokens = torch.tensor([[3, 5, 2, 7], [4, 9, 0, 0], [6, 0, 0, 0]])
    return Batch(tokens, tokens > 0, torch.tensor([2, 0, 1]), torch.arange(3))


def make_step(model: AttentionClassifier) -> TrainStep:
    batch = make_batch()
    return TrainStep(model, batch, model(batch.tokens, batch.mask), per_example, progress=0.0)


def term_value(method: Relation, step: TrainStep) -> Tensor:
    return method.loss(step).value


def gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = list(model.parameters())
    return list(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True))


def measured(step: TrainStep, output: Output) -> Callable[[Tensor], Tensor]:
    return lambda logits: measured_output(output, step.task_loss)(logits, step.batch.labels)


def by_finite_differences(step: TrainStep, output: Output, path: GradientPath) -> np.ndarray:
    """g token by token: y is moved along each state, h_t (1 + d) and h_t (1 - d)."""
    clean, model, delta = step.output, step.model, 1e-6
    found = np.zeros(clean.mask.shape)
    with torch.no_grad():
        for token in range(clean.mask.shape[1]):
            values = []
            for sign in (1, -1):
                hidden = clean.hidden.clone()
                hidden[:, token] *= 1 + sign * delta
                held = clean.attention if path == "context" else None
                logits = model.attend(hidden, model.score(hidden, clean.mask), clean.mask, held).logits
                values.append(measured(step, output)(logits))
            found[:, token] = (values[0] - values[1]).numpy() / (2 * delta)
    return found


def by_scipy(gradient: np.ndarray, attention: Tensor, mask: Tensor, temperature: float) -> tuple[float, float, float]:
    """Mean divergence and the two mean entropies."""
    rows = []
    for row, weights, real in zip(gradient, attention.detach().numpy(), mask.numpy(), strict=True):
        p = scipy.special.softmax(np.abs(row[real]) / temperature)
        q = weights[real]
        rows.append((scipy.stats.entropy(p, q), scipy.stats.entropy(p), scipy.stats.entropy(q)))
    return tuple(np.mean(rows, axis=0))


@pytest.mark.parametrize("cls", [AttentionClassifier, OwnAttend])
@pytest.mark.parametrize("scorer", [AdditiveScorer, ScaledDotScorer])
@pytest.mark.parametrize(("output", "path", "target"), list(product(OUTPUTS, PATHS, ("joint", "attention"))))
def test_value_and_logs_are_those_of_a_literal_loop(
    cls: type[AttentionClassifier], scorer: type[Scorer], output: Output, path: GradientPath, target: Target
) -> None:
    step = make_step(make_model(cls, scorer))
    term = Relation(0.3, output, path, target, temperature=0.5).loss(step)
    gradient = by_finite_differences(step, output, path)
    expected = by_scipy(gradient, step.output.attention, step.batch.mask, 0.5)
    found = [term.value.item(), term.logs["entropy_gradient"].item(), term.logs["entropy_attention"].item()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (term.name, term.weight) == ("relation", 0.3)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("target", ["joint", "attention"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scorer", [AdditiveScorer, ScaledDotScorer])
def test_closed_form_equals_autograd_with_all_its_gradients(
    scorer: type[Scorer], path: GradientPath, output: Output, target: Target
) -> None:
    values, by_parameter = [], []
    for cls in (AttentionClassifier, OwnAttend):
        model = make_model(cls, scorer)
        value = term_value(Relation(output=output, path=path, target=target), make_step(model))
        values.append(value)
        by_parameter.append(gradients(value, model))
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*by_parameter)


class OwnScorer(ScaledDotScorer):
    pass


class OwnNormalizer(Softmax):
    pass


def test_closed_form_is_chosen_only_where_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        "attn_lightning.methods.relation.gradient_times_state",
        lambda *args: calls.append(args[3]) or gradient_times_state(*args),
    )
    deep, normalized = make_model(), make_model()
    deep.classifier = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    normalized.normalizer = OwnNormalizer()
    models = (make_model(), make_model(OwnAttend), make_model(scorer=OwnScorer), normalized, deep)
    by_autograd: list[list[str]] = [[], ["full", "context"], ["full"], ["full"], ["full", "context"]]
    for model, expected in zip(models, by_autograd, strict=True):
        calls.clear()
        assert all(torch.isfinite(term_value(Relation(path=path), make_step(model))) for path in PATHS)
        assert calls == expected


def test_context_path_of_the_logit_is_attention_times_the_class_vector() -> None:
    model = make_model()
    step = make_step(model)
    out, label = step.output, step.batch.labels
    expected = out.attention * torch.einsum("btd,bd->bt", out.hidden, model.classifier.weight[label])
    for found in (
        gradient_times_state(model, out, measured(step, "logit"), "context", False),
        attention_times_value(out, model.classifier.weight, measured(step, "logit"), False),
    ):
        torch.testing.assert_close(found, expected)


def test_full_path_of_a_dot_product_scorer_by_hand() -> None:
    # ds_t/dh_t . h_t = s_t and dz_y/ds_t = a_t (v_t - sum_u a_u v_u), with v_t = w_y . h_t.
    model = make_model()
    step = make_step(model)
    out = step.output
    evidence = torch.einsum("btd,bd->bt", out.hidden, model.classifier.weight[step.batch.labels])
    mean = (out.attention * evidence).sum(1, keepdim=True)
    expected = out.attention * (evidence + (evidence - mean) * out.scores)
    found = gradient_times_state(model, out, measured(step, "logit"), "full", False)
    torch.testing.assert_close(found, expected.masked_fill(~out.mask, 0.0))


@pytest.mark.parametrize("path", PATHS)
def test_target_attention_moves_attention_only(path: GradientPath) -> None:
    model = make_model()
    step = make_step(model)
    value = term_value(Relation(path=path, target="attention"), step)
    by_classifier, by_scores = torch.autograd.grad(
        value, (model.classifier.weight, step.output.scores), allow_unused=True
    )
    assert by_classifier is None
    # For softmax, d KL(p || a) / ds = a - p.
    gradient = by_finite_differences(step, "logit", path)
    target = torch.from_numpy(np.abs(gradient)).masked_fill(~step.batch.mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(by_scores, (step.output.attention - target).detach() / 3, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_target_joint_moves_the_classifier_too(path: GradientPath) -> None:
    model = make_model()
    (gradient,) = torch.autograd.grad(term_value(Relation(path=path), make_step(model)), model.classifier.weight)
    assert gradient.norm() > 1e-4


@pytest.mark.parametrize("path", PATHS)
def test_encoder_is_neither_run_nor_differentiated_twice(path: GradientPath, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    step = make_step(model)

    class OnceOnly(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, states: Tensor) -> Tensor:
            return states.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient

    hidden = OnceOnly.apply(step.output.hidden)
    output = model.attend(hidden, model.score(hidden, step.batch.mask), step.batch.mask)
    monkeypatch.setattr(model, "encode", None)
    value = term_value(Relation(path=path), replace(step, output=output))
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, model))


def test_one_token_has_nothing_to_compare() -> None:
    batch = Batch(torch.tensor([[4]]), torch.tensor([[True]]), torch.tensor([1]), torch.tensor([0]))
    model = make_model()
    step = TrainStep(model, batch, model(batch.tokens, batch.mask), F.cross_entropy, progress=0.0)
    assert term_value(Relation(), step).item() == pytest.approx(0.0, abs=1e-12)


def test_low_temperature_concentrates_and_high_temperature_flattens() -> None:
    step = make_step(make_model())
    entropies = [
        Relation(temperature=temperature).loss(step).logs["entropy_gradient"].item() for temperature in (0.01, 1, 1e6)
    ]
    assert entropies == sorted(entropies)
    assert entropies[-1] == pytest.approx(step.batch.mask.sum(1).log().mean().item(), abs=1e-6)


def literal_sigma(gradient: list[float], sigma: Sigma, temperature: float) -> list[float]:
    """The distribution over the tokens of one text, one number after the other."""
    sizes = [abs(number) for number in gradient]
    if sigma == "softmax":
        return scipy.special.softmax([size / temperature for size in sizes]).tolist()
    if sigma == "l1":
        powers = [size ** (1 / temperature) for size in sizes]
        return [power / sum(powers) for power in powers]
    # The nearest distribution, found as such: no threshold formula is used.
    wanted = np.array(sizes) / temperature
    start = np.full(len(sizes), 1 / len(sizes))
    found = scipy.optimize.minimize(
        lambda p: np.square(p - wanted).sum(),
        start,
        bounds=[(0, 1)] * len(sizes),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        options={"ftol": 1e-14},
    )
    return found.x.tolist()


@pytest.mark.parametrize("sigma", ["softmax", "l1", "sparsemax"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sigma_is_the_distribution_of_its_definition(sigma: Sigma, temperature: float) -> None:
    gradient = torch.tensor([[0.9, -0.2, 0.05, -1.4], [0.3, -0.3, 7.0, 7.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    found = log_gradient_distribution(gradient, mask, sigma, temperature).exp()
    for row, real, got in zip(gradient, mask, found, strict=True):
        expected = literal_sigma(row[real].tolist(), sigma, temperature)
        np.testing.assert_allclose(got[real].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_shares_of_the_sum_do_not_depend_on_the_scale(scale: float) -> None:
    gradient = torch.tensor([[3.0, -1.0, 0.0], [3.0, -1.0, 7e7]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = log_gradient_distribution(gradient * scale, mask, "l1", 1.0).exp()
    torch.testing.assert_close(found[:, :2], torch.tensor([[0.75, 0.25], [0.75, 0.25]]))
    assert found[0, 2] < 1e-37


@pytest.mark.parametrize("sigma", ["softmax", "l1", "sparsemax"])
def test_a_gradient_of_zeros_is_the_uniform_distribution_and_can_be_learned_from(sigma: Sigma) -> None:
    gradient = torch.zeros(1, 4, requires_grad=True)
    logs = log_gradient_distribution(gradient, torch.tensor([[True, True, True, False]]), sigma, 1.0)
    torch.testing.assert_close(logs.exp()[0, :3], torch.full((3,), 1 / 3))
    assert torch.autograd.grad(logs[0, 0], gradient)[0].isfinite().all()


@pytest.mark.parametrize("sigma", ["l1", "sparsemax"])
@pytest.mark.parametrize("path", PATHS)
def test_other_sigmas_have_the_gradients_of_finite_differences(sigma: Sigma, path: GradientPath) -> None:
    model = make_model()
    method = Relation(path=path, sigma=sigma, temperature=0.7)
    vector = cast(nn.Linear, model.classifier).weight
    (found,) = torch.autograd.grad(term_value(method, make_step(model)), vector)

    def value_at(amount: float) -> float:
        with torch.no_grad():
            vector[1, 2] += amount
        value = term_value(method, make_step(model)).item()
        with torch.no_grad():
            vector[1, 2] -= amount
        return value

    assert found[1, 2].item() == pytest.approx((value_at(1e-6) - value_at(-1e-6)) / 2e-6, rel=1e-4, abs=1e-8)


def test_attention_with_zeros_gives_a_finite_term() -> None:
    step = make_step(make_model())
    weights = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]).double()
    output = step.model.attend(step.output.hidden, step.output.scores, step.batch.mask, weights)
    value = term_value(Relation(path="context"), replace(step, output=output))
    assert all(torch.isfinite(gradient).all() for gradient in gradients(value, step.model))


@pytest.mark.parametrize(
    ("path", "target", "needs"),
    [
        ("full", "joint", Differentiates.SCORES_TWICE),
        ("full", "attention", Differentiates.SCORES),
        ("context", "attention", Differentiates.SCORES),
        ("context", "joint", Differentiates.NOTHING),
    ],
)
def test_demands_depend_on_the_options(path: GradientPath, target: Target, needs: Differentiates) -> None:
    class Once(Uniform):
        max_derivatives = 1

    method = Relation(path=path, target=target)
    assert method.differentiates == needs
    for normalizer in (Uniform, Once):
        model = AttentionClassifier(SPEC, normalizer=normalizer)
        allowed = {Differentiates.NOTHING: 0, Differentiates.SCORES: 1, Differentiates.SCORES_TWICE: 2}[needs]
        if allowed <= normalizer.max_derivatives:
            check_requirements(method, model)
        else:
            with pytest.raises(ConfigurationError, match="Relation"):
                check_requirements(method, model)


@pytest.mark.parametrize(
    "options",
    [
        {"output": "score"},
        {"path": "half"},
        {"target": "both"},
        {"sigma": "l2"},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"weight": -0.1},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{next(iter(options))}` of Relation"):
        Relation(**options)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (
            Relation,
            {
                "weight": 0.1,
                "output": "logit",
                "path": "full",
                "target": "joint",
                "temperature": 1.0,
                "sigma": "softmax",
            },
        ),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
