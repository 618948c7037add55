"""Adam that moves word vectors when they are read, against torch's own, which moves all of them at every step."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from attn_lightning.optimization.idle import FIRST, HORIZON
from attn_lightning.optimization.rows import RowAdam

WORDS, SIZE, LR = 60, 4, 0.01
LATER = FIRST + 40
"""Steps, of which some do nothing, after which rows wait."""

Run = tuple[nn.Embedding, torch.optim.Optimizer]


def table_of(dtype: torch.dtype) -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(WORDS, SIZE, dtype=dtype, padding_idx=0)


def torchs(dtype: torch.dtype = torch.float64) -> Run:
    table = table_of(dtype)
    return table, torch.optim.Adam([{"params": [table.weight]}], lr=LR, amsgrad=True, fused=True)


def ours(dtype: torch.dtype = torch.float64) -> tuple[nn.Embedding, RowAdam]:
    table = table_of(dtype)
    optimizer = RowAdam([{"params": [table.weight], "weight_decay": 0.0}], table, LR)
    optimizer.attach()
    return table, optimizer


def train(runs: list[Run], steps: int, first: int = 0) -> list[list[Tensor]]:
    """Steps on random words, rare ones among them, with gradients from 1e-9 to 1; what each run reads."""
    weight = runs[0][0].weight
    scale = 10.0 ** (9 * torch.rand(WORDS, SIZE, generator=torch.Generator().manual_seed(1)) - 9).to(weight.dtype)
    read: list[list[Tensor]] = [[] for _ in runs]
    for step in range(first, first + steps):
        draw = torch.Generator().manual_seed(step)
        # Two passes, as of a labelled and an unlabelled batch; the last words are not read for hundreds of steps.
        passes = [(torch.rand(5, generator=draw) ** 3 * (WORDS - 9 * (step % 400 > 3))).long() for _ in range(2)]
        slope = torch.randn(5, SIZE, generator=draw).to(weight.dtype)
        for (table, optimizer), seen in zip(runs, read, strict=True):
            optimizer.param_groups[0]["lr"] = LR / (1 + step % 7)
            optimizer.zero_grad()
            vectors = [table(tokens) for tokens in passes[: 1 + step % 2]]
            seen.append(torch.cat(vectors).detach().clone())
            if step % 11:  # in every eleventh step the table is frozen
                for tokens, found in zip(passes, vectors, strict=False):
                    (found * slope * scale[tokens]).sum().backward()
            optimizer.step()
    return read


def same_state(runs: list[Run], rtol: float = 1e-7, atol: float = 1e-5 * LR) -> None:
    states = [optimizer.state_dict()["state"][0] for _, optimizer in runs]
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        assert states[0][name].dtype == states[1][name].dtype
        torch.testing.assert_close(states[1][name], states[0][name], rtol=rtol, atol=0)
    torch.testing.assert_close(runs[1][0].weight, runs[0][0].weight, rtol=0, atol=atol)


def test_what_is_read_and_what_is_kept_equals_torchs_adam() -> None:
    runs = [torchs(), ours()]
    expected, found = train(runs, 4 * HORIZON)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * LR)
    same_state(runs)


def test_in_float32_the_difference_is_rounding() -> None:
    runs = [torchs(torch.float32), ours(torch.float32)]
    expected, found = train(runs, LATER)
    torch.testing.assert_close(found[-1], expected[-1], rtol=1e-6, atol=1e-3 * LR)


def test_the_first_steps_are_torchs_to_the_bit() -> None:
    runs = [torchs(torch.float32), ours(torch.float32)]
    train(runs, FIRST)
    same_state(runs, rtol=0, atol=0)


def test_a_row_that_waits_is_behind_until_somebody_reads_it() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    (expected, _), (found, _) = runs
    behind = (found.weight - expected.weight).abs().amax(1) > 1e-3 * LR
    assert behind.sum() > 3
    read = behind.nonzero()[:2].flatten()
    torch.testing.assert_close(found(read), expected(read), rtol=0, atol=1e-4 * LR)
    still = (found.weight - expected.weight).abs().amax(1) > 1e-3 * LR
    assert still.sum() == behind.sum() - 2
    torch.testing.assert_close(found.state_dict()["weight"], expected.state_dict()["weight"], rtol=0, atol=1e-4 * LR)


def test_a_copy_of_the_table_catches_up_by_itself() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    copy = deepcopy(runs[1][0])
    words = torch.arange(WORDS)
    torch.testing.assert_close(copy(words), runs[0][0](words), rtol=0, atol=1e-4 * LR)
    torch.testing.assert_close(runs[1][0](words), runs[0][0](words), rtol=0, atol=1e-4 * LR)


def test_weights_that_are_loaded_are_not_moved_by_what_was_waited_for() -> None:
    table, optimizer = ours()
    train([(table, optimizer)], LATER)
    loaded = {"weight": torch.rand(WORDS, SIZE, dtype=torch.float64)}
    table.load_state_dict(loaded)
    torch.testing.assert_close(table(torch.arange(WORDS)), loaded["weight"], rtol=0, atol=0)


@pytest.mark.parametrize(("stored", "resumed"), [(0, ours), (1, ours), (1, torchs)])
def test_a_training_goes_on_from_the_state_of_either_optimizer(stored: int, resumed) -> None:
    runs: list[Run] = [torchs(), ours()]
    train(runs, LATER)
    weights, state = deepcopy(runs[stored][0].state_dict()), deepcopy(runs[stored][1].state_dict())
    table, optimizer = resumed()
    table.load_state_dict(weights)
    optimizer.load_state_dict(state)
    runs[1] = (table, optimizer)
    train(runs, HORIZON, first=LATER)
    same_state(runs)


def test_a_training_goes_on_to_the_bit_where_a_checkpoint_was_written() -> None:
    whole: Run = ours(torch.float32)
    train([whole], LATER)
    weights, state = deepcopy(whole[0].state_dict()), deepcopy(whole[1].state_dict())
    table, optimizer = ours(torch.float32)
    table.load_state_dict(weights)
    optimizer.load_state_dict(state)
    train([whole, (table, optimizer)], HORIZON, first=LATER)
    same_state([whole, (table, optimizer)], rtol=0, atol=0)


def test_a_state_that_is_loaded_in_between_ends_all_waits() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    for table, optimizer in runs:
        optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
        table.load_state_dict(deepcopy(table.state_dict()))
    train(runs, 40, first=LATER)
    same_state(runs)


def test_released_it_leaves_an_ordinary_table() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    table, optimizer = runs[1]
    optimizer.release()
    torch.testing.assert_close(table.weight, runs[0][0].weight, rtol=0, atol=1e-4 * LR)
    assert not table._forward_pre_hooks
    assert not table._state_dict_pre_hooks
    assert not table._load_state_dict_pre_hooks
    train(runs, 12, first=LATER)
    assert not table.weight.grad.is_sparse
    same_state(runs)


def test_a_dense_gradient_moves_all_rows() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    for table, optimizer in runs:
        optimizer.zero_grad()
        table.weight.grad = torch.full_like(table.weight, 0.1)
        optimizer.step()
    train(runs, 12, first=LATER)
    same_state(runs)


def test_rows_that_are_read_in_inference_mode_can_learn_afterwards() -> None:
    runs = [torchs(), ours()]
    train(runs, LATER)
    words = torch.arange(WORDS - 1, 3, -5)
    for table, optimizer in runs:
        with torch.inference_mode():
            table(words)
        optimizer.zero_grad()
        table(words).sum().backward()
        optimizer.step()
    same_state(runs)


def test_a_closure_is_asked_once_for_the_loss() -> None:
    table, optimizer = ours()
    asked = []

    def closure() -> Tensor:
        asked.append(torch.is_grad_enabled())
        loss: Tensor = table(torch.tensor([1])).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure)) == float(table_of(torch.float64).weight[1].sum())
    assert asked == [True]
