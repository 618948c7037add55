"""What is asked of methods before the first step, and of every answer that their hooks give."""

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import HOOKS, Differentiates, Method
from attn_lightning.numerics import full_precision
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm

_RENAMED = {"weights": "example_weights"}
"""Hooks by the names that they had before: a method that still has one would be trained without it."""

_EXCLUSIVE = {"attention": "attention", "task_loss": "the task loss"}
"""What only one method of a run can replace: its hook and its name."""


def check_methods(methods: list[Method], model: Backbone) -> None:
    """Refuse methods that cannot train this model together, before the first step.

    Args:
        methods: all methods of the run, flat.
        model: the backbone.

    Raises:
        ConfigurationError: see `check_hooks`, `check_requirements` and `check_exclusive`.
    """
    # A wrapper such as `Scheduled` overrides every hook to hand it on: only the method inside says what it really does.
    for method in methods:
        check_hooks(type(method.inner))
        check_requirements(method.inner, model)
    check_exclusive(methods)


def learns_from_pool(methods: Iterable[Method]) -> bool:
    """Whether any method uses examples without labels; with a weight of 0 none does."""
    return any(method.semi_supervised and method.weight > 0 for method in methods)


def ignored_pool(methods: Iterable[Method]) -> str:
    """The sentence that says so where nothing learns from a pool that is there.

    A baseline of semi-supervised training is such a run: it must take as many steps as the runs that it is compared
    with, which it does as long as the batches still come in pairs.
    """
    names = ", ".join(type(method).__name__ for method in methods) or "the task loss alone"
    return (
        f"the texts of `data.unlabeled` are ignored, since {names} does not learn from them; an epoch keeps the number "
        "of steps that it has with them, so that the run compares with one of a method that does"
    )


def check_hooks(cls: type[Method]) -> None:
    """Refuse a method that would train as the baseline: one without a hook of its own, or with an outdated one.

    Raises:
        ConfigurationError: naming the hook that was probably meant.
    """
    for old, new in _RENAMED.items():
        if callable(getattr(cls, old, None)):
            raise ConfigurationError(
                f"Expected {cls.__name__} to define `{new}`, but got `{old}`, the hook's old name; rename it."
            )
    # Nothing calls a misspelled hook: without this check the run would be vanilla under the method's name.
    if any(_overrides(cls, hook) for hook in HOOKS):
        return
    own = [name for name in dir(cls) if callable(getattr(cls, name)) and not hasattr(Method, name)]
    # A low cutoff: one wrong guess costs a word in an error, a missed one costs the user the search.
    pairs = [(name, hook) for name in own for hook in difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.5)]
    meant = f"is `{pairs[0][0]}` meant to be `{pairs[0][1]}`?" if pairs else "see `Method` for what each of them does."
    raise ConfigurationError(
        f"Expected {cls.__name__} to define at least one of {', '.join(HOOKS)}, but it defines none and would train as "
        f"the baseline; {meant}"
    )


def check_requirements(method: Method, model: Backbone) -> None:
    """Refuse a method that the model cannot serve, before the first step.

    A normalizer says how often it can be differentiated with respect to the scores (`max_derivatives`): 0 for one
    that ignores them (uniform attention), 1 for one whose second derivative is wrong or NaN. A method that perturbs
    words needs none. A compiled model has no second derivative at all. A model without a `normalizer` attribute is
    taken to be smooth.

    Raises:
        ConfigurationError: naming the method, the part of the model that cannot serve it, and what to change.
    """
    if not isinstance(model, method.requires_backbone):
        wanted = method.requires_backbone.__name__
        raise ConfigurationError(
            f"Expected a {wanted} for {type(method).__name__}, but got a {type(model).__name__}; use "
            f"`--model.backbone={wanted}` or another method."
        )
    # EMBEDDINGS asks nothing of the normalizer: hard attention has no slope by its scores, but one by its states.
    twice = method.differentiates == Differentiates.SCORES_TWICE
    needed = 2 if twice else int(method.differentiates == Differentiates.SCORES)
    normalizer = getattr(model, "normalizer", None)
    possible = getattr(normalizer, "max_derivatives", 2)
    if needed > possible:
        raise ConfigurationError(
            f"Expected a normalizer that can be differentiated {needed} time(s) for {type(method).__name__}, but "
            f"{type(normalizer).__name__} allows {possible}; use `--model.backbone.normalizer=Softmax` or another "
            "method."
        )
    # AOTAutograd compiles a first derivative only (torch 2.13): a second one fails inside of the training, not here.
    if twice and isinstance(model, torch._dynamo.OptimizedModule):
        raise ConfigurationError(
            f"Expected a model that is not compiled for {type(method).__name__}, which differentiates twice; "
            "remove `torch.compile`."
        )


