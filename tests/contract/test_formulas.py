"""Every method's objective against plain loops written from its formula: the value, and the gradients by scores, states
and weights, with padding, class weights and a pool of unlabelled texts.

The loops see one text at a time, without its padding, and take nothing of the package but the weights of the model. The
ten perturbations have theirs in `tests/unit/methods/test_perturbed.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import attn_lightning.methods
from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.methods import (
    L2X,
    VIBI,
    Diversity,
    EntropyPenalty,
    HardAttention,
    Hybrid,
    InformationBottleneck,
    InstanceWeighting,
    MarginalLikelihood,
    MaxPenalty,
    Method,
    ModelConsistentAdversary,
    RandomAttentionPretraining,
    RationaleSupervision,
    Relation,
    Scheduled,
    TrainStep,
    TsallisPenalty,
)
from attn_lightning.testing.contract import objective
from attn_lightning.testing.small import noise_of_places
from attn_lightning.types import Batch, DataSpec
from support.listed import published_methods

C, V, E, D = 3, 12, 4, 6
LENGTHS = (5, 2, 1, 4)
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
PROGRESS = 0.5

ELSEWHERE = ("attention_perturbation", "word_perturbation")
"""Modules whose methods `test_perturbed.py` compares with its loops."""

Formula = Callable[["Text"], Tensor]


class Text:
    """One text without its padding: what a formula is written in."""

    def __init__(self, model: Any, row: int, states: Tensor, shift: Tensor, batch: Batch, base: Any) -> None:
        n = LENGTHS[row]
        self.model, self.row, self.n, self.base = model, row, n, base
        self.h = [states[row, t] for t in range(n)]
        self.shift = [shift[row, t] for t in range(n)]
        self.words = batch.tokens[row, :n]
        self.y = int(batch.labels[row])
        self.marks = [bool(mark) for mark in batch.rationale[row, :n]]
        self.s = self.scores(self.h)
        self.a = softmax(self.s)
        self.noise = noise_of_places(states)[row]

    def scores(self, states: Sequence[Tensor]) -> list[Tensor]:
        found = [additive(self.model.scorer, state) for state in states]
        return [score + shift for score, shift in zip(found, self.shift, strict=True)]

    def classify(self, context: Tensor) -> Tensor:
        return self.model.classifier.weight @ context + self.model.classifier.bias

    def attended(self, states: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        return self.classify(average(states, weights))

    def loss(self, logits: Tensor) -> Tensor:
        """The task loss: class weight times cross-entropy."""
        return CLASS_WEIGHTS[self.y] * (torch.log(sum(torch.exp(z) for z in logits)) - logits[self.y])

    @property
    def task(self) -> Tensor:
        return self.loss(self.attended(self.h, self.a))


def additive(scorer: Any, state: Tensor) -> Tensor:
    return scorer.vector.weight[0] @ torch.tanh(scorer.projection.weight @ state + scorer.projection.bias)


def softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    total = sum(torch.exp(score) for score in scores)
    return [torch.exp(score) / total for score in scores]


def average(states: Sequence[Tensor], weights: Sequence[Any]) -> Tensor:
    return sum(weight * state for weight, state in zip(weights, states, strict=True))


def kl(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    return sum(x * (torch.log(x) - torch.log(y)) for x, y in zip(p, q, strict=True))


# --- the formulas, each of one text -------------------------------------------------------------------------------


def relation(output: str, path: str, target: str, temperature: float, weight: float) -> Formula:
    def formula(text: Text) -> Tensor:
        states = [state.clone() for state in text.h]
        weights = softmax(text.scores(states)) if path == "full" else [a.detach() for a in text.a]
        logits = text.attended(states, weights)
        y = {"logit": logits[text.y], "probability": softmax(list(logits))[text.y], "loss": text.loss(logits)}[output]
        slopes = torch.autograd.grad(y, states, create_graph=True)
        if path == "context":
            # Held constant for the derivative by the states, not for what is learned: g depends on a all the same.
            logits = text.attended(text.h, text.a)
            y = {"logit": logits[text.y], "probability": softmax(list(logits))[text.y], "loss": text.loss(logits)}
            by_logit = torch.autograd.grad(y[output], logits, create_graph=True)[0]
            slopes = [a * (by_logit @ text.model.classifier.weight) for a in text.a]
        g = [slope @ state for slope, state in zip(slopes, text.h, strict=True)]
        sigma = softmax([value.abs() / temperature for value in g])
        sigma = [p.detach() for p in sigma] if target == "attention" else sigma
        return text.task + weight * kl(sigma, text.a)

    return formula


def entropy(text: Text) -> Tensor:
    return -sum(a * torch.log(a) for a in text.a)


def largest(text: Text) -> Tensor:
    """The largest weight; the same word twice has the same weight, and then both share the gradient."""
    ties = [a for a in text.a if a > max(text.a) - 1e-12]
    return sum(ties) / len(ties)


def cone(text: Text) -> Tensor:
    """Mean cosine of the states to their mean."""
    mean = sum(text.h) / text.n
    return sum(h @ mean / (h.norm() * mean.norm()) for h in text.h) / text.n


def diversity(text: Text) -> Tensor:
    """The mean goes over the three texts that have two tokens and more, of the four of the batch."""
    return text.task + (0.5 * cone(text) * len(LENGTHS) / 3 if text.n > 1 else 0.0)


def rationale(shuffled: bool) -> Formula:
    def formula(text: Text) -> Tensor:
        marks = text.marks
        if shuffled:
            marks = [marks[place] for place in np.random.default_rng([4, text.row]).permutation(text.n)]
        share = 1 / max(1, sum(marks))
        parts = [share * (np.log(share) - torch.log(a)) for a, mark in zip(text.a, marks, strict=True) if mark]
        return text.task + 0.3 * sum(parts)

    return formula


def hard(text: Text) -> Tensor:
    return sum(a * text.loss(text.classify(h)) for a, h in zip(text.a, text.h, strict=True))


def marginal(text: Text) -> Tensor:
    of_each = [a * softmax(list(text.classify(h)))[text.y] for a, h in zip(text.a, text.h, strict=True)]
    return -CLASS_WEIGHTS[text.y] * torch.log(sum(of_each))


def weighted(text: Text) -> Tensor:
    """Rows 0 to 2 have a weight of the last epoch, row 3 is new."""
    weight = (0.5, 2.0, 4.0, 1.0)[text.row]
    return (1 + 0.75 * (weight - 1)) * text.task


def adversary(text: Text) -> Tensor:
    base = text.base
    vectors = [base.embedding.weight[word] for word in text.words]
    (linear,) = (module for module in base.encoder.modules() if isinstance(module, torch.nn.Linear))
    states = [torch.tanh(linear.weight @ vector + linear.bias) for vector in vectors]
    attention = softmax([additive(base.scorer, state) for state in states])
    theirs = softmax(list(base.classifier.weight @ average(states, attention) + base.classifier.bias))
    own = softmax(list(text.attended(text.h, text.a)))
    distance = sum((p - q.detach()).abs() for p, q in zip(own, theirs, strict=True)) / 2
    return 2.0 * (distance - 0.3 * kl(text.a, [a.detach() for a in attention]))


def noise_gate(text: Text) -> tuple[list[Tensor], list[Tensor], Tensor, list[Tensor]]:
    """Attention, noisy states and their attention, and nats per token."""
    gate = text.model.compressor
    scores = [additive(gate.scorer, h) + shift for h, shift in zip(text.h, text.shift, strict=True)]
    opened = [0.999 / (1 + torch.exp(-score)) for score in scores]
    attention = [gate_t / sum(opened) for gate_t in opened]
    noisy, nats = [], []
    for t, (gate_t, h) in enumerate(zip(opened, text.h, strict=True)):
        noisy.append(gate_t * h + (1 - gate_t) * (gate.mean + gate.deviation * text.noise[t]))
        squares = ((h - gate.mean) / gate.deviation) ** 2
        shut = (1 - gate_t) ** 2 - 1 - 2 * torch.log(1 - gate_t)
        nats.append(sum(shut + gate_t**2 * square for square in squares) / 2)
    return attention, noisy, attention, nats


def gaussian(text: Text) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    code = text.model.compressor
    means = [h + code.shift.weight @ h for h in text.h]
    variances = [torch.exp(code.log_variance.weight @ h + code.log_variance.bias) for h in text.h]
    attention = softmax([additive(code.scorer, mean) + s for mean, s in zip(means, text.shift, strict=True)])
    noisy = [mean + v.sqrt() * text.noise[t] for t, (mean, v) in enumerate(zip(means, variances, strict=True))]
    prior = torch.exp(code.prior_log_variance)
    nats = [
        sum(torch.log(prior) - torch.log(v) + (v + (mean - code.prior_mean) ** 2) / prior - 1) / 2
        for mean, v in zip(means, variances, strict=True)
    ]
    return attention, noisy, softmax([additive(code.scorer, z) for z in noisy]), nats


def bottleneck(phase: str, beta: float, gamma: float, weight: float) -> Formula:
    def formula(text: Text) -> Tensor:
        parts = gaussian if isinstance(text.model.compressor, GaussianBottleneck) else noise_gate
        attention, noisy, noisy_attention, nats = parts(text)
        learner = softmax([additive(text.model.scorer, h) for h in text.h])
        total = torch.zeros((), dtype=torch.float64)
        if phase != "compressor":
            total = total + text.loss(text.attended(text.h, learner))
        if phase in ("compressor", "joint"):
            total = total + text.loss(text.attended(noisy, noisy_attention)) + weight * beta * sum(nats) / text.n
        if phase in ("learner", "joint"):
            total = total + weight * gamma * kl([a.detach() for a in attention], learner)
        return total

    return formula


# --- methods with what they stand for -----------------------------------------------------------------------------


def in_phase(phase: Any, **options: Any) -> Method:
    method = InformationBottleneck(**options)
    method.phase = phase
    return method


def with_weights() -> Method:
    method = InstanceWeighting(weight=0.75)
    method.load_state_dict({"weights": torch.tensor([0.5, 2.0, 4.0])})
    return method


def mixed(share: float, formula: Formula) -> Formula:
    return lambda text: share * formula(text) + (1 - share) * text.task


PRICES = {"beta": 0.3, "gamma": 0.6, "weight": 0.7}
CASES: list[tuple[Method, Formula]] = [
    (Relation(0.4, output, path, target, temperature), relation(output, path, target, temperature, 0.4))
    for output, path, target, temperature in (
        ("logit", "full", "joint", 1.0),
        ("probability", "full", "attention", 0.5),
        ("loss", "context", "joint", 0.3),
        ("logit", "context", "attention", 1.0),
    )
]
CASES += [
    (EntropyPenalty(0.3), lambda text: text.task + 0.3 * entropy(text)),
    (EntropyPenalty(0.3, "sdc"), lambda text: 0.7 * text.task + 0.3 * entropy(text)),
    (TsallisPenalty(0.3), lambda text: text.task - 0.3 * sum(a**2 for a in text.a)),
    (MaxPenalty(0.3), lambda text: text.task - 0.3 * largest(text)),
    (Diversity(0.5), diversity),
    (RationaleSupervision(0.3), rationale(shuffled=False)),
    (RationaleSupervision(0.3, shuffled=True, seed=4), rationale(shuffled=True)),
    (HardAttention(), hard),
    (HardAttention(0.25), mixed(0.25, hard)),
    (MarginalLikelihood(), marginal),
    (MarginalLikelihood(0.25), mixed(0.25, marginal)),
    (Hybrid(fraction=PROGRESS), hard),
    (Hybrid(fraction=0.51), lambda text: text.task),
    (with_weights(), weighted),
    (ModelConsistentAdversary(2.0, divergence_weight=0.3), adversary),
    (Scheduled(EntropyPenalty(0.4)), lambda text: text.task + PROGRESS * 0.4 * entropy(text)),
]
CASES += [
    (in_phase(phase, **PRICES), bottleneck(phase, **PRICES)) for phase in ("warmup", "compressor", "learner", "joint")
]
OWN_TEST: dict[Any, str] = dict.fromkeys((L2X, VIBI), "a loop beside their teacher, in `test_explainers.py`")
OWN_TEST |= {RandomAttentionPretraining: "its masks are drawn", attn_lightning.methods.Combined: "it is a sum"}


def named(case: tuple[Method, Formula]) -> str:
    return type(case[0]).__name__


def small_model(kind: type[Any], seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    spec = DataSpec(C, V, E, ("a", "b", "c"))
    model = kind(spec, encoder=partial(Average, hidden_size=D), **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn(parameter.shape, dtype=torch.float64))
        for name, value in model.named_buffers():
            if name.endswith((".mean", ".deviation")):
                value.add_(0.1 * torch.rand_like(value))
    return model


def texts(lengths: Sequence[int], seed: int) -> Batch:
    source = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(1, V, mask.shape, generator=source) * mask
    marks = mask & (torch.rand(mask.shape, generator=source) < 0.6)
    marks[1] = False  # a text without a rationale
    rows = torch.arange(len(lengths))
    return Batch(tokens, mask, torch.tensor([2, 0, 1, 2])[: len(lengths)], rows, marks, marks.any(1))


def step_of(model: Any) -> tuple[TrainStep, Tensor, Tensor]:
    """A step whose states, and what is added to their scores, are leaves; with a pool of unlabelled texts."""
    batch, pool = texts(LENGTHS, 1), texts((3, 4), 2)
    states = model.encode(model.embed(batch.tokens), batch.mask).detach().requires_grad_()
    shift = torch.zeros(batch.mask.shape, dtype=torch.float64, requires_grad=True)
    output = model.attend(states, model.score(states, batch.mask) + shift, batch.mask)
    task_loss = partial(F.cross_entropy, weight=CLASS_WEIGHTS, reduction="none")
    unlabeled = pool._replace(labels=torch.full((2,), -1))
    step = TrainStep(model, batch, output, task_loss, PROGRESS, unlabeled, model(pool.tokens, pool.mask))
    return step, states, shift


def compare(found: Tensor, expected: Tensor, places: Sequence[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    options = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
    for ours, theirs in zip(*(torch.autograd.grad(v, places, **options) for v in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def check(method: Method, formula: Formula, model: Any, base: Any = None) -> None:
    step, states, shift = step_of(model)
    rows = [formula(Text(model, row, states, shift, step.batch, base)) for row in range(len(LENGTHS))]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    compare(objective(method, step), sum(rows) / len(rows), [states, shift, *learned])


@pytest.mark.parametrize("case", CASES, ids=named)
def test_objective_and_gradients_equal_a_loop_over_texts(
    case: tuple[Method, Formula], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, formula = case
    monkeypatch.setattr(torch, "randn_like", noise_of_places)
    if isinstance(method, InformationBottleneck):
        check(method, formula, small_model(BottleneckClassifier))
        check(
            method,
            formula,
            small_model(BottleneckClassifier, compressor=partial(GaussianBottleneck, learnable_prior=True)),
        )
        return
    base = small_model(AttentionClassifier, seed=5)
    if isinstance(method, ModelConsistentAdversary):
        method.base = base
    check(method, formula, small_model(AttentionClassifier), base)


@pytest.mark.parametrize("masks", ["subsets", "soft"])
def test_random_attention_takes_the_place_of_the_models_own(masks: Any) -> None:
    method = RandomAttentionPretraining(masks=masks, subset_size=3)
    model = small_model(AttentionClassifier)
    step, states, shift = step_of(model)
    torch.manual_seed(7)
    drawn = method.attention(step)
    assert drawn is not None
    for row, n in enumerate(LENGTHS):
        chosen = [weight for weight in drawn[row].tolist() if weight > 0]
        if masks == "subsets":
            assert chosen == pytest.approx([1 / min(3, n)] * min(3, n))
        else:
            assert len(chosen) == n
            assert sum(chosen) == pytest.approx(1)

    def formula(text: Text) -> Tensor:
        return text.loss(text.attended(text.h, [drawn[text.row, t] for t in range(text.n)]))

    rows = [formula(Text(model, row, states, shift, step.batch, None)) for row in range(len(LENGTHS))]
    torch.manual_seed(7)
    compare(objective(method, step), sum(rows) / len(rows), [states, shift, *model.parameters()])


def test_every_published_method_has_a_loop_of_its_own() -> None:
    """Fails until the formula is written down above; that of somebody's own method stands in its own test."""
    compared = {type(method) for method, _ in CASES} | set(OWN_TEST)
    elsewhere = {cls for cls in published_methods().values() if cls.__module__.rsplit(".", 1)[-1] in ELSEWHERE}
    assert sorted(cls.__name__ for cls in {*published_methods().values()} - compared - elsewhere) == []
