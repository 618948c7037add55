"""The five methods on attention scores: their options, their terms, the examples that they are about."""

from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionAT, AttentionIAT, AttentionIVAT, AttentionRP, AttentionVAT, Method
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec
from support.defaults import defaults

B, T = 5, 6
MASK = torch.arange(T) < torch.tensor([6, 4, 2, 5, 3])[:, None]
EVERY = [AttentionRP, AttentionAT, AttentionIAT, AttentionVAT, AttentionIVAT]


@pytest.fixture
def step() -> TrainStep:
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(3, 9, 4, ("a", "b", "c")))
    tokens = torch.randint(1, 9, (B, T)) * MASK
    batch = Batch(tokens, MASK, torch.tensor([0, 2, 1, 1, 0]), torch.arange(B))
    return TrainStep(model, batch, model(tokens, MASK), partial(F.cross_entropy, reduction="none"), 0.0)


@pytest.mark.parametrize("cls", EVERY)
def test_logged_radius_is_epsilon_and_the_term_has_its_name(cls: type[Method], step: TrainStep) -> None:
    term = cls(epsilon=0.3).loss(step)
    assert term.name == f"attention_{cls.__name__.removeprefix('Attention').lower()}"
    assert term.logs["radius"].item() == pytest.approx(0.3)
    assert 0 <= term.logs["flips"].item() <= 1


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (AttentionRP, {"epsilon": 0.0}),
        (AttentionAT, {"epsilon": -1.0}),
        (AttentionIAT, {"epsilon": float("nan")}),
        (AttentionIAT, {"normalize": "words"}),
        (AttentionVAT, {"epsilon": float("inf")}),
        (AttentionVAT, {"xi": 0.0}),
        (AttentionVAT, {"num_power_iterations": 0}),
        (AttentionIVAT, {"xi": -0.1}),
        (AttentionIVAT, {"num_power_iterations": -1}),
        (AttentionIVAT, {"normalize": "Token"}),
        (AttentionIVAT, {"epsilon": 0.0}),
    ],
)
def test_bad_options_are_refused_by_name(cls: type[Method], options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{next(iter(options))}` of {cls.__name__}"):
        cls(**options)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (AttentionRP, {"weight": 1.0, "epsilon": 0.5}),
        (AttentionAT, {"weight": 1.0, "epsilon": 0.5}),
        (AttentionIAT, {"weight": 1.0, "epsilon": 0.5, "normalize": "sentence"}),
        (AttentionVAT, {"weight": 1.0, "epsilon": 0.5, "xi": 0.1, "num_power_iterations": 1}),
        (AttentionIVAT, {"weight": 1.0, "epsilon": 0.5, "xi": 0.1, "num_power_iterations": 1, "normalize": "sentence"}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
