"""Which parameters learn at which rate, and how the rate of an encoder moves."""

import math

import pytest
import torch
from torch import nn

from attn_lightning.backbone.encoders import Average
from attn_lightning.errors import ConfigurationError
from attn_lightning.optimization.groups import linear_schedule, parameter_groups, with_schedule


class Slow(Average):
    warmup = 0.5

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [([self.projection.weight], 1e-5)]


class Model(nn.Module):
    def __init__(self, encoder: Average) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(2, 2)

    def attention_parameters(self) -> list[nn.Parameter]:
        return [self.head.bias]


@pytest.mark.parametrize(("step", "factor"), [(0, 0.25), (3, 1.0), (4, 1.0), (7, 0.625), (12, 0.0)])
def test_the_schedule_rises_and_falls(step: int, factor: float) -> None:
    assert linear_schedule(step, total=12, warmup=1 / 3) == pytest.approx(factor)


def test_groups_and_their_rates() -> None:
    model = Model(Slow(3))
    groups = parameter_groups(model, model, 0.1)
    found = [(len(group["params"]), group["weight_decay"], group.get("lr")) for group in groups]
    assert found == [(2, 0.1, None), (1, 0.0, None), (1, 0.1, 1e-5)]
    optimizer = torch.optim.Adam([dict(group) for group in groups], lr=1e-3)
    made = with_schedule(optimizer, groups, 0.5, lambda: 4)
    assert isinstance(made, dict)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-3, 5e-6]


def test_a_training_without_an_end_has_no_schedule_that_ends() -> None:
    """`--trainer.max_epochs=-1` with a limit of time, say."""
    model = Model(Slow(3))
    groups = parameter_groups(model, model, 0.1)
    optimizer = torch.optim.SGD([dict(group) for group in groups], lr=1.0)
    with pytest.raises(ConfigurationError, match="a training with an end"):
        with_schedule(optimizer, groups, 0.5, lambda: math.inf)


def test_without_rates_of_its_own_there_is_no_schedule() -> None:
    model = Model(Average(3))
    groups = parameter_groups(model, model, 0.1)
    optimizer = torch.optim.SGD([dict(group) for group in groups], lr=1.0)
    assert with_schedule(optimizer, groups, 0.5, lambda: pytest.fail("nobody needs it")) is optimizer
