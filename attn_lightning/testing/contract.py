"""The contract of training methods, one function per promise; each raises `AssertionError` and says what to do."""

import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.freezing import constant
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.methods.requirements import answer, check_hooks, check_requirements, extra_term
from attn_lightning.step import TrainStep
from attn_lightning.testing.small import (
    noise_of_places,
    pass_from,
    rows_of,
    settings_of,
    small_batch,
    small_model,
    small_step,
)
from attn_lightning.types import Batch

Make = Callable[..., Method]
"""A class of methods, or a function that makes one; called without arguments and with a `weight`."""

HEADINGS = ("Objective", "Source", "Own choices", "Cost", "Interactions")
"""What a method's docstring says, in this order; `--method.help` shows it."""


def objective(method: Method, step: TrainStep) -> Tensor:
    """What the module minimizes in a step with this method alone."""
    if (attention := answer(method, "attention", step)) is not None:
        clean = step.output
        again = step.model.attend(clean.hidden, clean.scores, step.batch.mask, attention)
        step = replace(step, output=replace(again, embeddings=clean.embeddings))
    losses = answer(method, "task_loss", step)
    losses = step.task_loss(step.output.logits, step.batch.labels) if losses is None else losses
    if (weights := answer(method, "example_weights", step)) is not None:
        losses = weights * losses
    term = extra_term(method, step) if method.weight > 0 else None
    return losses.mean() if term is None else losses.mean() + term.weight * term.value


def term_value(method: Method, step: TrainStep, seed: int = 3) -> Tensor:
    """The value of the method's term for a seed."""
    torch.manual_seed(seed)
    term = extra_term(method, step)
    _require(term is not None, method, "a term in a step without phases", "None", "return a LossTerm")
    assert term is not None
    return term.value


def _require(condition: Any, method: Method | type, expected: str, found: str, advice: str) -> None:
    """Raise `AssertionError`, also under `python -O`, unless the condition holds."""
    if not condition:
        name = method.__name__ if isinstance(method, type) else type(method).__name__
        # Raised by hand: `assert` would be compiled away, and with it the whole contract.
        raise AssertionError(f"Expected {expected} of {name}, but got {found}; {advice}.")


def _gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = list(model.parameters())
    return list(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True, materialize_grads=True))


def _close(found: Tensor, expected: Tensor, method: Method, what: str, advice: str) -> None:
    # Room for another order of adding in float32, and for nothing more.
    close = torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    _require(close, method, f"{what} to be {_shown(expected)}", _shown(found), advice)


def _shown(value: Tensor) -> str:
    return f"{value.item():.7g}" if value.dim() == 0 else f"a tensor that sums to {value.sum().item():.7g}"


def check_card(make: Make) -> None:
    """The docstring has the fixed headings in their order, and says what every argument is."""
    cls = type(make())
    card = inspect.cleandoc(cls.__dict__.get("__doc__") or "").splitlines()
    found = tuple(line[:-1] for line in card if line.endswith(":") and line[:-1] in HEADINGS)
    _require(found == HEADINGS, cls, f"a docstring with the headings {', '.join(HEADINGS)}", str(found), "add them")
    said = {line.strip().split(":")[0] for line in card}
    missing = [name for name in inspect.signature(cls).parameters if name not in {"weight", *said}]
    _require(not missing, cls, "a line `name: meaning` per argument", f"none for {', '.join(missing)}", "add them")


def check_options(make: Make) -> None:
    """A hook is defined, a weight that is negative or no number is refused, and the model is served or refused."""
    method = make()
    check_hooks(type(method))
    # NaN passes every comparison that is written the wrong way round.
    for weight in (-1.0, float("nan")):
        try:
            make(weight=weight)
        except ConfigurationError:
            continue
        _require(False, method, f"`weight={weight}` to be refused", "a method", "call `super().__init__(weight)`")
    check_requirements(method, small_model(AttentionClassifier, method.requires_backbone))


def check_term(make: Make, model: Backbone) -> None:
    """The term is a finite float32 scalar with graph, its logged values are detached; the encoder runs as declared."""
    method = make(weight=0.25)
    step, passes = small_step(model, small_batch()), method.encoder_passes
    # Counted and not timed, so that the promise holds on every machine.
    with mock.patch.object(model, "encode", wraps=model.encode) as encode:
        term = extra_term(method, step)
    found = encode.call_count
    _require(found == passes, method, f"{passes} more passes of the encoder", str(found), "declare `encoder_passes`")
    _require(term is not None, method, "a term in a step without phases", "None", "return a LossTerm")
    assert term is not None
    name, value = term.name, term.value
    _require(name.isidentifier() and name.islower(), method, "a short lower-case name of the term", name, "rename it")
    _require(term.weight == 0.25, method, "the term's weight to be `self.weight`", f"{term.weight}", "pass it on")
    _require(value.dtype == torch.float32, method, "a float32 term", str(value.dtype), "compute it in full precision")
    _require(value.requires_grad, method, "a term with a graph", "a constant", "do not detach it")
    _require(torch.isfinite(value), method, "a finite term", _shown(value), "see `attn_lightning.numerics`")
    for key, log in term.logs.items():
        sound = not log.requires_grad and log.shape == () and bool(torch.isfinite(log))
        _require(sound, method, f"the logged `{key}` to be a finite detached scalar", str(log), "detach it")


