"""Schedules of weights against their definitions."""

import math
from typing import get_args

import pytest

from attn_lightning.methods.schedules import Schedule, weight_factor


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("warmup", [0, 0.25, 0.5, 0.75, 1]),
        ("cosine", [1, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0]),
        ("cosine_rise", [0, 0.5 - math.sqrt(2) / 4, 0.5, 0.5 + math.sqrt(2) / 4, 1]),
    ],
)
def test_quarters_by_hand(schedule: Schedule, values: list[float]) -> None:
    assert [weight_factor(schedule, quarter / 4) for quarter in range(5)] == pytest.approx(values)


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_change_ends_after_its_share_and_never_leaves_the_unit_interval(schedule: Schedule, fraction: float) -> None:
    factors = [weight_factor(schedule, step / 40, fraction) for step in range(41)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert len(set(factors[math.ceil(40 * fraction) :])) == 1
    assert factors[10] == pytest.approx(weight_factor(schedule, min(1, 0.25 / fraction)))


def test_rise_and_fall_add_up_to_one() -> None:
    for step in range(11):
        pair = [weight_factor(schedule, step / 10, 0.7) for schedule in ("cosine", "cosine_rise")]
        assert sum(pair) == pytest.approx(1.0)
