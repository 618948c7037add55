"""What a run cost: times that nest, tokens that are counted exactly."""

import resource
import sys

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from attn_lightning.callbacks.cost import CostMeter, peak_memory_mib
from attn_lightning.types import Batch


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch.mask.sum()).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


def batches(*lengths: int) -> DataLoader:
    def batch(length: int) -> Batch:
        mask = torch.arange(9) < torch.tensor([length, 2])[:, None]
        return Batch(torch.ones(2, 9, dtype=torch.int64), mask, torch.zeros(2, dtype=torch.int64), torch.arange(2))

    return DataLoader([batch(length) for length in lengths], batch_size=None)


@pytest.mark.parametrize("with_validation", [True, False])
def test_tokens_and_times(tmp_path, with_validation):
    meter = CostMeter()
    trainer = Trainer(
        max_epochs=2, callbacks=[meter], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Model(), batches(5, 9, 1), batches(3) if with_validation else None)
    cost = meter.cost(torch.device("cpu"))
    assert cost["train_tokens"] == 2 * (5 + 9 + 1 + 3 * 2)
    assert 0 < cost["step_seconds"] <= cost["train_seconds"] <= cost["fit_seconds"]
    assert cost["train_tokens_per_second"] == pytest.approx(cost["train_tokens"] / cost["train_seconds"])
    assert cost == meter.cost(torch.device("cpu")) | {"peak_memory_mib": cost["peak_memory_mib"]}


def test_before_the_first_step_there_is_no_rate():
    assert CostMeter().cost(torch.device("cpu"))["train_tokens_per_second"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_resident_peak():
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    assert peak_memory_mib(torch.device("cpu")) == pytest.approx(peak / 1024, rel=0.2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
