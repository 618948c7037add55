"""A method that breaks a promise is told which one; those of the package are held to it in `tests/contract`."""

from functools import partial

import pytest
import torch

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import Method
from attn_lightning.testing import check_method
from attn_lightning.testing.contract import (
    check_card,
    check_descent,
    check_gradient,
    check_half_precision,
    check_halves,
    check_nothing_is_left,
    check_options,
    check_padding_and_order,
    check_seed,
    check_term,
    check_unlabeled,
    check_weight_zero,
)
from attn_lightning.testing.small import SmallModel, small_model
from attn_lightning.types import LossTerm


class Squares(Method):
    """A sound method: small logits.

    Objective:
        `L = L_task + weight * mean_i sum_c z_{i,c}^2`.

    Source:
        None.

    Own choices:
        None.

    Cost:
        Nothing.

    Interactions:
        None.

    Args:
        weight: lambda, 0 or more.
    """

    def loss(self, step):
        return LossTerm("squares", self.value(step), self.weight)

    def value(self, step):
        return step.output.logits.square().sum(-1).mean()


def broken(**changes):
    return type("Broken", (Squares,), {"__doc__": Squares.__doc__, **changes})


def with_value(function):
    return broken(value=lambda self, step: function(step))


class Clocked(Squares):
    """Another value at every call."""

    def value(self, step):
        return step.output.logits.mean() + next(CLOCK)


CLOCK = iter(range(100))


def with_log(self, step):
    value = self.value(step)
    return LossTerm("squares", value, self.weight, {"again": value})


def keeps(self, step):
    self.kept = step.output.logits
    return LossTerm("squares", self.value(step), self.weight)


def leaves_a_gradient(self, step):
    step.output.logits.sum().backward(retain_graph=True)
    return LossTerm("squares", self.value(step), self.weight)


def unbounded(self, weight=1.0):
    self.weight = weight


def always_doubles(self, step):
    return torch.full((len(step.batch.labels),), 2.0)


def counts_the_pool(self, step):
    extra = 0 if step.unlabeled_output is None else step.unlabeled_output.logits.square().mean()
    return LossTerm("squares", self.value(step) + extra, self.weight)


def in_the_autocast_type(step):
    return (step.output.hidden @ step.output.hidden.mT).mean()


def twice_the_encoder(self, step):
    step.model(step.batch.tokens, step.batch.mask)
    return LossTerm("squares", self.value(step), self.weight)


def wrong_gradient(step):
    logits = step.output.logits
    return (logits.square() + 3 * (logits - logits.data)).sum(-1).mean()


@pytest.mark.parametrize(
    ("check", "cls", "message"),
    [
        (check_card, broken(__doc__="No card."), "a docstring with the headings"),
        (check_card, broken(__init__=lambda self, epsilon=1.0: Squares.__init__(self)), "none for epsilon"),
        (check_options, broken(__init__=unbounded), r"`weight=-1.0` to be refused"),
        (check_term, with_value(lambda step: step.output.logits.square().mean().detach()), "with a graph"),
        (check_term, with_value(lambda step: step.output.logits.square().mean() / 0), "a finite term"),
        (check_term, with_value(lambda step: step.output.logits.double().mean()), "a float32 term"),
        (check_term, broken(loss=with_log), "the logged `again`"),
        (check_term, broken(loss=twice_the_encoder), "0 more passes of the encoder"),
        (check_nothing_is_left, broken(loss=keeps), "no tensors kept"),
        (check_nothing_is_left, broken(loss=leaves_a_gradient), "no gradients before"),
        (check_seed, Clocked, "one value for one seed"),
        (check_weight_zero, broken(example_weights=always_doubles), "the baseline's loss"),
        (check_half_precision, with_value(in_the_autocast_type), "float32 under bfloat16"),
        (check_padding_and_order, with_value(lambda step: step.output.scores.mean()), "other values at padding"),
        (check_padding_and_order, with_value(lambda step: step.output.logits[0].sum()), "another order"),
        (check_unlabeled, broken(loss=counts_the_pool), "`semi_supervised` to be True"),
        (check_halves, with_value(lambda step: step.output.logits.square().sum()), "mean gradient of two halves"),
    ],
)  # fmt: skip
def test_a_broken_promise_is_named(check, cls, message):
    arguments = (cls,) if check in (check_card, check_options) else (cls, small_model(SmallModel))
    with pytest.raises(AssertionError, match=message):
        check(*arguments)


def test_a_term_that_rises_along_its_gradient_is_found():
    class Rises(Squares):
        def value(self, step):
            attention = step.output.attention
            # The value of one thing with the gradient of another: minimizing it raises the largest weight.
            return (
                attention.square().sum(-1).mean().detach()
                - (attention - attention.detach()).square().sum()
                - (attention.amax(-1) - attention.amax(-1).detach()).mean()
            )

    with pytest.raises(AssertionError, match="twenty gradient steps"):
        check_descent(Rises, small_model(SmallModel))


def test_a_gradient_that_is_not_the_values_is_found():
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        check_gradient(with_value(wrong_gradient), small_model(SmallModel))


def test_a_parameter_without_gradient_must_be_frozen():
    class Skips(Squares):
        def attention(self, step):
            return step.batch.mask / step.batch.mask.sum(1, keepdim=True)

    class Says(Skips):
        def frozen(self, model):
            return [model.query]

    with pytest.raises(AssertionError, match="every parameter to have a gradient"):
        check_halves(Skips, small_model(SmallModel))
    check_halves(Says, small_model(SmallModel))


def test_a_sound_method_passes_as_a_class_and_as_a_function():
    check_method(Squares)
    check_options(partial(Squares, weight=0.5))


def test_a_misspelled_hook_is_refused():
    class Misspelled(Method):
        """No card."""

        def los(self, step):
            return None

    with pytest.raises(ConfigurationError, match="`los` meant to be `loss`"):
        check_options(Misspelled)
