"""What a method is that says nothing: the baseline."""

from typing import Any

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import HOOKS, Differentiates, Method


def test_a_method_without_hooks_changes_nothing() -> None:
    method, nothing = Method(), Any
    assert method.weight == 1.0
    for hook in ("loss", "example_weights", "attention", "task_loss"):
        assert hook in HOOKS
        assert getattr(method, hook)(nothing) is None
    assert list(method.frozen(nothing)) == []  # type: ignore[arg-type]
    assert method.inner is method


@pytest.mark.parametrize("weight", [-1e-9, float("nan"), float("inf")])
def test_a_weight_is_a_finite_number_of_0_and_more(weight: float) -> None:
    assert Method(0.0).weight == 0.0
    with pytest.raises(ConfigurationError, match=r"`weight` of Method.* 0 switches the term off"):
        Method(weight)


def test_demands_rise() -> None:
    order = [Differentiates.NOTHING, Differentiates.SCORES, Differentiates.SCORES_TWICE, Differentiates.EMBEDDINGS]
    assert sorted(order) == order
