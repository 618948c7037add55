"""Adam that moves word vectors when they are read, against torch's own, which moves all of them at every step."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attn_lightning.module import AttentionModule
from attn_lightning.optimization import rows as row_module
from attn_lightning.optimization.rows import HORIZON, NODES, WARM_UP, RowAdam, gauss_nodes
from support.training import fit, planted

WORDS, SIZE, LR = 60, 4, 0.01
LATER = WARM_UP + 40
"""Steps, of which some do nothing, after which rows wait."""


def pair(dtype: torch.dtype, **options) -> list[tuple[nn.Embedding, torch.optim.Optimizer]]:
    """The same table under torch's Adam and under ours."""
    torch.manual_seed(0)
    tables = [nn.Embedding(WORDS, SIZE, dtype=dtype, padding_idx=0) for _ in range(2)]
    tables[1].load_state_dict(tables[0].state_dict())
    groups = [[{"params": [table.weight], "weight_decay": 0.0, **options}] for table in tables]
    return [
        (tables[0], torch.optim.Adam(groups[0], lr=LR, amsgrad=True, fused=True)),
        (tables[1], RowAdam(groups[1], tables[1], LR)),
    ]


def train(runs, steps: int, first: int = 0) -> list[list[Tensor]]:
    """Steps on random words, rare ones among them, with gradients from 1e-9 to 1; what each run reads."""
    weight = runs[0][0].weight
    draw = torch.Generator().manual_seed(first)
    scale = 10.0 ** (9 * torch.rand(WORDS, SIZE, generator=torch.Generator().manual_seed(1)) - 9).to(weight.dtype)
    read: list[list[Tensor]] = [[] for _ in runs]
    for step in range(first, first + steps):
        tokens = (torch.rand(5, generator=draw) ** 3 * WORDS).long()
        slope = torch.randn(5, SIZE, generator=draw).to(weight.dtype)
        for (table, optimizer), seen in zip(runs, read, strict=True):
            optimizer.param_groups[0]["lr"] = LR / (1 + step % 7)
            optimizer.zero_grad()
            vectors = table(tokens)
            seen.append(vectors.detach().clone())
            if step % 11:  # in every eleventh step the table is frozen
                (vectors * slope * scale[tokens]).sum().backward()
            optimizer.step()
    return read


def same_state(runs, **close) -> None:
    states = [optimizer.state_dict()["state"][0] for _, optimizer in runs]
    for name in ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=close["rtol"], atol=0)
    torch.testing.assert_close(runs[1][0].weight, runs[0][0].weight, **close)


def test_what_is_read_and_what_is_kept_equals_torchs_adam() -> None:
    runs = pair(torch.float64)
    expected, found = train(runs, 2 * HORIZON)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6 * LR)
    same_state(runs, rtol=1e-7, atol=1e-6 * LR)


def test_in_float32_the_difference_is_rounding() -> None:
    runs = pair(torch.float32)
    expected, found = train(runs, LATER)
    torch.testing.assert_close(found[-1], expected[-1], rtol=1e-6, atol=1e-3 * LR)


def test_a_row_that_waits_is_behind_until_somebody_reads_it() -> None:
    (table, _), (ours, _) = runs = pair(torch.float64)
    train(runs, LATER)
    behind = (ours.weight - table.weight).abs().amax(1) > 1e-6 * LR
    assert behind.sum() > 3
    read = behind.nonzero()[:2].flatten()
    torch.testing.assert_close(ours(read), table(read), rtol=0, atol=1e-6 * LR)
    torch.testing.assert_close(ours.state_dict()["weight"], table.state_dict()["weight"], rtol=0, atol=1e-6 * LR)


def test_a_training_goes_on_from_the_state_of_either_optimizer() -> None:
    for stored in (0, 1):
        runs = pair(torch.float64)
        train(runs, LATER)
        state, weights = deepcopy(runs[stored][1].state_dict()), deepcopy(runs[stored][0].state_dict())
        resumed = pair(torch.float64)[1]
        resumed[0].load_state_dict(weights)
        resumed[1].load_state_dict(state)
        runs = [runs[0], resumed]
        train(runs, 40, first=LATER)
        same_state(runs, rtol=1e-7, atol=1e-6 * LR)


def test_released_it_leaves_an_ordinary_table() -> None:
    (table, _), (ours, rows) = runs = pair(torch.float64)
    train(runs, LATER)
    rows.release()
    torch.testing.assert_close(ours.weight, table.weight, rtol=0, atol=1e-6 * LR)
    ours(torch.tensor([1])).sum().backward()
    assert not ours.weight.grad.is_sparse
    assert not ours._forward_pre_hooks
    assert not ours._state_dict_pre_hooks


@pytest.mark.parametrize("gap", [1, 2, NODES, 5, 40, HORIZON])
def test_the_quadrature_equals_the_sum_within_the_rounding_of_float32(gap: int) -> None:
    steps = WARM_UP + np.arange(1, gap + 1.0)
    points = np.sqrt(1 - 0.999**steps)
    weights = 0.9 ** (steps - WARM_UP) / (1 - 0.9**steps) * points
    nodes, masses = gauss_nodes(weights[None], points[None], NODES)
    assert np.all(masses >= 0)
    assert np.all((nodes > points.min() - 1e-9) & (nodes < points.max() + 1e-9))
    for root in 1e-8 * np.logspace(-6, 6, 25):
        exact = (weights / (root + 1e-8 * points)).sum()
        assert (masses / (root + 1e-8 * nodes)).sum() == pytest.approx(exact, rel=1e-13 if gap <= NODES else 6e-8)


def test_what_lies_behind_the_horizon_is_below_the_rounding_of_float32() -> None:
    assert 0.9**HORIZON < 2**-24


def test_the_quadrature_is_that_of_gauss_and_legendre_on_a_fine_grid() -> None:
    points = (np.arange(20_000) + 0.5) / 20_000
    nodes, masses = gauss_nodes(np.full((1, 20_000), 1 / 20_000), points[None], 3)
    known, weights = np.polynomial.legendre.leggauss(3)
    np.testing.assert_allclose(nodes[0], (known + 1) / 2, atol=1e-7)
    np.testing.assert_allclose(masses[0], weights / 2, atol=1e-7)


@pytest.mark.parametrize("options", [{}, pytest.param({"accumulate_grad_batches": 2}, marks=pytest.mark.slow)])
def test_a_training_is_that_of_adam(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    # Rows wait from the first step on, and with a node for each of the steps that they wait nothing is approximate.
    monkeypatch.setattr(row_module, "WARM_UP", 0)
    monkeypatch.setattr(row_module, "NODES", 6)
    found = {}
    for name in ("adam", "row_adam"):
        module = AttentionModule(optimizer=name, learning_rate=0.01)
        fit(module, planted(), max_epochs=2, precision="64-true", **options)
        found[name] = {key: value.clone() for key, value in module.state_dict().items()}
        assert not module.backbone.embedding.sparse
    for key, expected in found["adam"].items():
        torch.testing.assert_close(found["row_adam"][key], expected, rtol=1e-6, atol=1e-8)
