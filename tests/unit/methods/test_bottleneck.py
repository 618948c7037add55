"""Phases of the information bottleneck: what is trained when, what stays where it is, and what a resumed run does."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.utils.data import DataLoader

from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck, LearnerGate, NoiseGate
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.transformer import Transformer
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.bottleneck import (
    InformationBottleneck,
    Phase,
    annealed,
    attention_feedback,
    mean_token_divergence,
    phase_of,
)
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec
from support.defaults import defaults

SPEC = DataSpec(2, 12, 4, ("a", "b"))
LEARNER, COMPRESSOR, SHARED = "learner", "compressor", "classifier"


def small_model(spec: DataSpec, **options: Any) -> BottleneckClassifier:
    return BottleneckClassifier(spec, encoder=Average, **options)


def examples() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(6):
        tokens = torch.randint(1, 12, (2, 5), generator=generator)
        mask = torch.arange(5) < torch.tensor([5, 3])[:, None]
        found.append(Batch(tokens * mask, mask, tokens[:, 0] % 2, torch.arange(2)))
    return found


class Watch(Callback):
    """Notes the phase of every epoch and which parts of the model moved in it."""

    def __init__(self, method: InformationBottleneck) -> None:
        self.method, self.phases, self.moved = method, [], []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.phases.append(self.method.phase)
        self.before = {name: value.detach().clone() for name, value in pl_module.backbone.named_parameters()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        moved = {n for n, value in pl_module.backbone.named_parameters() if not torch.equal(value, self.before[n])}
        self.moved.append({part_of(name) for name in moved})


def part_of(name: str) -> str:
    part = name.split(".")[0]
    return part if part in (COMPRESSOR, SHARED) else LEARNER


def fit(
    method: InformationBottleneck,
    *callbacks: Callback,
    resume: Path | None = None,
    backbone: Any = small_model,
    **options: Any,
) -> tuple[AttentionModule, Trainer]:
    seed_everything(0, verbose=False)
    module = AttentionModule(backbone, learning_rate=0.01, weight_decay=0.1, num_probe_examples=0)
    module.build(SPEC)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        callbacks=[method, *callbacks],
        **{"max_epochs": method.num_epochs, **options},
    )
    loader = DataLoader(examples(), batch_size=None)
    trainer.fit(module, loader, loader, ckpt_path=resume)
    return module, trainer


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("alternate", ["warmup", "warmup", "compressor", "learner", "compressor", "learner"]),
        ("compressor", ["warmup", "warmup", *["compressor"] * 4]),
        ("joint", ["joint"] * 6),
    ],
)
def test_phases_follow_from_the_epoch(schedule: Any, expected: list[Phase]) -> None:
    assert [phase_of(epoch, schedule, 2) for epoch in range(6)] == expected


@pytest.mark.parametrize("compressor", [NoiseGate, LearnerGate, GaussianBottleneck])
@pytest.mark.parametrize("feedback", ["divergence", "direct"])
def test_frozen_parts_stay_where_they_are_to_the_bit(compressor: Any, feedback: Any) -> None:
    method = InformationBottleneck(warmup_epochs=1, num_rounds=2, beta=0.01, feedback=feedback)
    watch = Watch(method)
    module, _ = fit(method, watch, backbone=lambda spec: small_model(spec, compressor=compressor))
    assert watch.phases == ["warmup", "compressor", "learner", "compressor", "learner"]
    learns = {"warmup": {LEARNER, SHARED}, "compressor": {COMPRESSOR, SHARED}, "learner": {LEARNER, SHARED}}
    assert watch.moved == [learns[phase] for phase in watch.phases]
    fixed = {"compressor.prior_mean", "compressor.prior_log_variance"}
    assert all(p.requires_grad == (name not in fixed) for name, p in module.backbone.named_parameters())


@pytest.mark.parametrize("compressor", [NoiseGate, LearnerGate])
def test_a_transformer_learns_in_its_phases(compressor: Any) -> None:
    encoder = partial(Transformer, hidden_size=8, num_layers=1, num_heads=2)
    method = InformationBottleneck(warmup_epochs=1, num_rounds=1, beta=0.01)
    watch = Watch(method)
    module, trainer = fit(
        method, watch, backbone=lambda spec: BottleneckClassifier(spec, compressor=compressor, encoder=encoder)
    )
    assert watch.moved == [{LEARNER, SHARED}, {COMPRESSOR, SHARED}, {LEARNER, SHARED}]
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


class Scorers(Callback):
    """The first weights of both scorers as every epoch begins."""

    def __init__(self) -> None:
        self.found: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        parts = (pl_module.backbone.scorer, pl_module.backbone.compressor.scorer)
        self.found.append(tuple(next(part.parameters()).detach().clone() for part in parts))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["alternate", "joint"])
def test_a_learner_gate_takes_the_learners_weights_once_after_the_warmup(schedule: Any) -> None:
    method = InformationBottleneck(warmup_epochs=1, num_rounds=2, schedule=schedule)
    scorers = Scorers()
    fit(method, scorers, backbone=lambda spec: small_model(spec, compressor=LearnerGate))
    equal = [torch.equal(*pair) for pair in scorers.found]
    assert equal[1:] == [schedule == "alternate", False, False, False], "in a joint training nothing begins"


def test_joint_schedule_trains_everything_at_once() -> None:
    method = InformationBottleneck(warmup_epochs=0, num_rounds=1, schedule="joint")
    watch = Watch(method)
    fit(method, watch)
    assert watch.moved == [{LEARNER, COMPRESSOR, SHARED}] * 2


def test_frozen_word_vectors_stay_frozen_in_every_phase() -> None:
    method = InformationBottleneck(warmup_epochs=1, num_rounds=1)
    seed_everything(0, verbose=False)
    start = small_model(SPEC, freeze_embeddings=True).embedding.weight.detach().clone()
    module, _ = fit(method, backbone=lambda spec: small_model(spec, freeze_embeddings=True))
    assert torch.equal(module.backbone.embedding.weight, start)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_interrupted_and_resumed_run_equals_the_uninterrupted_one(stop: int, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = trainer.current_epoch == stop - 1

    def method() -> InformationBottleneck:
        return InformationBottleneck(warmup_epochs=1, num_rounds=2, beta=0.01)

    def quiet(monkey: pytest.MonkeyPatch) -> None:
        monkey.setattr(torch, "randn_like", lambda like: torch.linspace(-1, 1, like.numel()).reshape(like.shape))

    with pytest.MonkeyPatch.context() as monkey:
        quiet(monkey)
        whole, _ = fit(method())
        fit(method(), ModelCheckpoint(tmp_path, save_last=True), Interrupt())
        rest = method()
        watch = Watch(rest)
        resumed, _ = fit(rest, watch, resume=tmp_path / "last.ckpt")
    assert watch.phases == [phase_of(epoch, "alternate", 1) for epoch in range(stop, 5)]
    for name, value in whole.backbone.state_dict().items():
        assert torch.equal(resumed.backbone.state_dict()[name], value), name


def test_warmup_does_not_compete_for_the_best_epoch(tmp_path: Path) -> None:
    class Falling(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pl_module.log("falling", float(-trainer.current_epoch))

    best = ModelCheckpoint(tmp_path, filename="{epoch}", monitor="falling", mode="max")
    fit(InformationBottleneck(warmup_epochs=2, num_rounds=1), Falling(), best)
    assert Path(best.best_model_path).name == "epoch=2.ckpt"


def make_step(model: BottleneckClassifier, progress: float = 0.5) -> TrainStep:
    batch = examples()[0]
    loss = nn.CrossEntropyLoss(reduction="none")
    return TrainStep(model, batch, model(batch.tokens, batch.mask), loss, progress)


def with_phase(phase: Phase, **options: Any) -> InformationBottleneck:
    method = InformationBottleneck(**options)
    method.phase = phase
    return method


def test_task_loss_is_that_of_the_part_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    step = make_step(small_model(SPEC))
    model, hidden, mask = step.model, step.output.hidden, step.output.mask
    assert isinstance(model, BottleneckClassifier)
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    learner, own, noisy = (
        step.task_loss(logits, step.batch.labels)
        for logits in (model.learner(hidden, mask).logits, step.output.logits, model.noisy_logits(hidden, mask))
    )

    def equal(found: Tensor | None, expected: Tensor) -> None:
        torch.testing.assert_close(found, expected)

    equal(with_phase("warmup", feedback="direct").task_loss(step), learner)
    equal(with_phase("learner").task_loss(step), learner)
    equal(with_phase("learner", feedback="direct").task_loss(step), own)
    equal(with_phase("compressor").task_loss(step), noisy)
    equal(with_phase("joint").task_loss(step), learner + noisy)
    assert with_phase("compressor", weight=0.0).task_loss(step) is None


@pytest.mark.parametrize(
    ("phase", "feedback", "still"),
    [
        ("joint", "direct", set()),
        ("warmup", "direct", {"compressor"}),
        ("compressor", "direct", {"embedding", "encoder", "scorer"}),
        ("learner", "divergence", {"compressor"}),
        ("learner", "direct", {"compressor", "scorer"}),
    ],
)
def test_what_has_nothing_to_learn_in_a_phase_stands_still(phase: Phase, feedback: Any, still: set[str]) -> None:
    model = small_model(SPEC)
    names = {id(parameter): name.split(".")[0] for name, parameter in model.named_parameters()}
    found = with_phase(phase, feedback=feedback).frozen(model)
    assert {names[id(parameter)] for parameter in found} == still
    assert len(found) == sum(name in still for name in names.values())


@pytest.mark.parametrize(("weight", "phase"), [(0.0, "joint"), (0.5, "compressor")])
def test_a_resumed_training_takes_up_its_phase_whatever_the_weight(weight: float, phase: Phase) -> None:
    method = InformationBottleneck(weight=weight, warmup_epochs=1, num_rounds=1)
    assert method.phase == "joint", "without a trainer everything learns at once"
    trainer: Any = SimpleNamespace(current_epoch=1)
    method.on_train_start(trainer, AttentionModule())
    assert method.phase == phase


def test_term_is_the_price_of_information_and_the_feedback() -> None:
    step = make_step(small_model(SPEC))
    output, model = step.output, step.model
    assert isinstance(model, BottleneckClassifier)
    price = with_phase("compressor", beta=0.5).loss(step)
    feedback = with_phase("learner", gamma=2.0).loss(step)
    both = with_phase("joint", beta=0.5, gamma=2.0).loss(step)
    assert price is not None
    assert feedback is not None
    assert both is not None
    per_token = model.compressor.divergence(output.hidden, output.scores)
    expected = [row[mask].mean() for row, mask in zip(per_token, output.mask, strict=True)]
    torch.testing.assert_close(price.value, 0.5 * torch.stack(expected).mean())
    own = model.learner(output.hidden, output.mask).attention
    divergence = kl_divergence(Categorical(output.attention + 1e-30), Categorical(own + 1e-30)).mean()
    torch.testing.assert_close(feedback.value, 2.0 * divergence)
    torch.testing.assert_close(both.value, price.value + feedback.value)
    assert with_phase("warmup").loss(step) is None
    assert with_phase("learner", feedback="direct").loss(step) is None


def test_feedback_moves_the_learner_only_and_ignores_padding() -> None:
    mask = torch.tensor([[True, True, False]])
    compressed = torch.tensor([[0.25, 0.75, 0.0]], requires_grad=True)
    scores = torch.tensor([[0.0, 0.0, 50.0]], requires_grad=True)
    value = attention_feedback(compressed, scores, mask)
    assert value.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-5)
    by_target, by_scores = torch.autograd.grad(value, (compressed, scores), allow_unused=True)
    assert by_target is None
    torch.testing.assert_close(by_scores, torch.tensor([[0.25, -0.25, 0.0]]))


def test_mean_divergence_gives_every_example_the_same_say() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    values = torch.tensor([[1.0, 2.0, 3.0], [8.0, 99.0, 99.0]])
    assert mean_token_divergence(values, mask) == 5.0


def test_beta_rises_after_the_warmup() -> None:
    assert [annealed(2.0, progress, 0.5) for progress in (-0.1, 0.0, 0.25, 0.5, 1.0)] == [0.0, 0.0, 1.0, 2.0, 2.0]
    assert annealed(2.0, -1e-17, 0.0) == 2.0
    method = with_phase("compressor", beta=1.0, warmup_epochs=2, num_rounds=1, anneal=1.0)
    term = method.loss(make_step(small_model(SPEC), progress=0.75))
    assert term is not None
    assert term.logs["beta"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": -1.0},
        {"gamma": float("nan")},
        {"warmup_epochs": -1},
        {"num_rounds": 0},
        {"anneal": 1.5},
        {"schedule": "turns"},
        {"feedback": "none"},
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{next(iter(options))}` of InformationBottleneck"):
        InformationBottleneck(**options)


def test_wrong_runs_are_refused_before_the_first_step() -> None:
    method = InformationBottleneck(warmup_epochs=1, num_rounds=1)
    with pytest.raises(ConfigurationError, match="num_rounds = 3"):
        fit(method, max_epochs=8)
    steps = 3 * len(examples())
    with pytest.raises(ConfigurationError, match=f"which have {steps} steps, but got {steps - 1}"):
        fit(method, max_steps=steps - 1)
    with pytest.raises(ConfigurationError, match="BottleneckClassifier"):
        fit(method, backbone=lambda spec: AttentionClassifier(spec, encoder=Average))
    with pytest.raises(ConfigurationError, match="Uniform"):
        fit(method, backbone=lambda spec: small_model(spec, normalizer=Uniform))


def test_weight_zero_trains_the_model_as_a_whole() -> None:
    method = InformationBottleneck(weight=0.0)
    watch = Watch(method)
    fit(method, watch, max_epochs=1)
    assert COMPRESSOR in watch.moved[0]
    assert LEARNER in watch.moved[0]


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (
            InformationBottleneck,
            {
                "weight": 1.0,
                "beta": 0.001,
                "gamma": 1.0,
                "warmup_epochs": 5,
                "num_rounds": 3,
                "schedule": "alternate",
                "feedback": "divergence",
                "anneal": 0.0,
            },
        ),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
