"""The optimizer that the options of a training ask for, and where it lets word vectors wait."""

import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
    Timer,
)
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from attn_lightning.data.batching import EncodedTexts
from attn_lightning.optimization.rows import RowAdam

logger = logging.getLogger(__name__)

OptimizerName = Literal["adam", "dense_adam", "sgd"]

ROWS_PER_WORD, FEWEST_ROWS = 8, 2000
"""Rows may wait in a table that has so many per word of a step, and so many more. A row that is read and learns takes
ten times as long as one in a pass over the whole table, and about every second word of a step is another one."""

_ONLY_WATCH = (
    Checkpoint, DeviceStatsMonitor, EarlyStopping, LearningRateMonitor, ModelSummary, ProgressBar, Timer,
)  # fmt: skip


def make_optimizer(
    name: OptimizerName,
    groups: list[dict[str, Any]],
    model: nn.Module,
    *,
    lr: float,
    amsgrad: bool,
    momentum: float,
) -> torch.optim.Optimizer:
    """One kernel for all parameters; for `adam` one whose word vectors can wait where there are such.

    Args:
        name: adam, dense_adam or sgd.
        groups: of parameters.
        model: the backbone.
        lr: of groups that have none of their own.
        amsgrad: of adam.
        momentum: of sgd.
    """
    # Fused: one kernel instead of several per parameter, and most of a small model's step is their launches.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    table = getattr(model, "embedding", None)
    # Without amsgrad the second moment falls while a row waits; with weight decay every row moves at every step.
    if name == "adam" and amsgrad and type(table) is nn.Embedding and _decay(table, groups) == 0:
        return RowAdam(groups, table, lr)
    return torch.optim.Adam(groups, lr=lr, amsgrad=amsgrad, fused=True)


class RowsWait(Callback):
    """Lets the rows of an optimizer wait within epochs, where nobody can read one that is behind.

    It has to stand before all other callbacks, so that these find all rows up to date.

    Args:
        optimizer: of the module.
    """

    def __init__(self, optimizer: RowAdam) -> None:
        self.optimizer = optimizer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out whether rows may wait; the log says what stands in the way."""
        reason = next(obstacles(trainer, pl_module, self.optimizer.table), None)
        if reason is None:
            self.optimizer.attach()
            logger.debug("word vectors move when they are read")
        else:
            logger.debug("all word vectors move at every step: %s", reason)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring all rows up to date."""
        self.optimizer.bring_up_to_date()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring all rows up to date."""
        self.optimizer.bring_up_to_date()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave an ordinary table."""
        self.optimizer.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave an ordinary table, also when the user stops the training."""
        self.optimizer.release()


def adapt(optimizer: torch.optim.Optimizer, trainer: Trainer) -> None:
    """What an optimizer of `make_optimizer` has to know of the training that it serves; see `let_rows_wait` for words.

    Args:
        optimizer: of the training.
        trainer: whose training begins.
    """
    if isinstance(optimizer, RowAdam):
        let_rows_wait(trainer, optimizer)
    if trainer.gradient_clip_val:
        # It says that the kernel takes gradients that are still scaled. Lightning refuses to clip for whoever says so
        # in any mixed precision; without it gradients are unscaled before they are clipped, and the kernel is the same.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def let_rows_wait(trainer: Trainer, optimizer: RowAdam) -> None:
    """Put `RowsWait` in front of the callbacks, in the place of one of an earlier training."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [RowsWait(optimizer), *(callback for callback in callbacks if type(callback) is not RowsWait)]


def obstacles(trainer: Trainer, module: LightningModule, table: nn.Embedding) -> Iterator[str]:
    """Why rows may not wait: who could read one that is behind, or where a pass over all of them is as fast.

    Args:
        trainer: whose training begins.
        module: with the model.
        table: of the word vectors.
    """
    if type(trainer.strategy) is not SingleDeviceStrategy or trainer.strategy.root_device.type != "cpu":
        yield "there is not one process on a CPU"
    if str(trainer.precision) not in ("32-true", "64-true", "bf16-mixed"):
        yield "weights are not kept in full precision"
    if trainer.gradient_clip_val:
        yield "gradients are clipped"
    if table.max_norm is not None or table.scale_grad_by_freq:
        yield "the table changes itself"
    methods: list[Any] = [method.inner for method in getattr(module, "methods", [])]
    yield from (f"{type(method).__name__} reads the whole table" for method in methods if method.reads_word_table)
    model = getattr(module, "backbone", None) or module
    strangers = [
        part for part in (module, *model.modules(), *methods) if _package(part) not in ("attn_lightning", "torch")
    ]
    strangers += [callback for callback in trainer.callbacks if not _only_watches(callback)]  # type: ignore[attr-defined]
    yield from (f"{type(part).__name__} may read them" for part in strangers)
    parts = list(module.modules())
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
        yield "a hook may read them"
    if sum(weight is table.weight for part in parts for weight in part._parameters.values()) > 1:
        yield "another layer shares them"
    words = words_per_step(trainer)
    if words is None or len(table.weight) < ROWS_PER_WORD * words + FEWEST_ROWS:
        yield f"a step reads too many of them ({words} words, {len(table.weight)} rows)"


def words_per_step(trainer: Trainer) -> int | None:
    """Words that a step of the optimizer reads in the mean over an epoch; None where the data does not say."""
    loaders: Any = trainer.train_dataloader
    total = 0.0
    for loader in loaders.values() if isinstance(loaders, dict) else [loaders]:
        data = getattr(loader, "dataset", None)
        if not isinstance(data, EncodedTexts):
            return None
        second = data.second_lengths
        total += float(data.lengths.sum() + (0 if second is None else second.sum())) / len(loader)
    return round(total * trainer.accumulate_grad_batches)


def _decay(table: nn.Embedding, groups: list[dict[str, Any]]) -> float | None:
    """The weight decay of a table; None if it does not learn."""
    found = [group["weight_decay"] for group in groups for parameter in group["params"] if parameter is table.weight]
    return found[0] if found else None


def _package(part: object) -> str:
    return type(part).__module__.partition(".")[0]


def _only_watches(callback: Callback) -> bool:
    package = _package(callback)
    return package == "attn_lightning" or (package == "lightning" and isinstance(callback, _ONLY_WATCH))
