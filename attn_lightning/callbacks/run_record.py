"""The run record: what every run leaves behind in its folder, complete enough for any report to read it alone."""

import math
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning import run_folder
from attn_lightning.callbacks.cost import CostMeter
from attn_lightning.callbacks.predictions import PredictionWriter
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings.trained import FASTTEXT_PACKAGE
from attn_lightning.evaluation.control import control_metrics
from attn_lightning.files import write_json
from attn_lightning.methods.base import Method
from attn_lightning.types import Batch

FORMAT = 1
"""Version of the layout of `metrics.json` and `predictions.parquet`."""

SECONDS_BETWEEN_WRITES = 1.0
"""Epochs without validation that are shorter than this are written together."""

_PACKAGES = ("torch", "lightning", "torchmetrics", "datasets", "tokenizers", FASTTEXT_PACKAGE, "numpy", "scipy")


class RunRecord(CostMeter):
    """Writes `metrics.json` and `predictions.parquet` into the run folder.

    `metrics.json` holds the status of the run (running, complete, interrupted, failed), seed, methods, the metrics of
    every epoch, of the best one and of the test split, the data manifest, versions and commit, and under `cost`
    everything that may differ between two identical runs (times, memory). Numbers that are not finite are null.

    `predictions.parquet` has a row per test example, in the order of the batches (column `row` is the place in
    the split): `label`, `prediction`, `probabilities`, `text`, `start` and `end` character offsets of every token,
    `attention`, the importances `gradient` and `hidden`, and for data with rationales `rationale`: whether each token
    was marked, null where the example has none.

    Args:
        folder: an existing run folder.
        name: name of the experiment, for `metrics.json`.
    """

    def __init__(self, folder: Path, name: str = "run") -> None:
        super().__init__()
        self.folder = Path(folder)
        self.name = name
        self.record: dict[str, Any] = run_folder.read_metrics(self.folder)
        self._writer: PredictionWriter | None = None
        self._began = False
        self._checkpoint_due = False
        self._saved_at = -math.inf

    # --- fit ----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what is known before the first step."""
        super().on_fit_start(trainer, pl_module)
        self.record = {**self.record, **self._description(trainer, pl_module), "status": "running"}
        self.record.setdefault("history", [])
        self.record.pop("error", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record once nothing stands in the way of the first step: a run that never began leaves none."""
        self._began = True
        self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Append the metrics of the epoch that has just ended; an epoch that is run again replaces its row."""
        super().on_train_epoch_end(trainer, pl_module)
        row = {"epoch": trainer.current_epoch, **numbers(trainer.callback_metrics)}
        kept = [old for old in self.record["history"] if old["epoch"] < trainer.current_epoch]
        self.record["history"] = [*kept, row]
        # The file grows with the epochs, and writing it after each of a thousand short ones takes longer than they do.
        # No checkpoint may be ahead of it, though: a resumed run goes on from both.
        if self._checkpoint_due or time.monotonic() - self._saved_at > SECONDS_BETWEEN_WRITES:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the best epoch."""
        best = _checkpoint_callback(trainer)
        if best is not None and best.best_model_score is not None:
            score = float(best.best_model_score)
            epochs = [row for row in self.record["history"] if row.get(str(best.monitor)) == score]
            self.record["best"] = {"monitor": best.monitor, **(epochs[0] if epochs else {str(best.monitor): score})}

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the cost and that the training is complete."""
        super().on_fit_end(trainer, pl_module)
        if not trainer.interrupted:
            self.record["status"] = "complete"
        self._save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record how the run ended; whatever was finished stays."""
        if self._writer is not None:
            self._writer.abandon()
        if not self._began:
            return
        interrupted = isinstance(exception, KeyboardInterrupt)
        self.record["status"] = "interrupted" if interrupted else "failed"
        if not interrupted:
            self.record["error"] = f"{type(exception).__name__}: {exception}"
        self._save(trainer, pl_module)

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
        self._save(trainer, pl_module)

    def add_control(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what a linear model on TF-IDF features reaches on the same test split (text data only)."""
        data = getattr(trainer, "datamodule", None)
        if trainer.is_global_zero and isinstance(data, TextDataModule):
            self.record["control"] = {"tfidf_logistic_regression": control_metrics(data)}
            self._save(trainer, pl_module)

    def add_evaluation(self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float | None]) -> None:
        """Record what the suite of evaluation found, by `family/explainer/metric[setting]`."""
        self.record["evaluation"] = {f"evaluation/{name}": value for name, value in values.items()}
        self._save(trainer, pl_module)

    # --- writing --------------------------------------------------------------------------------------------------

    def _description(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        seed = os.environ.get("PL_GLOBAL_SEED")
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        return {
            "format": FORMAT,
            "name": self.name,
            "seed": None if seed is None else int(seed),
            "methods": [_method(callback) for callback in callbacks if isinstance(callback, Method)],
            "num_parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "data": getattr(trainer.datamodule, "manifest", None),  # type: ignore[attr-defined]
            "environment": environment(),
        }

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            if self._fit_start:
                self.record["cost"] = self.cost(pl_module.device)
            write_json(self.folder / run_folder.METRICS, self.record)
        self._checkpoint_due, self._saved_at = False, time.monotonic()


def environment() -> dict[str, Any]:
    """Versions of the packages that shape a result, of Python, and the commit of the checkout (null outside one)."""
    versions = {package: metadata.version(package) for package in _PACKAGES}
    versions["attn-lightning"] = metadata.version("attn-lightning")
    return {"python": platform.python_version(), "packages": versions, "commit": _commit()}


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


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


class EpochSummary(Callback):
    """Prints one line per epoch, which reads well in a terminal and in a log file."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the epoch."""
        if trainer.is_global_zero:
            metrics = numbers(trainer.callback_metrics)
            shown = ["train/loss", "val/accuracy", "val/log_loss", "val/gradient_kendall_mean"]
            parts = [f"{key} {metrics[key]:.3f}" for key in shown if metrics.get(key) is not None]
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  " + "  ".join(parts), flush=True)
