"""Which optimizer a training gets, and where it lets rows of word vectors wait."""

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.methods import AttentionIVAT, Scheduled, WordAT, WordIAT
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule
from attn_lightning.optimization import choice, rows
from attn_lightning.optimization.choice import make_optimizer, obstacles, words_per_step
from attn_lightning.optimization.rows import RowAdam, WaitingRows
from attn_lightning.types import DataSpec
from support.training import QUIET, fit, planted

LR = 0.01
SPEC = DataSpec(2, 40, 8, ("no", "yes"))


class Stranger(Callback):
    """Whoever wrote this may read what it likes."""


class StrangeMethod(Method):
    def loss(self, step: Any) -> None:
        return None


class StrangeEncoder(nn.Identity):
    pass


@pytest.fixture
def small_tables_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "ROWS_PER_WORD", 0)
    monkeypatch.setattr(choice, "FEWEST_ROWS", 0)
    monkeypatch.setattr(rows, "FIRST", 8)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, small_tables_wait: None) -> list[int]:
    """How many rows were read, each time that some were after a wait."""
    found: list[int] = []
    read = WaitingRows.read

    def noted(self: WaitingRows, rows: Tensor) -> None:
        found.append(len(rows))
        read(self, rows)

    monkeypatch.setattr(WaitingRows, "read", noted)
    return found


def made(name: Any, table: nn.Module | None, decay: float = 0.0, amsgrad: bool = True) -> torch.optim.Optimizer:
    model = nn.Module()
    model.embedding, model.rest = table, nn.Linear(2, 2)
    groups = [{"params": list(model.parameters()), "weight_decay": decay}]
    return make_optimizer(name, groups, model, lr=LR, amsgrad=amsgrad, momentum=0.5)


def test_names_and_classes() -> None:
    assert type(made("adam", nn.Embedding(4, 2))) is RowAdam
    assert type(made("dense_adam", nn.Embedding(4, 2))) is torch.optim.Adam
    assert type(made("sgd", nn.Embedding(4, 2))) is torch.optim.SGD
    for name in ("adam", "dense_adam", "sgd"):
        optimizer = made(name, nn.Embedding(4, 2))
        assert optimizer.defaults["fused"]
        assert optimizer.defaults["lr"] == LR
        assert optimizer.defaults.get("amsgrad", True)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (nn.Embedding(4, 2), {"amsgrad": False}),
        (nn.Embedding(4, 2), {"decay": 0.1}),
        (nn.Linear(4, 2), {}),
        (None, {}),
    ],
)
def test_where_the_formula_does_not_hold_it_is_torchs_adam(table: nn.Module | None, options: dict[str, Any]) -> None:
    optimizer = made("adam", table, **options)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["amsgrad"] == options.get("amsgrad", True)


def test_a_table_that_does_not_learn_is_left_alone() -> None:
    model = nn.Module()
    model.embedding, model.rest = nn.Embedding(4, 2).requires_grad_(False), nn.Linear(2, 2)
    groups = [{"params": list(model.rest.parameters()), "weight_decay": 0.0}]
    assert type(make_optimizer("adam", groups, model, lr=LR, amsgrad=True, momentum=0)) is torch.optim.Adam


def module_of(model: nn.Module | None = None) -> AttentionModule:
    module = AttentionModule()
    module.build(SPEC)
    if model is not None:
        module.backbone.encoder = model
    return module


def first_obstacle(module: AttentionModule, *callbacks: Callback, **options: Any) -> str | None:
    trainer = Trainer(callbacks=list(callbacks), **{**QUIET, **options})
    module.trainer = trainer
    found: Iterator[str] = obstacles(trainer, module, module.backbone.embedding)
    return next(found, None)


