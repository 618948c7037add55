"""What a method is before it does anything: a factor that can be one, and hooks that change nothing."""

import inspect

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import Method
from attn_lightning.methods.base import HOOKS
from attn_lightning.testing import SmallModel
from attn_lightning.testing.small import SPEC, small_batch, small_step


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_no_factor_is_refused(weight):
    with pytest.raises(ConfigurationError, match="weight"):
        Method(weight)


def test_a_method_that_defines_nothing_leaves_the_training_alone():
    model = SmallModel(SPEC)
    step, method = small_step(model, small_batch()), Method()
    assert [getattr(method, hook)(model if hook == "frozen" else step) for hook in HOOKS] == [None] * 4 + [[]]
    assert method.inner is method


def test_every_hook_of_the_base_class_is_listed():
    """`HOOKS` decides whether a class overrides one: a hook that is missing there would be refused as none."""
    own = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert own == set(HOOKS)
