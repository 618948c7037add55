"""What a person sees while a model trains: a line per epoch, and in a log file also lines within a long one."""

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from attn_lightning.callbacks.epoch_metrics import EpochMetrics
from attn_lightning.console import duration, say

SILENCE = 30.0
"""Seconds after which a log file gets a line, so that a reader sees that the run is alive."""

SHOWN = ("train/loss", "val/accuracy", "val/log_loss", "val/gradient_kendall_mean")


class EpochLines(Callback):
    """Prints a line per epoch, and one every half minute within an epoch where no progress bar shows the steps."""

    def __init__(self) -> None:
        self._last_line = self._epoch_start = 0.0
        self._first_batch: int | None = None
        self._epoch_metrics = EpochMetrics()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._last_line = self._epoch_start = time.monotonic()
        self._first_batch = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note where the epoch starts in this process: a resumed one need not start at its first batch."""
        if self._first_batch is None:
            self._first_batch = batch_idx

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the epoch is, if nothing was said for a while."""
        now = time.monotonic()
        if not trainer.is_global_zero or trainer.progress_bar_callback is not None or now - self._last_line < SILENCE:
            return
        self._last_line = now
        done, total = batch_idx + 1, trainer.num_training_batches
        left = ""
        if math.isfinite(total):
            # Of the steps that this process has done: a resumed epoch would otherwise look many times faster than it
            # is.
            pace = (now - self._epoch_start) / (done - (self._first_batch or 0))
            left = f" of {total}, about {duration(pace * (total - done))} left in this epoch"
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {done}{left}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the epoch; those of validation only where it took place."""
        if not trainer.is_global_zero:
            return
        measured = self._epoch_metrics.of(trainer.callback_metrics)
        # What decides which epoch is kept is always among them.
        monitored = [name for each in trainer.callbacks if (name := getattr(each, "monitor", None))]  # type: ignore[attr-defined]
        values = {name: float(measured.get(name, math.nan)) for name in dict.fromkeys([*SHOWN, *monitored])}
        parts = [f"{name} {value:.3f}" for name, value in values.items() if math.isfinite(value)]
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  " + "  ".join(parts))