@pytest.mark.parametrize(
    ("callbacks", "options", "said"),
    [
        ([], {"devices": 2, "strategy": "ddp"}, "one process"),
        ([], {"precision": "bf16-true"}, "full precision"),
        ([], {"gradient_clip_val": 1.0}, "clipped"),
        ([WordIAT()], {}, "WordIAT reads"),
        ([Scheduled(WordIAT())], {}, "WordIAT reads"),
        ([StrangeMethod()], {}, "StrangeMethod may"),
        ([Stranger()], {}, "Stranger may"),
        ([EMAWeightAveraging()], {}, "EMAWeightAveraging may"),
        ([StochasticWeightAveraging(0.1)], {}, "StochasticWeightAveraging may"),
        # Without data nobody knows how many words a step has: what comes before this stands in nobody's way.
        ([EarlyStopping("val/loss"), AttentionIVAT(), WordAT()], {}, "too many"),
    ],
)
def test_who_could_read_a_row_that_is_behind(callbacks: list[Callback], options: dict[str, Any], said: str) -> None:
    assert said in str(first_obstacle(module_of(), *callbacks, **options))


def test_models_of_others_hooks_and_shared_weights_stand_in_the_way() -> None:
    assert "StrangeEncoder may" in str(first_obstacle(module_of(StrangeEncoder())))
    hooked = module_of()
    hooked.backbone.classifier.register_forward_hook(lambda *_: None)
    assert "hook" in str(first_obstacle(hooked))
    shared = module_of()
    shared.backbone.output = nn.Linear(8, 40)
    shared.backbone.output.weight = shared.backbone.embedding.weight
    assert "shares" in str(first_obstacle(shared))
    bounded = module_of()
    bounded.backbone.embedding.max_norm = 1.0
    assert "changes itself" in str(first_obstacle(bounded))

    class Own(AttentionModule):
        pass

    own = Own()
    own.build(SPEC)
    assert "Own may" in str(first_obstacle(own))


def test_rows_wait_only_in_a_large_table(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger=choice.__name__):
        fit(AttentionModule(), planted())
    assert "a step reads too many" in caplog.text


def test_the_log_says_when_rows_wait(caplog: pytest.LogCaptureFixture, small_tables_wait: None) -> None:
    with caplog.at_level(logging.DEBUG, logger=choice.__name__):
        fit(AttentionModule(), planted())
    assert "move when they are read" in caplog.text


def test_words_of_a_step_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    monkeypatch.setattr(choice, "obstacles", lambda trainer, *_: counted.append(words_per_step(trainer)) or iter("x"))
    data = planted(train_documents=48)
    fit(AttentionModule(), data, accumulate_grad_batches=2)
    words = sum(int(batch.mask.sum()) for batch in data.train_dataloader())
    assert counted == [round(words / 3 * 2)]  # three batches of 16


def test_data_of_others_says_nothing_of_its_words() -> None:
    texts = SimpleNamespace(dataset=SimpleNamespace(lengths="three"))
    assert words_per_step(SimpleNamespace(train_dataloader=texts, accumulate_grad_batches=1)) is None
    assert words_per_step(SimpleNamespace(train_dataloader=None, accumulate_grad_batches=1)) is None


def weights(module: AttentionModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def trained(name: Any, *callbacks: Callback, path: Path | None = None, **options: Any) -> AttentionModule:
    """24 steps in three epochs: rows wait from the 8th on."""
    module = AttentionModule(optimizer=name, learning_rate=LR)
    trainer = Trainer(
        callbacks=list(callbacks),
        **{"max_epochs": 3, "precision": "64-true", "limit_val_batches": 0, **QUIET, **options},
    )
    torch.manual_seed(0)
    trainer.fit(module, planted(train_documents=128), ckpt_path=path, weights_only=True)
    return module


def same(module: AttentionModule, reference: AttentionModule, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    found, expected = weights(module), weights(reference)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=rtol, atol=atol)
    table = module.backbone.embedding
    assert type(table) is nn.Embedding
    assert not table.sparse
    assert not table._forward_pre_hooks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "options"),
    [
        ([], {"accumulate_grad_batches": 2, "max_epochs": 6}),
        ([AttentionIVAT()], {}),
        ([WordAT()], {}),
        ([], {"precision": "bf16-mixed"}),
    ],
)
def test_a_training_is_that_of_torchs_adam(methods: list[Callback], options: dict[str, Any], waits: list[int]) -> None:
    module, reference = (trained(name, *methods, **options) for name in ("adam", "dense_adam"))
    assert waits
    same(module, reference, **({"rtol": 0.1, "atol": 0.02} if options.get("precision") else {}))


