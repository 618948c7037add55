"""Which folder a `fit`, `validate` or `test` writes into: a new one, or that of the run it goes on with."""

import os
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from attn_lightning import run_folder
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.errors import ConfigurationError

FOLDER_VARIABLE = "ATTN_LIGHTNING_RUN_FOLDER"
"""Hands the run folder to the processes that Lightning starts for DDP by running the same command again."""


@dataclass(frozen=True)
class RunChoice:
    """The folder of a run.

    Attributes:
        folder: where everything goes.
        created: whether this process made it, so that it is taken away if the run never begins.
        resumed: the checkpoint that the training goes on from.
    """

    folder: Path
    created: bool = False
    resumed: Path | None = None


def choose(command: str, options: Namespace) -> RunChoice:
    """Find or make the run folder, before anything can write.

    Args:
        command: fit, validate or test.
        options: its parsed options, with `run.name`.

    Raises:
        ConfigurationError: the folder cannot be made, or there is nothing left to do in it.
    """
    checkpoint = options.get("ckpt_path")
    if FOLDER_VARIABLE in os.environ:
        return RunChoice(Path(os.environ[FOLDER_VARIABLE]))
    if command != "fit":
        choice = RunChoice(_evaluation_folder(command, checkpoint), created=True)
    elif checkpoint:
        choice = _resumed(checkpoint, options)
    else:
        choice = _new(options)
    os.environ[FOLDER_VARIABLE] = str(choice.folder)
    return choice


def rank() -> int:
    """This process's number among all; 0 if it is alone."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def _evaluation_folder(command: str, checkpoint: str | None) -> Path:
    if not checkpoint:
        raise ConfigurationError(
            f"Expected `--ckpt_path` with `{command}`, but got none; give a file such as RUN/checkpoints/best.ckpt."
        )
    return run_folder.create_evaluation(Path(checkpoint), command)


def _resumed(checkpoint: str, options: Namespace) -> RunChoice:
    root, name = Path(options.run.root), options.run.name
    path = run_folder.last_checkpoint(root, name) if checkpoint == "last" else Path(checkpoint)
    folder = run_folder.of_checkpoint(path)
    _refuse_complete(folder, options)
    _check_resumable(path, folder)
    return RunChoice(folder, resumed=path)


def _refuse_complete(folder: Path, options: Namespace) -> None:
    record = run_folder.read_metrics(folder)
    done = len(record.get("history", []))
    # Killed between the last epoch and the end of its test, a run still has that to do.
    tested = "test" in record or not options.run.test
    if record.get("status") == "complete" and tested and done >= (options.trainer.max_epochs or 0) >= 0:
        raise ConfigurationError(
            f"Expected an unfinished run, but {folder} is complete with {done} epochs; raise "
            "`--trainer.max_epochs` to train it longer, or leave `--ckpt_path` out for a new run."
        )


def _check_resumable(path: Path, folder: Path) -> None:
    """Refuse a checkpoint from which a run could not go on as if nothing had happened."""
    checkpoint = read_checkpoint(path)
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    if not progress.get("is_last_batch", True):
        raise ConfigurationError(
            f"Expected a checkpoint of a whole epoch, but {path} was written in the middle of one, where its data and "
            f"random numbers cannot be taken up again; use {folder / run_folder.CHECKPOINTS / 'last.ckpt'}."
        )
    for state in checkpoint.get("callbacks", {}).values():
        named = state.get("best_model_path") if isinstance(state, dict) else None
        best = path.parent / Path(str(named or path.name)).name
        if best.parent.name == run_folder.CHECKPOINTS and not best.is_file():
            raise ConfigurationError(
                f"Expected {best} beside {path.name}, which is the best epoch so far, but there is none; copy the "
                "whole run folder."
            )


def _new(options: Namespace) -> RunChoice:
    root, name, version = Path(options.run.root), options.run.name, options.run.version
    if rank() == 0:
        return RunChoice(run_folder.create(root, name, version), created=True)
    if version is None:
        raise ConfigurationError(
            "Expected `--run.version` when the processes are started from outside, but got none; give all of "
            "them the same one, so that they share a run folder."
        )
    return RunChoice(root / name / str(version))
