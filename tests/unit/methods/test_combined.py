"""Several methods in one run and scheduled weights, alone and in a Lightning training."""

import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionAT, AttentionIVAT, AttentionVAT, Combined, Relation, Scheduled
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.methods.combined import flatten
from attn_lightning.methods.requirements import check_exclusive, check_methods
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec, LossTerm

SPEC = DataSpec(2, 12, 5, ("a", "b"))
make_model = partial(AttentionClassifier, encoder=lambda size: Average(size, 6))


class EvenAttention(Method):
    def attention(self, step: TrainStep) -> Tensor:
        return step.batch.mask / step.batch.mask.sum(1, keepdim=True)


class Halved(Method):
    def task_loss(self, step: TrainStep) -> Tensor:
        return 0.5 * step.task_loss(step.output.logits, step.batch.labels)


class Phased(Method):
    """Counts epochs, keeps the count in its state, and remembers every hook that was called."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.epochs, self.hooks = 0, []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.hooks.append(stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.hooks.append("on_fit_start")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs += 1

    def loss(self, step: TrainStep) -> LossTerm:
        return LossTerm("phased", step.output.scores.square().mean(), self.weight)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


class Watch(Callback):
    """The progress of every step and what is logged of the weights."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logged.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def make_batch(size: int = 4) -> Batch:
    tokens = torch.tensor([[3, 5, 2], [4, 9, 0], [6, 1, 8], [7, 0, 0]])[:size]
    return Batch(tokens, tokens > 0, torch.tensor([1, 0, 1, 0])[:size], torch.arange(size))


def make_step(progress: float = 0.5) -> TrainStep:
    torch.manual_seed(0)
    model, batch = make_model(SPEC), make_batch()
    return TrainStep(
        model, batch, model(batch.tokens, batch.mask), partial(F.cross_entropy, reduction="none"), progress
    )


def fit(
    folder: Path,
    *callbacks: Callback,
    checkpoint: Path | None = None,
    weights: dict[str, Tensor] | None = None,
    data: Any = None,
    **options: Any,
) -> tuple[AttentionModule, Trainer]:
    torch.manual_seed(0)
    module = AttentionModule(make_model, num_probe_examples=0)
    module.build(SPEC)
    trainer = Trainer(
        **{"max_epochs": 2, **options},
        callbacks=list(callbacks),
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    )
    loader = DataLoader([make_batch()] * 4, batch_size=None) if data is None else data
    trainer.fit(module, loader, ckpt_path=checkpoint)
    return module, trainer


def same_weights(first: AttentionModule, second: AttentionModule) -> None:
    for got, want in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(got, want)


def test_combined_trains_like_the_methods_attached_one_by_one(tmp_path: Path) -> None:
    apart, _ = fit(tmp_path, AttentionAT(), Relation())
    together, trainer = fit(tmp_path, Combined([AttentionAT(), Combined([Relation()])]))
    same_weights(apart, together)
    assert [type(method) for method in together.methods] == [AttentionAT, Relation]
    assert {"train/attention_at", "train/relation", "train/relation_entropy_gradient"} <= set(trainer.callback_metrics)


def test_terms_add_up(tmp_path: Path) -> None:
    step, objective = make_step(), []
    methods: list[Method] = [AttentionAT(weight=0.5), Relation(weight=2.0)]
    expected = F.cross_entropy(step.output.logits, step.batch.labels) + sum(
        term.weight * term.value for method in methods if (term := method.loss(step)) is not None
    )

    class Loss(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, *_: Any) -> None:
            objective.append(outputs["loss"])

    torch.manual_seed(0)
    module = AttentionModule(make_model, num_probe_examples=0)
    module.build(SPEC)
    module.backbone.load_state_dict(step.model.state_dict())
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=1, callbacks=[Combined(methods), Loss()], default_root_dir=tmp_path, **options)
    trainer.fit(module, DataLoader([make_batch()], batch_size=None))
    torch.testing.assert_close(objective[0], expected.detach())


@pytest.mark.parametrize("wrap", [lambda part: part, lambda part: Combined([AttentionAT(), part]), Scheduled])
def test_hooks_and_states_of_the_parts_travel(tmp_path: Path, wrap: Any) -> None:
    part, saved = Phased(), ModelCheckpoint(tmp_path, save_last=True)
    fit(tmp_path, wrap(part), saved)
    assert part.hooks == ["fit", "on_fit_start"]
    assert part.epochs == 2
    resumed = Phased()
    fit(tmp_path, wrap(resumed), checkpoint=Path(saved.last_model_path), max_epochs=3)
    assert resumed.epochs == 3


