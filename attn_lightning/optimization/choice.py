"""The optimizer that the options of a training ask for."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import Trainer
from torch import nn

from attn_lightning.checks import check_choice
from attn_lightning.errors import ConfigurationError
from attn_lightning.optimization.rows import RowAdam

OptimizerName = Literal["adam", "row_adam", "sgd"]


def make_optimizer(
    name: OptimizerName,
    groups: list[dict[str, Any]],
    table: nn.Module | None,
    *,
    lr: float,
    amsgrad: bool,
    momentum: float,
) -> torch.optim.Optimizer:
    """One kernel for all parameters; under `row_adam` the word vectors move when they are read.

    Args:
        name: adam, row_adam or sgd.
        groups: of parameters.
        table: the word vectors; only for row_adam, see `check_row_adam`.
        lr: of groups that have none of their own.
        amsgrad: of adam.
        momentum: of sgd.
    """
    check_choice(choices=get_args(OptimizerName), optimizer=name)
    # Fused: one kernel instead of several per parameter, and most of a small model's step is their launches.
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, amsgrad=amsgrad, fused=True)
    assert isinstance(table, nn.Embedding), "check_row_adam was asked"
    return RowAdam(groups, table, lr)


def check_row_adam(table: nn.Module | None, trainer: Trainer, amsgrad: bool, readers: Sequence[str]) -> None:
    """Refuse `row_adam` where a row could be read before it is up to date, or its mathematics does not hold.

    Args:
        table: the word vectors of the model.
        trainer: of the training.
        amsgrad: whether the second moment only grows, which the sums over idle steps rest on.
        readers: names of methods that read word vectors in another way than by looking words up.

    Raises:
        ConfigurationError: what stands in the way.
    """
    learned = isinstance(table, nn.Embedding) and table.weight.requires_grad
    obstacles = {
        "`model.amsgrad: true`, without which idle rows move in another way": not amsgrad,
        "a model with an `nn.Embedding` that learns": not learned,
        "one process on a CPU": trainer.world_size > 1 or trainer.strategy.root_device.type != "cpu",
        "no `trainer.gradient_clip_val`, which knows dense gradients only": bool(trainer.gradient_clip_val),
        f"no method that perturbs words, such as {', '.join(readers)}, which reads other rows": bool(readers),
    }
    for expected, met in obstacles.items():
        if met:
            raise ConfigurationError(f"Expected {expected}, for `model.optimizer: row_adam`; use `adam` otherwise.")
