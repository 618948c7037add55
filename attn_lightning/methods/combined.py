"""Methods made of methods: several in one run, and one whose weight follows a schedule."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.requirements import check_exclusive, extra_term
from attn_lightning.methods.schedules import Schedule, weight_factor
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm


class _Composite(Method):
    """A method that hands every Lightning hook on to its parts, in their order, and keeps their states.

    Args:
        parts: the methods inside.
        weight: see `Method`.
    """

    def __init__(self, parts: list[Method], weight: float = 1.0) -> None:
        super().__init__(weight)
        self.parts = parts

    @property
    def models(self) -> Mapping[str, Path]:
        """Those of the parts."""
        return {option: path for part in self.parts for option, path in part.models.items()}

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts that have one, so that phases survive a checkpoint."""
        return {key: state for key, part in self._keyed_parts() if (state := part.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give every part its state back."""
        for key, part in self._keyed_parts():
            if key in state_dict:
                part.load_state_dict(state_dict[key])

    def _keyed_parts(self) -> list[tuple[str, Method]]:
        # With the place in front, since two parts may be of one class and would share their state.
        return [(f"{index}_{part.state_key}", part) for index, part in enumerate(self.parts)]


def _handed_on(name: str) -> Callable[..., None]:
    def hook(self: _Composite, *args: Any, **kwargs: Any) -> None:
        for part in self.parts:
            getattr(part, name)(*args, **kwargs)

    hook.__name__ = name
    return hook


# From Lightning's own list: a hook that a later version adds reaches the parts without a line here.
for _name in vars(Callback):
    if _name.startswith("on_") or _name in ("setup", "teardown"):
        setattr(_Composite, _name, _handed_on(_name))


class Combined(_Composite):
    """Several methods in one run.

    Objective:
        `L = mean_i (prod_m w_{m,i}) L_task,i + sum_m weight_m L_m`: the terms of the methods add, each with its own
        weight, and their factors of examples multiply.

    Source:
        None; terms add because each paper adds its own to the task loss.

    Own choices:
        The training module asks the methods one by one, as if each were attached to the trainer, and logs each term
        under its own name; a `Combined` inside another is taken apart. Values and gradients are those of the sum; only
        methods that draw random numbers see other draws than alone.

    Cost:
        The sum of the methods' costs; the clean pass is shared.

    Interactions:
        At most one method may replace attention, and at most one the task loss; two are refused before the first step.

    Args:
        methods: two or more methods, or one; each with its own options.

    Raises:
        ConfigurationError: no methods, or two that replace the same thing.
    """

    def __init__(self, methods: list[Method]) -> None:
        # Taken apart, so that the module asks each method by itself and checks and logs do not meet a tree.
        super().__init__(list(flatten(methods)))
        if not self.parts:
            raise ConfigurationError(
                "Expected `methods` of Combined to name at least one method, but got none; leave `--method` out to "
                "train the baseline."
            )
        check_exclusive(self.parts)


class Scheduled(_Composite):
    """One method whose weight follows a schedule.

    Objective:
        `L = L_task + factor(progress) * weight * L_m` with the method's own weight and term; for the factor see
        `schedule`. `progress` is the share of the training's steps that is done.

    Source:
        None; a warm-up lets the model learn the task before the term has a say.

    Own choices:
        The factor is a function of the progress alone, so a resumed run goes on where it was. Where it is 0 the term is
        not even computed. The weight that was used is logged with the term, as `train/<term>_weight` (mean over the
        epoch).

    Cost:
        That of the method.

    Interactions:
        Only the extra term is scheduled: attention, task loss and factors of examples that the method may replace are
        passed on as they are. Needs a training of known length. Inside `Combined` every method can have a schedule of
        its own; around it is refused.

    Args:
        method: the method with its options.
        schedule: warmup, linear from 0 to 1; cosine, from 1 to 0; cosine_rise, from 0 to 1; constant, 1.
        fraction: share of the training, above 0 and at most 1, over which the factor changes.

    Raises:
        ConfigurationError: an argument is out of its range; the method adds no term; the training has no known end.
    """

    def __init__(self, method: Method, schedule: Schedule = "warmup", fraction: float = 1.0) -> None:
        super().__init__([method], method.weight)
        _check_schedulable(method)
        check_choice(self, choices=get_args(Schedule), schedule=schedule)
        check_numbers(self, above=0, at_most=1, advice="1 is a change over the whole training", fraction=fraction)
        self.schedule: Schedule = schedule
        self.fraction = fraction
        # The demands are those of the method inside; a class cannot know them.
        self.differentiates = method.differentiates  # type: ignore[misc]
        self.encoder_passes = method.encoder_passes  # type: ignore[misc]
        self.semi_supervised = method.semi_supervised  # type: ignore[misc]

    @property
    def method(self) -> Method:
        """The method inside."""
        return self.parts[0]

    @property
    def inner(self) -> Method:
        """The method that does the work, within all schedules."""
        return self.method.inner

    @property
    def state_key(self) -> str:
        """Of its own for every class of methods, as two schedules may be attached to one trainer."""
        return f"Scheduled[{self.method.state_key}]"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a training without a known end: its progress would stay 0."""
        if not 0 < trainer.estimated_stepping_batches < float("inf"):
            raise ConfigurationError(
                f"Expected a training of known length for the schedule of {type(self.method).__name__}, but got one "
                "without an end; set `trainer.max_epochs` or `trainer.max_steps`."
            )
        super().on_train_start(trainer, pl_module)

    def loss(self, step: TrainStep) -> LossTerm | None:
        """The method's term with its weight of this step."""
        # Of the progress, not of a counter: after a resumption it is where it was, with nothing to store.
        factor = weight_factor(self.schedule, step.progress, self.fraction)
        # A factor of 0 costs nothing, neither passes of the model nor random numbers, so the run starts as the
        # baseline.
        term = extra_term(self.method, step) if factor > 0 else None
        if term is None:
            return None
        weight = factor * term.weight
        # Logged as a tensor on the device: a float would be copied there at every step.
        return replace(term, weight=weight, logs={**term.logs, "weight": torch.full_like(term.value.detach(), weight)})

    def example_weights(self, step: TrainStep) -> Tensor | None:
        """Those of the method, not scheduled."""
        return self.method.example_weights(step)

    def attention(self, step: TrainStep) -> Tensor | None:
        """That of the method, not scheduled."""
        return self.method.attention(step)

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """That of the method, not scheduled."""
        return self.method.task_loss(step)

    def frozen(self, model: Backbone) -> Sequence[nn.Parameter]:
        """Those of the method, not scheduled."""
        return self.method.frozen(model)


def flatten(callbacks: Iterable[Callback]) -> Iterable[Method]:
    """The methods among these callbacks, with every `Combined` taken apart."""
    for callback in callbacks:
        if isinstance(callback, Combined):
            yield from callback.parts
        elif isinstance(callback, Method):
            yield callback


def _check_schedulable(method: Method) -> None:
    if isinstance(method, Combined):
        raise ConfigurationError(
            "Expected one method inside Scheduled, but got Combined; give the methods inside Combined a schedule each."
        )
    inner = type(method.inner)
    # What replaces attention or the task loss has no factor: scheduled, it would be on all the time in silence.
    if inner.loss is Method.loss:
        raise ConfigurationError(
            f"Expected a method with an extra term inside Scheduled, but {inner.__name__} adds none that a schedule "
            "could weight; use it without."
        )