def test_every_hook_of_lightning_is_handed_on() -> None:
    part = Method()
    calls: list[str] = []
    names = [name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")]
    for name in names:
        setattr(part, name, lambda *args, name=name: calls.append(name))
    combined = Combined([part])
    for name in names:
        getattr(combined, name)(None, None)
    assert calls == names
    assert len(names) > 30


def test_states_of_two_methods_of_one_class_are_kept_apart() -> None:
    first, second = Phased(), Phased()
    first.epochs, second.epochs = 3, 5
    state = Combined([first, AttentionAT(), second]).state_dict()
    fresh = [Phased(), AttentionAT(), Phased()]
    Combined(fresh).load_state_dict(state)
    assert [fresh[0].epochs, fresh[2].epochs] == [3, 5]
    assert Combined([AttentionAT()]).state_dict() == {}


def test_two_methods_that_replace_the_same_thing_are_refused(tmp_path: Path) -> None:
    for pair, what in (((EvenAttention, EvenAttention), "attention"), ((Halved, Halved), "the task loss")):
        names = " and ".join(cls.__name__ for cls in pair)
        with pytest.raises(ConfigurationError, match=f"replaces {what}, but got {names}"):
            Combined([cls() for cls in pair])
        with pytest.raises(ConfigurationError, match=what):
            fit(tmp_path, pair[0](), Combined([pair[1](), AttentionAT()]))
    check_exclusive([EvenAttention(), Halved(), AttentionAT(), EvenAttention(weight=0.0)])


def test_requirements_of_every_part_are_checked(tmp_path: Path) -> None:
    model = make_model(SPEC, normalizer=Uniform)
    for method in (Combined([AttentionAT()]), Scheduled(AttentionAT()), Combined([Scheduled(AttentionAT())])):
        with pytest.raises(ConfigurationError, match="for AttentionAT"):
            check_methods(list(flatten([method])), model)


def test_scheduled_term_has_the_weight_of_its_step() -> None:
    method = Scheduled(Relation(weight=0.4), "warmup", fraction=0.5)
    assert method.loss(make_step(0.0)) is None
    plain = Relation(weight=0.4).loss(make_step(0.25))
    for progress, weight in ((0.125, 0.1), (0.25, 0.2), (0.5, 0.4), (1.0, 0.4)):
        term = method.loss(make_step(progress))
        assert term.weight == pytest.approx(weight)
        assert term.logs["weight"].item() == pytest.approx(weight)
        torch.testing.assert_close(term.value, plain.value)
        assert term.name == "relation"


def test_a_factor_of_zero_draws_no_random_numbers() -> None:
    step = make_step(0.0)
    before = torch.get_rng_state()
    assert Scheduled(AttentionVAT()).loss(step) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_schedules_multiply_and_only_the_term_is_scheduled() -> None:
    step = make_step(0.5)
    assert Scheduled(Scheduled(Relation(weight=1.0)), "cosine").loss(step).weight == pytest.approx(0.25)

    class Everything(EvenAttention, Halved, Phased):
        def example_weights(self, step: TrainStep) -> Tensor:
            return torch.full((4,), 0.5)

    inner = Everything()
    method = Scheduled(inner)
    for hook in ("attention", "task_loss", "example_weights"):
        assert torch.equal(getattr(method, hook)(step), getattr(inner, hook)(step))


def test_scheduled_states_the_demands_of_its_method() -> None:
    method = Scheduled(AttentionIVAT(weight=0.3))
    assert (method.weight, method.semi_supervised, method.encoder_passes) == (0.3, True, 0)
    assert Scheduled(Relation()).differentiates == Differentiates.SCORES_TWICE


def test_constant_schedule_changes_nothing_and_warmup_is_logged(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path, Relation(weight=1.0))
    constant, _ = fit(tmp_path, Scheduled(Relation(weight=1.0), "constant"))
    same_weights(constant, plain)
    watch = Watch()
    fit(tmp_path, Scheduled(Relation(weight=1.0), "warmup"), watch)
    # 8 steps with the factors 0/8 ... 7/8, four of them in each epoch.
    assert [entry["train/relation_weight"] for entry in watch.logged] == pytest.approx([1.5 / 8, 5.5 / 8])


class Endless(IterableDataset):
    def __iter__(self) -> Any:
        while True:
            yield make_batch()


def test_the_start_of_a_training_is_handed_on_with_its_trainer_and_module() -> None:
    class Started(Phased):
        def on_train_start(self, *arguments: Any) -> None:
            self.hooks = list(arguments)

    trainer: Any = SimpleNamespace(estimated_stepping_batches=3)
    method, module = Started(), AttentionModule()
    Scheduled(method).on_train_start(trainer, module)
    assert method.hooks == [trainer, module]


def test_training_without_a_known_end_is_refused(tmp_path: Path) -> None:
    for method in (Scheduled(Relation()), Combined([Scheduled(Relation())])):
        with pytest.raises(ConfigurationError, match="known length for the schedule of Relation"):
            fit(tmp_path, method, data=DataLoader(Endless(), batch_size=None), max_epochs=1)


def test_bad_options_are_refused() -> None:
    for fraction in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigurationError, match="fraction"):
            Scheduled(Relation(), fraction=fraction)
    with pytest.raises(ConfigurationError, match="schedule"):
        Scheduled(Relation(), "linear")
    with pytest.raises(ConfigurationError, match="at least one"):
        Combined([])
    with pytest.raises(ConfigurationError, match="inside Combined a schedule each"):
        Scheduled(Combined([Relation()]))
    with pytest.raises(ConfigurationError, match="Halved adds none"):
        Scheduled(Halved())


YAML = """
method:
  class_path: Combined
  init_args:
    methods:
    - class_path: AttentionIVAT
      init_args: {epsilon: 2.0}
    - class_path: Scheduled
      init_args:
        method: {class_path: Relation, init_args: {path: context}}
        schedule: warmup
        fraction: 0.25
"""


def test_configuration_in_yaml_and_pickling(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML)
    parser = ArgumentParser()
    parser.add_subclass_arguments(Method, "method")
    parser.add_argument("--config", action="config")
    arguments = parser.parse_args([f"--config={tmp_path / 'config.yaml'}"])
    method = parser.instantiate(arguments).method
    copy = pickle.loads(pickle.dumps(method))
    for found in (method, copy):
        vat, relation = found.parts
        assert (type(vat), vat.epsilon) == (AttentionIVAT, 2.0)
        assert (type(relation.method), relation.method.path) == (Relation, "context")
        assert (relation.schedule, relation.fraction) == ("warmup", 0.25)


def test_a_fraction_out_of_its_range_names_the_method():
    with pytest.raises(ConfigurationError, match=r"`fraction` of Scheduled .* at most 1, but got 2"):
        Scheduled(AttentionAT(), fraction=2)