def check_exclusive(methods: Iterable[Method]) -> None:
    """Refuse two methods that replace the same thing; one of weight 0 is switched off and replaces nothing.

    Raises:
        ConfigurationError: naming the methods.
    """
    # A study switches a method off by weight 0, and must then be able to leave it beside another.
    active = [type(method.inner) for method in methods if method.weight > 0]
    for hook, what in _EXCLUSIVE.items():
        names = [cls.__name__ for cls in active if _overrides(cls, hook)]
        if len(names) > 1:
            raise ConfigurationError(
                f"Expected at most one method that replaces {what}, but got {' and '.join(names)}; keep one of them."
            )


def _overrides(cls: type[Method], hook: str) -> bool:
    return getattr(cls, hook) is not getattr(Method, hook)


def extra_term(method: Method, step: TrainStep) -> LossTerm | None:
    """What `method.loss` returns for a step.

    Raises:
        ConfigurationError: something else than a `LossTerm` of a scalar or None; a plain tensor has no weight.
    """
    term: object = method.loss(step)
    name = type(method).__name__
    if term is None:
        return None
    if not isinstance(term, LossTerm):
        raise ConfigurationError(
            f"Expected `loss` of {name} to return a LossTerm or None, but got {_described(term)}; return "
            '`LossTerm("name", value, self.weight)`.'
        )
    if not isinstance(term.value, Tensor) or term.value.shape != ():
        raise ConfigurationError(
            f"Expected the value of the LossTerm `{term.name}` of {name} to be a scalar tensor, but got "
            f"{_described(term.value)}; take the mean over the examples."
        )
    return term


def answer(
    method: Method, hook: Literal["example_weights", "attention", "task_loss"], step: TrainStep
) -> Tensor | None:
    """What another hook of a method returns for a step.

    Raises:
        ConfigurationError: something else than None or a tensor of the shape that the hook promises: a (B, 1) would
            silently be broadcast to (B, B).
    """
    value: object = getattr(method, hook)(step)
    if value is None:
        return None
    expected = step.batch.mask.shape if hook == "attention" else step.batch.labels.shape
    if not isinstance(value, Tensor) or value.shape != expected:
        raise ConfigurationError(
            f"Expected `{hook}` of {type(method).__name__} to return None or a tensor of shape {tuple(expected)}, but "
            f"got {_described(value)}; return one number per {'token' if hook == 'attention' else 'example'}."
        )
    return value


def with_attention(step: TrainStep, methods: Iterable[Method]) -> TrainStep:
    """A step with the attention that a method puts in the place of the model's own.

    Only the head runs again. The scores stay the model's own, as methods that perturb them start from these.
    """
    for method in methods:
        if (attention := answer(method, "attention", step)) is not None:
            clean = step.output
            with full_precision(attention.device.type):
                output = step.model.attend(clean.hidden, clean.scores, step.batch.mask, attention)
            step = replace(step, output=replace(output, embeddings=clean.embeddings))
    return step


def _described(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
