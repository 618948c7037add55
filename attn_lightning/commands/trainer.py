"""What a run adds to the trainer of its configuration: checkpoints, loggers, the record, seeds."""

import csv
import os
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger

from attn_lightning import run_folder
from attn_lightning.callbacks.epoch_seed import EpochSeed
from attn_lightning.callbacks.run_record import EpochSummary, RunRecord
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.commands.run_choice import RunChoice, rank
from attn_lightning.commands.wandb_run import BestSoFar, make_logger


def run_callbacks(record: RunRecord) -> list[Callback]:
    """What every command has beside the method: seeds by epoch, the record, a line per epoch."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    seeds = [] if seed is None else [EpochSeed(int(seed))]
    return [*seeds, record, EpochSummary()]


def checkpoints(folder: Path, monitor: str, mode: str) -> list[Callback]:
    """One for the best epoch and one for the last: Lightning's own `save_last` follows the best one only."""
    options: dict[str, Any] = {
        "dirpath": folder / run_folder.CHECKPOINTS,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    best = ModelCheckpoint(filename="best", monitor=monitor, mode=mode, **options)
    return [best, ModelCheckpoint(filename="last", **options), BestSoFar()]


def loggers(chosen: Any, choice: RunChoice, options: Namespace, fits: bool) -> list[Logger] | bool:
    """The loggers of a command: its table in the run folder, W&B if asked for, and those of the configuration.

    Args:
        chosen: `trainer.logger`: False for none, True or None for ours alone, or others.
        choice: the run folder.
        options: the run options.
        fits: whether the command is `fit`; the others write no table of epochs.
    """
    if chosen is False or rank() != 0:
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
            rows = [{key: value for key, value in row.items() if value != ""} for row in csv.DictReader(file)]
        epoch = read_checkpoint(resumed)["epoch"]
        rows = [row for row in rows if int(row.get("epoch", -1)) <= epoch]
    logger = CSVLogger(folder.parent.parent, name=folder.parent.name, version=folder.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        logger.experiment.metrics.extend(rows)
    return logger