def check_nothing_is_left(make: Make, model: Backbone) -> None:
    """No gradient, no changed weight and no tensor in the method is left behind by a step."""
    method, step = make(), small_step(model, small_batch())
    before = copy.deepcopy(model.state_dict())
    extra_term(method, step)
    clean = all(parameter.grad is None for parameter in model.parameters())
    _require(clean, method, "no gradients before the backward pass", "some", "use `torch.autograd.grad`")
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    _require(same, method, "the model as it was", "changed weights or another mode", "leave both alone")
    # A tensor that is kept holds its graph, and with it the memory of a whole step.
    kept = [name for name, value in vars(method).items() if isinstance(value, Tensor | nn.Module | TrainStep)]
    _require(not kept, method, "no tensors kept between steps", ", ".join(kept), "compute them anew")


def check_seed(make: Make, model: Backbone) -> None:
    """The same seed gives the same value, also after pickling."""
    method, step = make(weight=0.5), small_step(model, small_batch())
    # Lightning pickles callbacks where it starts processes.
    again = pickle.loads(pickle.dumps(method))
    values = [term_value(each, step) for each in (method, method, again)]
    same = torch.equal(values[0], values[1]) and torch.equal(values[0], values[2])
    _require(same, method, "one value for one seed, pickled or not", str(values), "draw from torch's generator")


def check_weight_zero(make: Make, model: Backbone) -> None:
    """At weight 0 loss and gradients are those of the baseline, to the bit."""
    method = make(weight=0.0)
    step = small_step(model, small_batch())
    baseline, total = step.task_loss(step.output.logits, step.batch.labels).mean(), objective(method, step)
    _require(torch.equal(total, baseline), method, f"the baseline's loss {baseline:.9g} at weight 0", f"{total:.9g}",
             "return None from the hooks that replace something")  # fmt: skip
    same = all(map(torch.equal, _gradients(total, model), _gradients(baseline, model)))
    _require(same, method, "the baseline's gradients at weight 0", "others", "return None from the hooks")


def check_half_precision(make: Make, model: Backbone) -> None:
    """Under bfloat16 autocast the term is float32 and near to what it is without."""
    method = make()
    with mock.patch.object(torch, "randn_like", noise_of_places):
        expected = term_value(method, small_step(model, small_batch()))
        with torch.autocast("cpu", torch.bfloat16):
            found = term_value(method, small_step(model, small_batch()))
    near = found.dtype == torch.float32 and torch.allclose(found, expected, rtol=0.1, atol=0.02)
    _require(near, method, f"about {_shown(expected)} in float32 under bfloat16", f"{found.dtype} {_shown(found)}",
             "compute the term inside `full_precision`")  # fmt: skip


def check_padding_and_order(make: Make, model: Backbone) -> None:
    """Neither values at padding nor the order of the batch change the term or its gradients."""
    method, batch = make(), small_batch()
    clean = model(batch.tokens, batch.mask)
    # Large, as padding that leaks with a small weight must show.
    junk = torch.full_like(clean.scores, 40.0).masked_fill(batch.mask, 0.0)
    junk[:, junk.shape[1] - getattr(model, "columns_behind", 0) :] = 0.0  # a second text is no padding to the model
    dirty = model.attend(clean.hidden + junk.unsqueeze(-1), clean.scores + junk, batch.mask)
    # No row stays where it was.
    order = torch.tensor([2, 0, 3, 1])
    with mock.patch.object(torch, "randn_like", noise_of_places):
        expected = term_value(method, small_step(model, batch, clean))
        others = {
            "with other values at padding": small_step(model, batch, replace(dirty, embeddings=clean.embeddings)),
            "in another order of the batch": small_step(model, rows_of(batch, order)),
        }
        for what, step in others.items():
            found = term_value(method, step)
            _close(found, expected, method, f"the term {what}", "use the mask, and means over examples")
            for got, want in zip(_gradients(found, model), _gradients(expected, model), strict=True):
                _close(got, want, method, f"the gradient {what}", "use the mask, and means over examples")


def check_unlabeled(make: Make, model: Backbone) -> None:
    """Unlabelled examples change the term exactly where the method says so (`semi_supervised`)."""
    method, step, extra = make(), small_step(model, small_batch()), small_batch(5, 7, seed=8)
    both = replace(step, unlabeled=extra, unlabeled_output=model(extra.tokens, extra.mask))
    with mock.patch.object(torch, "randn_like", noise_of_places):
        changed = bool(term_value(method, both) != term_value(method, step))
    declared = method.semi_supervised
    _require(changed == declared, method, f"`semi_supervised` to be {changed}", str(declared), "declare what it does")


