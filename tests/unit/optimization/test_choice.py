"""Which optimizer a name stands for, and where one of them is refused."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import WordIAT
from attn_lightning.module import AttentionModule
from attn_lightning.optimization.choice import check_row_adam, make_optimizer
from attn_lightning.optimization.rows import RowAdam
from support.training import fit, planted


def trainer(world_size: int = 1, device: str = "cpu", clip: float | None = None) -> SimpleNamespace:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(world_size=world_size, strategy=strategy, gradient_clip_val=clip)


def test_names_and_classes() -> None:
    table = nn.Embedding(4, 2)
    options = {"lr": 0.1, "amsgrad": True, "momentum": 0.5}
    made = {name: make_optimizer(name, [{"params": [table.weight]}], table, **options) for name in ("adam", "sgd")}
    assert type(made["adam"]) is torch.optim.Adam
    assert made["adam"].defaults["amsgrad"]
    assert type(made["sgd"]) is torch.optim.SGD
    assert made["sgd"].defaults["momentum"] == 0.5
    assert all(optimizer.defaults["fused"] for optimizer in made.values())
    assert type(make_optimizer("row_adam", [{"params": [table.weight]}], table, **options)) is RowAdam


@pytest.mark.parametrize(
    ("table", "place", "amsgrad", "readers", "said"),
    [
        (nn.Embedding(4, 2), trainer(), False, [], "amsgrad: true"),
        (nn.Linear(4, 2), trainer(), True, [], "nn.Embedding"),
        (nn.Embedding(4, 2).requires_grad_(False), trainer(), True, [], "that learns"),
        (nn.Embedding(4, 2), trainer(world_size=2), True, [], "one process"),
        (nn.Embedding(4, 2), trainer(device="cuda"), True, [], "CPU"),
        (nn.Embedding(4, 2), trainer(clip=1.0), True, [], "gradient_clip_val"),
    ],
)
def test_what_would_read_rows_too_early_is_refused(table, place, amsgrad, readers, said) -> None:
    with pytest.raises(ConfigurationError, match=f"{said}.*use `adam`"):
        check_row_adam(table, place, amsgrad, readers)


def test_a_method_that_searches_among_all_words_is_refused_before_the_first_step() -> None:
    with pytest.raises(ConfigurationError, match="WordIAT"):
        fit(AttentionModule(optimizer="row_adam"), planted(), WordIAT())


def test_where_nothing_stands_in_the_way_nothing_is_said() -> None:
    check_row_adam(nn.Embedding(4, 2), trainer(), True, [])
