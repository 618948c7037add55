"""The values that travel through the package: what Lightning does with them, and what nobody can do."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from attn_lightning.types import UNLABELED, Batch, DataSpec, LossTerm


def test_lightning_moves_a_batch_to_the_device_part_by_part():
    """`meta` stands for a device that every machine has; what is None stays None."""
    rationale = torch.ones(2, 3, dtype=torch.bool)
    batch = Batch(torch.ones(2, 3), rationale, torch.tensor([0, UNLABELED]), torch.arange(2), rationale)
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, Batch)
    devices = {name: part.device.type for name, part in moved._asdict().items() if part is not None}
    assert devices == dict.fromkeys(("tokens", "mask", "labels", "rows", "rationale"), "meta")


@pytest.mark.parametrize("value", [DataSpec(2, 10, 4, ("a", "b")), LossTerm("mine", torch.zeros(()), 1.0)])
def test_values_that_are_shared_cannot_be_changed(value):
    with pytest.raises(FrozenInstanceError):
        value.name = "other"


def test_two_terms_do_not_share_their_logs():
    one, other = LossTerm("a", torch.zeros(()), 1.0), LossTerm("b", torch.zeros(()), 1.0)
    one.logs["radius"] = torch.ones(())
    assert other.logs == {}
