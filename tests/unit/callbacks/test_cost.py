"""What a run cost: times that nest, tokens that are counted exactly."""

import resource
import sys
import time

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from attn_lightning.callbacks.cost import CostMeter, added, peak_memory_mib
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
    assert cost["cpu_seconds"] > 0
    assert cost["train_tokens_per_second"] == pytest.approx(cost["train_tokens"] / cost["train_seconds"])
    assert cost == meter.cost(torch.device("cpu")) | {"peak_memory_mib": cost["peak_memory_mib"]}


def test_waiting_takes_time_of_the_clock_and_none_of_the_cpu():
    class Slow(Model):
        def training_step(self, batch, batch_idx):
            time.sleep(0.5)
            return super().training_step(batch, batch_idx)

    meter = CostMeter()
    Trainer(
        max_epochs=1, callbacks=[meter], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, barebones=False,
    ).fit(Slow(), batches(5, 9, 1, 2))  # fmt: skip
    cost = meter.cost(torch.device("cpu"))
    assert cost["fit_seconds"] - cost["cpu_seconds"] > 1


def test_what_follows_a_validation_within_an_epoch_is_training_too():
    class Slow(Model):
        def training_step(self, batch, batch_idx):
            time.sleep(0.05)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            time.sleep(0.5)

    meter = CostMeter()
    Trainer(
        max_epochs=1, callbacks=[meter], logger=False, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, val_check_interval=2, num_sanity_val_steps=0,
    ).fit(Slow(), batches(5, 9, 1, 2), batches(3))  # fmt: skip
    cost = meter.cost(torch.device("cpu"))
    assert cost["step_seconds"] <= cost["train_seconds"] < cost["fit_seconds"] - 1


def test_two_processes_are_added_and_what_the_first_did_not_measure_is_left_out():
    first = {
        "fit_seconds": 1.0,
        "train_seconds": 2.0,
        "train_tokens": 10.0,
        "train_tokens_per_second": 5.0,
        "peak_memory_mib": 7.0,
    }
    now = {
        "fit_seconds": 2.0,
        "cpu_seconds": 3.0,
        "train_seconds": 3.0,
        "train_tokens": 40.0,
        "train_tokens_per_second": 9.0,
        "peak_memory_mib": 6.0,
    }
    assert added({}, now) == now
    assert added(first, now) == {
        "fit_seconds": 3.0,
        "train_seconds": 5.0,
        "train_tokens": 50.0,
        "train_tokens_per_second": 10.0,
        "peak_memory_mib": 7.0,
    }


def test_before_the_first_step_there_is_no_rate():
    assert CostMeter().cost(torch.device("cpu"))["train_tokens_per_second"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_the_resident_peak():
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    assert peak_memory_mib(torch.device("cpu")) == pytest.approx(peak / 1024, rel=0.2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
