"""What a run adds to the trainer of its configuration: checkpoints, loggers, the record, seeds."""

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

from attn_lightning import run_folder
from attn_lightning.callbacks.epoch_seed import EpochSeed
from attn_lightning.callbacks.progress import EpochLines
from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.callbacks.stop_signals import StopSignals
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.checkpoint.plugin import RunCheckpointIO
from attn_lightning.commands.processes import is_first
from attn_lightning.commands.run_choice import RunChoice
from attn_lightning.commands.slurm import cluster, in_job
from attn_lightning.commands.wandb_run import BestSoFar, make_logger
from attn_lightning.errors import ConfigurationError

_HALF_WEIGHTS = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
"""Precisions that keep the weights themselves in half precision."""


def check_trainer_options(options: Namespace) -> None:
    """Refuse what would write outside the run folder, and precisions in which training cannot work.

    Args:
        options: the parsed options of the trainer.

    Raises:
        ConfigurationError: such an option was given.
    """
    if options.default_root_dir is not None:
        raise ConfigurationError(
            f"Expected no `--trainer.default_root_dir`, but got {options.default_root_dir}; all that a run writes lies "
            "in its run folder, which `--run.root`, `--run.name` and `--run.version` name."
        )
    if str(options.precision) in _HALF_WEIGHTS:
        raise ConfigurationError(
            f"Expected a precision that keeps the weights in full, but got `{options.precision}`, in which small "
            "updates of a weight are rounded away; use `bf16-mixed`, `16-mixed`, `32-true` or `64-true`."
        )


def plugins(chosen: Any) -> list[Any]:
    """The plugins of the configuration, and ours where it has none of their kind: checkpoints and the cluster.

    Args:
        chosen: `trainer.plugins`: None, one, or several.
    """
    # A copy: the list belongs to the configuration, which is written down later.
    found = list(chosen) if isinstance(chosen, list) else [] if chosen is None else [chosen]
    # A user's own subclass of ours takes its place.
    if not any(isinstance(plugin, RunCheckpointIO) for plugin in found):
        found.append(RunCheckpointIO())
    if not any(isinstance(plugin, ClusterEnvironment) for plugin in found) and in_job():
        found.append(cluster())
    return found


def run_callbacks(record: RunRecord) -> list[Callback]:
    """What every command has beside the method: seeds by epoch, the record, lines of progress."""
    # Where Lightning keeps it for the processes of a job; unset where seeding was switched off.
    seed = os.environ.get("PL_GLOBAL_SEED")
    seeds = [] if seed is None else [EpochSeed(int(seed))]
    return [*seeds, record, EpochLines(), StopSignals()]


def checkpoints(folder: Path, monitor: str, mode: str, every_n_epochs: int | None) -> list[Callback]:
    """One for the best epoch and one for the last: Lightning's own `save_last` follows the best one only.

    The last one is of a whole epoch even where validation comes within epochs: the random numbers and the data of a
    half epoch are not in a checkpoint, so that a run could not go on from there as if nothing had happened.

    Args:
        folder: the run folder.
        monitor: what decides which epoch is best.
        mode: max or min.
        every_n_epochs: how often there is a last one, as often as there is validation.
    """
    # No counters in the names: `best.ckpt` and `last.ckpt` are what scripts and `--run.resume` look for.
    options: dict[str, Any] = {
        "dirpath": folder / run_folder.CHECKPOINTS,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode, **options)
    # Without a metric its mode says nothing, but Lightning tells checkpoints apart by it: with the usual one there
    # could be no plain `ModelCheckpoint` of the user's beside it, which keeps every epoch, say.
    last = ModelCheckpoint(
        filename="last", mode="max", save_on_train_epoch_end=True, every_n_epochs=every_n_epochs or 1, **options
    )
    return [best, last, BestSoFar()]


def loggers(chosen: Any, choice: RunChoice, options: Namespace, fits: bool) -> list[Logger] | bool:
    """The loggers of a command: its table in the run folder, W&B if asked for, and those of the configuration.

    Args:
        chosen: `trainer.logger`: False for none, True or None for ours alone, or others.
        choice: the run folder.
        options: the run options.
        fits: whether the command is `fit`; the others write no table of epochs.
    """
    # One process writes; Lightning's own loggers would make their folders in each of them before they ask.
    if chosen is False or not is_first():
        return False
    found: list[Logger] = [csv_logger(choice.folder, choice.resumed)] if fits else []
    if options.wandb:
        found.append(make_logger(choice.folder, options))
    if chosen not in (None, True):
        found.extend(chosen if isinstance(chosen, list) else [chosen])
    return found or False


def csv_logger(folder: Path, resumed: Path | None) -> CSVLogger:
    """A logger on the run folder; Lightning's deletes an older `metrics.csv`, so a resumed run takes its rows over.

    Those of epochs after the checkpoint's own are left out, because they are run again.
    """
    path = folder / "metrics.csv"
    rows: list[dict[str, Any]] = []
    if resumed is not None and path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            # Empty cells are metrics of other steps; taken over as text they would be written as values.
            rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
        epoch = read_checkpoint(resumed)["epoch"]
        rows = [row for row in rows if int(row.get("epoch", -1)) <= epoch]
    logger = CSVLogger(folder.parent.parent, name=folder.parent.name, version=folder.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger.experiment.metrics.extend(rows)
    return logger