def check_descent(make: Make, model: Backbone) -> None:
    """Twenty steps along its own gradient, on free scores, states or words, lower the term: its sign is right."""
    # Both signs of the noise: with the clean prediction held constant, the first-order gradient of a divergence points
    # away from the perturbation, whichever sign that has, and only the mean over both follows the term itself.
    method, batch, values = make(**settings_of(make).descent), small_batch(), []
    on_words = method.differentiates >= Differentiates.EMBEDDINGS
    torch.manual_seed(5)
    embeddings = model.embed(batch.tokens).detach().requires_grad_()
    hidden = torch.randn_like(model.encode(embeddings, batch.mask)).requires_grad_()
    scores = torch.randn(batch.mask.shape).requires_grad_()
    for _ in range(21):
        output = pass_from(model, embeddings, batch.mask) if on_words else model.attend(hidden, scores, batch.mask)
        step, total = small_step(model, batch, output), torch.zeros(())
        for sign in (1.0, -1.0):
            with mock.patch.object(torch, "randn_like", lambda like, sign=sign, **_: sign * noise_of_places(like)):
                total = total + term_value(method, step) / 2
        # A term on the states or words alone has no gradient for scores: those are then what is free.
        places = (scores, hidden, embeddings)
        found = zip(places, torch.autograd.grad(total, places, allow_unused=True), strict=True)
        free, gradient = next(pair for pair in found if pair[1] is not None)
        with torch.no_grad():
            free -= 0.3 * gradient
        values.append(total.item())
    falls = values[-1] < values[0]
    _require(falls, method, "twenty gradient steps to lower the term", f"{values[0]:.6g} to {values[-1]:.6g}",
             "turn the sign round, or give a `descent` setting")  # fmt: skip


@contextmanager
def _replayed_constants(tape: list[Any]) -> Iterator[None]:
    """Whatever a method takes as a constant keeps the value of the first run, so that the rest can be differentiated.

    Constants are what it detaches and what `torch.autograd.grad` returns without a graph.
    """
    recording, position, detach, grad = not tape, iter(range(10**6)), Tensor.detach, torch.autograd.grad

    def first_value(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        index = next(position)
        if recording:
            tape.append(function(*args, **kwargs))
        kept = tape[index]
        if kept is None or isinstance(kept, tuple):
            return kept and tuple(g if g is None else g.clone() for g in kept)
        return detach(kept).clone()

    def constant_gradient(*args: Any, create_graph: bool = False, **kwargs: Any) -> Any:
        if create_graph:
            return grad(*args, create_graph=True, **kwargs)  # type: ignore[call-overload]
        return first_value(grad, *args, **kwargs)

    with (
        mock.patch.object(Tensor, "detach", lambda self: first_value(detach, self)),
        mock.patch.object(torch.autograd, "grad", constant_gradient),
    ):
        yield


def check_gradient(make: Make, model: Backbone) -> None:
    """In float64 the gradient is that of finite differences, and the second one where the method needs it."""
    method, batch, tape = make(), small_batch(3, 5), []  # type: ignore[var-annotated]
    model = model.double()
    embeddings = model.embed(batch.tokens).detach().requires_grad_()

    def value(embeddings: Tensor) -> Tensor:
        output = pass_from(model, embeddings, batch.mask)
        with _replayed_constants(tape):
            return term_value(method, small_step(model, batch, output))

    torch.autograd.gradcheck(value, embeddings, fast_mode=True)
    if method.differentiates == Differentiates.SCORES_TWICE:
        torch.autograd.gradgradcheck(value, embeddings, fast_mode=True)


def check_halves(make: Make, model: Backbone) -> None:
    """Two processes with half of a batch each, whose gradients DDP averages, do what one does with all of it.

    Every parameter must have a gradient or be `frozen`, as DDP waits for all of them.
    """
    method, batch = make(), small_batch()
    model = model.double()
    halves = [rows_of(batch, torch.arange(2) * 2 + rank) for rank in range(2)]

    def gradients(part: Batch) -> list[Tensor | None]:
        frozen = list(method.frozen(model))
        with mock.patch.object(torch, "randn_like", noise_of_places), constant(frozen):
            total = objective(method, small_step(model, part))
        learned = [p for p in model.parameters() if p.requires_grad and not any(p is other for other in frozen)]
        return list(torch.autograd.grad(total, learned, allow_unused=True))

    whole, parts = gradients(batch), [gradients(half) for half in halves]
    used = all(gradient is not None for gradient in whole)
    _require(used, method, "every parameter to have a gradient", "some without", "name the others in `frozen`")
    for expected, first, second in zip(whole, *parts, strict=True):
        assert expected is not None
        assert first is not None
        assert second is not None
        _close((first + second) / 2, expected, method, "the mean gradient of two halves", "use means over examples")
