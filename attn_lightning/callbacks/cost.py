"""What a run costs: time, tokens per second, memory."""

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from attn_lightning.methods.combined import flatten
from attn_lightning.methods.requirements import learns_from_pool
from attn_lightning.metrics.measure import MANY, Measure, by_name
from attn_lightning.types import Batch

COSTS = by_name(
    (
        Measure("fit_seconds", "from start to end of the fit, validation included", 0.0, MANY, False, "s"),
        Measure(
            "cpu_seconds",
            "CPU time of the process from start to end of the fit, all threads: another job beside it hardly moves it",
            0.0,
            MANY,
            False,
            "s",
        ),
        Measure("train_seconds", "training epochs alone, data loading and logging included", 0.0, MANY, False, "s"),
        Measure("step_seconds", "inside training steps: forward, loss, backward, update", 0.0, MANY, False, "s"),
        Measure(
            "train_tokens",
            "real tokens of what the methods learn from, pool and all processes included",
            0.0,
            MANY,
            None,
            "tokens",
        ),
        Measure("train_tokens_per_second", "train_tokens over train_seconds", 0.0, MANY, True, "tokens/s"),
        Measure("peak_memory_mib", "largest memory of the process, or of the CUDA device", 0.0, MANY, False, "MiB"),
    )
)
"""What a run costs, by name."""


class CostMeter(Callback):
    """Times the fit and its parts and counts tokens, at the price of two clock readings per step.

    `cost()` gives what `COSTS` declares. On CUDA a step returns before the device is done, so only the sums over an
    epoch mean something there.
    """

    def __init__(self) -> None:
        self._fit_start = self._epoch_start = self._step_start = self._cpu_start = 0.0
        self._fit_seconds = self._cpu_seconds = self._train_seconds = self._step_seconds = 0.0
        # Summed on the device, and read once at the end: a number per step would make the CPU wait for the GPU.
        self._tokens: Tensor | int = 0
        self._in_epoch = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the fit."""
        # What was allocated before the fit (another model of the same process) is not this run's.
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self._fit_start, self._cpu_start = time.perf_counter(), time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start, self._in_epoch = time.perf_counter(), True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock of the step, and that of the epoch again behind a validation within it."""
        self._step_start = time.perf_counter()
        if not self._in_epoch:
            self._epoch_start, self._in_epoch = self._step_start, True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's time and tokens; no number leaves the device here."""
        self._step_seconds += time.perf_counter() - self._step_start
        parts = [batch]
        if isinstance(batch, dict):
            # A pool that no method learns from is read from the disk, but no model sees it.
            learning = learns_from_pool(flatten(trainer.callbacks))  # type: ignore[attr-defined]
            parts = list(batch.values()) if learning else [batch["labeled"]]
        for part in parts:
            if isinstance(part, Batch):
                self._tokens = self._tokens + part.mask.sum()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The training part of the epoch is over when validation begins."""
        self._close_epoch()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, where there is no validation."""
        self._close_epoch()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of the fit, and add the tokens of the other processes."""
        self._fit_seconds, self._cpu_seconds = self._since_start()
        if isinstance(self._tokens, Tensor):
            self._tokens = trainer.strategy.reduce(self._tokens, reduce_op="sum")

    def _since_start(self) -> tuple[float, float]:
        return time.perf_counter() - self._fit_start, time.process_time() - self._cpu_start

    def _close_epoch(self) -> None:
        if self._in_epoch:
            self._train_seconds += time.perf_counter() - self._epoch_start
            self._in_epoch = False

    def cost(self, device: torch.device) -> dict[str, float]:
        """The values of `COSTS`; the fit's time so far if it has not ended."""
        # A run that is interrupted or fails has its cost recorded too.
        seconds, cpu_seconds = (self._fit_seconds, self._cpu_seconds) if self._fit_seconds else self._since_start()
        tokens = float(self._tokens)
        return {
            "fit_seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "train_seconds": self._train_seconds,
            "step_seconds": self._step_seconds,
            "train_tokens": tokens,
            "train_tokens_per_second": tokens / self._train_seconds if self._train_seconds else 0.0,
            "peak_memory_mib": peak_memory_mib(device),
        }


def added(earlier: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """What a run has cost in all, where it went on in another process: sums, the larger memory, the rate anew."""
    if not earlier:
        return dict(now)
    # What the earlier process did not measure (another version wrote its record) has no sum.
    total = {name: value + earlier[name] for name, value in now.items() if name in earlier}
    if "peak_memory_mib" in total:
        total["peak_memory_mib"] = max(now["peak_memory_mib"], earlier["peak_memory_mib"])
    if total.get("train_seconds") and "train_tokens" in total:
        total["train_tokens_per_second"] = total["train_tokens"] / total["train_seconds"]
    return total


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far in MiB: allocated on a CUDA device, resident for the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