class Before(Callback):
    """Keeps the weights that a training begins with."""

    def on_train_start(self, trainer: Trainer, pl_module: AttentionModule) -> None:
        self.weights = weights(pl_module)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
@pytest.mark.parametrize("name", ["sgd", "adam", "dense_adam"])
def test_gradients_are_clipped_in_every_precision(name: Any, precision: str) -> None:
    """Lightning refuses to clip for a fused optimizer that says it would unscale gradients, scaled or not."""
    # Lightning takes bf16 for 16 bits on a CPU, unless it is given the plugin that a GPU would get.
    scaled = {"precision": None, "plugins": MixedPrecision("16-mixed", "cpu")} if precision == "16-mixed" else {}
    options = {"precision": precision, "limit_train_batches": 1, "max_epochs": 1, **scaled}
    module = trained(name, before := Before(), gradient_clip_val=2e-3, **options)
    moved = [(value - before.weights[key]).double() for key, value in weights(module).items()]
    length = torch.cat([part.flatten() for part in moved]).norm().item()
    if name == "sgd":
        assert length == pytest.approx(LR * 2e-3, rel=0.03)
    assert length > 0


def test_who_reads_the_table_in_a_validation_finds_no_row_behind(monkeypatch, waits: list[int]) -> None:
    seen: dict[str, list[Tensor]] = {"adam": [], "dense_adam": []}
    start = AttentionModule.on_validation_start

    def noted(self: AttentionModule) -> None:
        seen[self.optimizer].append(self.backbone.embedding.weight.detach().clone())
        start(self)

    monkeypatch.setattr(AttentionModule, "on_validation_start", noted)
    module, reference = (trained(name, val_check_interval=3, limit_val_batches=1) for name in seen)
    assert waits
    assert len(seen["adam"]) > 3
    torch.testing.assert_close(seen["adam"], seen["dense_adam"], rtol=1e-5, atol=1e-7)
    same(module, reference)


@pytest.mark.parametrize("error", [KeyboardInterrupt, pytest.param(RuntimeError, marks=pytest.mark.slow)])
def test_a_training_that_is_stopped_leaves_no_row_behind(error: type[BaseException], monkeypatch, waits) -> None:
    def stopping(self: AttentionModule, *_: Any) -> None:
        if self.global_step == 21:
            raise error

    monkeypatch.setattr(AttentionModule, "on_train_batch_end", stopping)
    found = {}
    for name in ("adam", "dense_adam"):
        module = AttentionModule(optimizer=name, learning_rate=LR)
        with pytest.raises((RuntimeError, SystemExit)):
            fit(module, planted(train_documents=128), max_epochs=3, precision="64-true", limit_val_batches=0)
        found[name] = module
    assert waits
    same(found["adam"], found["dense_adam"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("adam", "adam"),
        pytest.param("adam", "dense_adam", marks=pytest.mark.slow),
        pytest.param("dense_adam", "adam", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_either_goes_on_with_the_other(before, after, tmp_path: Path, waits: list[int]) -> None:
    path = tmp_path / "two.ckpt"
    trained(before, max_epochs=2, precision="32-true").trainer.save_checkpoint(path)
    resumed = trained(after, precision="32-true", path=path)
    assert waits
    exact = {"rtol": 0, "atol": 0} if before == after else {"rtol": 1e-3, "atol": 1e-5}
    same(resumed, trained(before, precision="32-true"), **exact)


def test_a_second_training_of_a_trainer_has_one_guard() -> None:
    trainer = fit(AttentionModule(), planted())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(AttentionModule(), planted())
    assert [type(callback) for callback in trainer.callbacks].count(choice.RowsWait) == 1


def test_the_table_of_the_stock_model_is_one_that_can_wait() -> None:
    assert type(AttentionClassifier(SPEC).embedding) is nn.Embedding
