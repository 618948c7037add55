"""Random numbers by epoch: the same after a resume, others in every epoch and process."""

from types import SimpleNamespace

import torch

from attn_lightning.callbacks.epoch_seed import EpochSeed


def drawn(seed: int, epoch: int, rank: int = 0) -> list[float]:
    trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)
    EpochSeed(seed).on_train_batch_start(trainer, None, None, 0)
    return torch.rand(4).tolist()


def test_the_same_place_draws_the_same():
    first = drawn(0, 3)
    torch.rand(10)
    assert drawn(0, 3) == first


def test_seed_epoch_and_process_all_count():
    draws = [drawn(*place) for place in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 10, 0), (10, 0, 0))]
    assert len({tuple(draw) for draw in draws}) == len(draws)


def test_later_batches_go_on_drawing():
    drawn(0, 0)
    expected = torch.rand(4)
    drawn(0, 0)
    EpochSeed(0).on_train_batch_start(SimpleNamespace(current_epoch=0, global_rank=0), None, None, 1)
    assert torch.equal(torch.rand(4), expected)
