"""Which parameters learn at which rate, and how the rate of a pretrained encoder moves in a training."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.errors import ConfigurationError


def parameter_groups(module: nn.Module, model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: with weight decay, without (word vectors, scorer), and those of the encoder's own rates.

    Args:
        module: all of whose parameters learn that may.
        model: the backbone; one of the user's own may name what weight decay spares, or leave everything to it.
        weight_decay: of the first group and of the encoder's.

    Returns:
        Groups that are not empty; those with a rate of their own (`lr`) last.
    """
    own: list[tuple[list[nn.Parameter], float]] = []
    if isinstance(encoder := getattr(model, "encoder", None), Encoder):
        own = [([p for p in group if p.requires_grad], rate) for group, rate in encoder.learning_rates()]
    # By identity: `in` would compare tensors by their values.
    apart = {id(parameter) for group, _ in own for parameter in group}
    names = ("attention_parameters", "embedding_parameters")
    excluded: set[int] = {id(parameter) for name in names for parameter in getattr(model, name, list)()}
    trainable = [p for p in module.parameters() if p.requires_grad and id(p) not in apart]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if id(p) not in excluded], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) in excluded], "weight_decay": 0.0},
        *({"params": group, "weight_decay": weight_decay, "lr": rate} for group, rate in own),
    ]
    return [group for group in groups if group["params"]]


def with_schedule(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], warmup: float, steps: Callable[[], float]
) -> OptimizerLRScheduler:
    """The optimizer, and a schedule for the groups that have a rate of their own; without such it stays alone.

    The head learns from nothing at a constant rate, while a pretrained encoder must not forget in its first steps.

    Args:
        optimizer: over the groups.
        groups: see `parameter_groups`.
        warmup: share of the training in which these rates rise.
        steps: of the whole training; asked for only where it is needed.

    Raises:
        ConfigurationError: the training has no end, at which these rates would be 0.
    """
    if not any("lr" in group for group in groups):
        return optimizer
    # LambdaLR takes one function for every group, those that stay as they are too.
    total = steps()
    if not math.isfinite(total):
        raise ConfigurationError(
            "Expected a training with an end for an encoder whose learning rate falls to 0 until then, but got no "
            "number of epochs or steps; use `--trainer.max_epochs` or `--trainer.max_steps`."
        )
    moving = partial(linear_schedule, total=int(total), warmup=warmup)
    shapes: list[Callable[[int], float]] = [moving if "lr" in group else _constant for group in groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shapes)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Up from 0 in the first part of a training, then down to 0, both linearly.

    Args:
        step: optimizer steps so far.
        total: of the whole training.
        warmup: share of them in which the rate rises, in [0, 1).

    Returns:
        The factor on the learning rate, in [0, 1]. The first step has one above 0, or it would be for nothing.
    """
    rising = warmup * total
    if step + 1 <= rising:
        return (step + 1) / rising
    return max(0.0, (total - step) / max(1.0, total - rising))


def _constant(step: int) -> float:  # noqa: ARG001  (a schedule is a function of the step)
    return 1.0
