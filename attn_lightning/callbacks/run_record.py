"""The run record: what every run leaves behind in its folder, complete enough for any report to read it alone."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning import run_folder
from attn_lightning.backbone.pretrained import encoder_origins
from attn_lightning.callbacks.cost import CostMeter, added
from attn_lightning.callbacks.environment import environment
from attn_lightning.callbacks.epoch_metrics import EpochMetrics
from attn_lightning.callbacks.predictions import PredictionWriter
from attn_lightning.data.revision import changed_models, option_name
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json
from attn_lightning.methods.base import Method
from attn_lightning.methods.trained import model_origins
from attn_lightning.types import Batch

FORMAT = 1
"""Version of the layout of `metrics.json` and `predictions.parquet`."""

SECONDS_BETWEEN_WRITES = 1.0
"""Epochs without validation that are shorter than this are written together."""

_RESERVE = ".reserve"
_RESERVED_BYTES = 2**18
"""Kept free on the disk for the record itself: on a full one it could not say that the disk is full."""


class RunRecord(CostMeter):
    """Writes `metrics.json` and `predictions.parquet` into the run folder.

    `metrics.json` holds the status of the run (running, complete, interrupted, failed), seed, methods, the metrics of
    every epoch (those under `val/` where it measured them), of the best one and of the test split, the data manifest,
    versions and commit, and under `cost` everything that may differ between two identical runs (times, memory). Numbers
    that are not finite are null. A run is complete when all is there that it was asked for; `finished` lists what of it
    is.

    `predictions.parquet` has a row per test example, in the order of the batches (column `row` is the place in
    the split): `label`, `prediction`, `probabilities`, `text`, `start` and `end` character offsets of every token,
    `attention`, the importances `gradient` and `hidden`, and for data with rationales `rationale`: whether each token
    was marked, null where the example has none.

    Args:
        folder: an existing run folder.
        name: name of the experiment, for `metrics.json`.
        asked: what is to follow the training, and with which options, as `run_folder.asked` gives it.
        explained: gives the error that is recorded for one that ends the run.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "run",
        asked: Mapping[str, Any] | None = None,
        explained: Callable[[BaseException], BaseException] = lambda error: error,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.name = name
        self.asked = dict(asked or {})
        self._explained = explained
        self.record: dict[str, Any] = run_folder.read_metrics(self.folder)
        self._writer: PredictionWriter | None = None
        self._began = False
        self._earlier: dict[str, float] = self.record.get("cost", {})
        self._writes = True
        self._device = torch.device("cpu")
        self._checkpoint_due = False
        self._epoch_metrics = EpochMetrics()
        self._saved_at = -math.inf

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out whether this process writes: one of all does."""
        self._writes = trainer.is_global_zero

    # --- fit ----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is known before the first step.

        Raises:
            ConfigurationError: a resumed run has other data, or begins from another model, than it began with.
        """
        super().on_fit_start(trainer, pl_module)
        self._device = pl_module.device
        description = self._description(trainer, pl_module)
        if "data" in self.record and run_folder.digests(self.record["data"]) != run_folder.digests(description["data"]):
            raise ConfigurationError(
                f"Expected the data with which the run in {self.folder} began, but its files have changed since; start "
                "a new run, or bring the old files back."
            )
        if changed := changed_models(self.record, description):
            raise ConfigurationError(
                f"Expected the model of `{option_name(changed[0])}` with which the run in {self.folder} began, but its "
                "file has changed since; start a new run, or bring the old file back."
            )
        self.record = {**self.record, **description, "status": "running"}
        self.record.setdefault("history", [])
        self.record.pop("error", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record once nothing stands in the way of the first step: a run that never began leaves none."""
        self._began = True
        # What an earlier end of the same run was followed by is not about the weights that this training leaves.
        for part in ("finished", "test", "control", "evaluation"):
            self.record.pop(part, None)
        if self._writes:
            (self.folder / _RESERVE).write_bytes(bytes(_RESERVED_BYTES))
        self._save()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append the metrics of the epoch that has just ended; an epoch that is run again replaces its row."""
        super().on_train_epoch_end(trainer, pl_module)
        row = {"epoch": trainer.current_epoch, **numbers(self._epoch_metrics.of(trainer.callback_metrics))}
        kept = [old for old in self.record["history"] if old["epoch"] < trainer.current_epoch]
        self.record["history"] = [*kept, row]
        # The file grows with the epochs, and writing it after each of a thousand short ones takes longer than they do.
        # No checkpoint may be ahead of it, though: a resumed run goes on from both.
        every = trainer.check_val_every_n_epoch or 1
        due = self._checkpoint_due or (trainer.current_epoch + 1) % every == 0
        if due or time.monotonic() - self._saved_at > SECONDS_BETWEEN_WRITES:
            self._save()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the best epoch, the cost, and that the training is over; the run is complete if nothing follows."""
        super().on_fit_end(trainer, pl_module)
        # Not when the training ends: one that was killed after its last epoch does not end again when it is resumed.
        best = _checkpoint_callback(trainer)
        if best is not None and best.best_model_score is not None:
            score = float(best.best_model_score)
            epochs = [row for row in self.record["history"] if row.get(str(best.monitor)) == score]
            self.record["best"] = {"monitor": best.monitor, **(epochs[0] if epochs else {str(best.monitor): score})}
        self._began = True  # a resumed run may have had nothing left to train
        if not (trainer.interrupted or self.asked):
            self._complete()
        self._save()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record how the run ended; whatever was finished stays."""
        if self._writer is not None:
            self._writer.abandon()
        self.ended(exception)

    def ended(self, exception: BaseException) -> None:
        """Record that the run was stopped or has failed, and why."""
        exception = self._explained(exception)
        if not self._began:
            return
        interrupted = isinstance(exception, KeyboardInterrupt) or isinstance(exception.__context__, KeyboardInterrupt)
        self.record["status"] = "interrupted" if interrupted else "failed"
        if not interrupted:
            self.record["error"] = f"{type(exception).__name__}: {exception}"
        self._release()
        self._save()

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """What fails or is stopped in the block is recorded as the end of the run."""
        try:
            yield
        except BaseException as error:
            if self.record.get("status") == "running":
                self.ended(error)
            raise

    # --- evaluation -----------------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a `validate` call; validation inside a fit is recorded with its epoch."""
        if trainer.state.fn == "validate":
            self._add_result("validation", trainer, pl_module)
        self._checkpoint_due = True

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the table of predictions."""
        self._writer = PredictionWriter(self.folder, trainer)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the batch to the table of predictions."""
        assert self._writer is not None
        self._writer.write(batch, outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the table and record the test metrics."""
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self._add_result("test", trainer, pl_module)

    def _add_result(self, split: str, trainer: Trainer, pl_module: LightningModule) -> None:
        if "status" not in self.record:
            self.record = {**self._description(trainer, pl_module), "status": "complete"}
        self.record[split] = numbers(trainer.callback_metrics)
        self._save()

    # --- what follows the training --------------------------------------------------------------------------------

    def lacks(self, part: str) -> bool:
        """Whether a part was asked for that is not finished, or was finished with other options."""
        finished = self.record.get("finished", {})
        return part in self.asked and finished.get(part) != self.asked[part]

    def finish(self, part: str, **results: Any) -> None:
        """Record a part that was asked for; the last one makes the run complete.

        Args:
            part: its name.
            results: what it found, by the key of the record; None leaves the record as it is.
        """
        self.record |= {key: value for key, value in results.items() if value is not None}
        self.record["finished"] = {**self.record.get("finished", {}), part: self.asked[part]}
        if not any(map(self.lacks, self.asked)):
            self._complete()
        self._save()

    def _complete(self) -> None:
        self.record["status"] = "complete"
        self._release()

    # --- writing --------------------------------------------------------------------------------------------------

    def _description(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        seed = os.environ.get("PL_GLOBAL_SEED")
        methods = [callback for callback in trainer.callbacks if isinstance(callback, Method)]  # type: ignore[attr-defined]
        models = model_origins(methods) | encoder_origins(pl_module)
        return {
            "format": FORMAT,
            "name": self.name,
            "seed": None if seed is None else int(seed),
            "methods": [_method(method) for method in methods],
            "num_parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "data": getattr(trainer.datamodule, "manifest", None),  # type: ignore[attr-defined]
            **({"models": models} if models else {}),
            "environment": environment(),
        }

    def _release(self) -> None:
        if self._writes:
            (self.folder / _RESERVE).unlink(missing_ok=True)

    def _save(self) -> None:
        if self._writes:
            if self._fit_start:
                self.record["cost"] = added(self._earlier, self.cost(self._device))
            write_json(self.folder / run_folder.METRICS, self.record)
        self._checkpoint_due, self._saved_at = False, time.monotonic()


def _method(method: Method) -> dict[str, Any]:
    public = {key: value for key, value in vars(method).items() if not key.startswith("_")}
    simple = {key: value for key, value in public.items() if isinstance(value, str | int | float | bool | None)}
    return {"class": type(method).__name__, **simple}


def numbers(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The metrics by name, sorted; what is not finite becomes None, because JSON has no word for it."""
    values = {key: float(value) for key, value in sorted(metrics.items())}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _checkpoint_callback(trainer: Trainer) -> ModelCheckpoint | None:
    callback = getattr(trainer, "checkpoint_callback", None)
    return callback if isinstance(callback, ModelCheckpoint) else None
