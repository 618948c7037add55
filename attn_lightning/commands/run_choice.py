"""Which folder a `fit`, `validate` or `test` writes into: a new one, or that of the run it goes on with."""

from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from attn_lightning import run_folder
from attn_lightning.checkpoint import read_checkpoint
from attn_lightning.commands.processes import Decision
from attn_lightning.commands.same_run import LONGER, SameRun
from attn_lightning.commands.slurm import was_requeued
from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError
from attn_lightning.locks import Claim, owner


@dataclass(frozen=True)
class RunChoice:
    """The folder of a run.

    Attributes:
        folder: where everything goes.
        resumed: the checkpoint that the training goes on from.
        complete: whether all that was asked for is there, so that there is nothing to do.
        created: whether this process made the folder, so that it is taken away if the run never begins.
        claim: what keeps other processes out of it.
    """

    folder: Path
    resumed: Path | None = None
    complete: bool = False
    created: bool = False
    claim: Claim | None = None

    def decision(self) -> Decision:
        """What the other processes of the job need to know."""
        # As text, because it travels between processes as JSON.
        resumed = None if self.resumed is None else str(self.resumed)
        return {"folder": str(self.folder), "resumed": resumed, "complete": self.complete}

    @classmethod
    def of(cls, decision: Decision) -> "RunChoice":
        """The choice of another process."""
        resumed = None if decision["resumed"] is None else Path(decision["resumed"])
        return cls(Path(decision["folder"]), resumed, decision["complete"])

    def release(self) -> None:
        """Let other processes into the folder, and take it away if the run never began."""
        if self.claim is not None:
            self.claim.release(remove=True)
        if self.created:
            run_folder.remove_unused(self.folder)


def choose(command: str, options: Namespace, same: SameRun) -> RunChoice:
    """Find or make the run folder, before anything can write.

    Args:
        command: fit, validate or test.
        options: its parsed options, with `run.name`.
        same: compares runs with this command.

    Raises:
        ConfigurationError: the folder cannot be made, belongs to another run or to another process at this moment, or
            there is nothing left to do in it.
    """
    checkpoint = options.get("ckpt_path")
    if command != "fit":
        # Every test has a folder of its own in that of the run, so that no result replaces another.
        return RunChoice(_evaluation_folder(command, checkpoint), created=True)
    if checkpoint and options.run.resume == "auto":
        raise ConfigurationError("Expected `--run.resume=auto` or `--ckpt_path`, but got both; leave one of them out.")
    if checkpoint:
        return _resumed(checkpoint, options, same)
    if options.run.resume == "auto" or was_requeued():
        return _auto(options, same)
    return _new(options, options.run.version)


def _evaluation_folder(command: str, checkpoint: str | None) -> Path:
    if not checkpoint:
        raise ConfigurationError(
            f"Expected `--ckpt_path` with `{command}`, but got none; give a file such as RUN/checkpoints/best.ckpt."
        )
    return run_folder.create_evaluation(Path(checkpoint), command)


def _resumed(checkpoint: str, options: Namespace, same: SameRun) -> RunChoice:
    root, name = Path(options.run.root), options.run.name
    path = run_folder.last_checkpoint(root, name) if checkpoint == "last" else Path(checkpoint)
    folder = run_folder.of_checkpoint(path)
    # A run may be made longer when it goes on; anything else would make two halves of different runs.
    differences = [option for option in same.differences(folder) if option not in LONGER]
    if differences and run_folder.newest_config(folder) is not None:
        raise _of_another_run(folder, differences)
    # Before the claim: a complete run needs none, and its folder may be one that nobody can write to.
    _refuse_complete(folder, options)
    _check_resumable(path, folder)
    return RunChoice(folder, path, claim=_claim(folder))


def _of_another_run(folder: Path, differences: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"Expected to go on with the run in {folder} as it began, but {', '.join(differences[:5])} differ"
        f"{'s' if len(differences) == 1 else ''}; give its own options, or start a new run."
    )


def _refuse_complete(folder: Path, options: Namespace) -> None:
    record = run_folder.read_metrics(folder)
    done = len(record.get("history", []))
    if run_folder.is_finished(record, run_folder.asked(options.run)) and done >= (options.trainer.max_epochs or 0) >= 0:
        raise ConfigurationError(
            f"Expected an unfinished run, but {folder} is complete with {done} epochs; raise "
            "`--trainer.max_epochs` to train it longer, or leave `--ckpt_path` out for a new run."
        )


def _check_resumable(path: Path, folder: Path) -> None:
    """Refuse a checkpoint from which a run could not go on as if nothing had happened."""
    checkpoint = read_checkpoint(path)
    # Where Lightning 2.6 keeps how far the epoch was; a checkpoint without it is taken at its word.
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


def _auto(options: Namespace, same: SameRun) -> RunChoice:
    """Start, go on, or find that there is nothing to do."""
    parent, version = Path(options.run.root) / options.run.name, options.run.version
    # The newest run of the same configuration is the one to go on with.
    for folder in run_folder.runs(parent) if version is None else [parent / version]:
        if not folder.exists():
            continue
        differences = same.differences(folder)
        if differences and version is not None and run_folder.has_begun(folder):
            raise _of_another_run(folder, differences)
        if not differences or version is not None:
            return _continued(folder, options)
    return (_taken(parent) if version is None else None) or _new(options, version)


def _taken(parent: Path) -> RunChoice | None:
    """A numbered folder whose process was killed before it wrote anything; None if there is none."""
    for folder in run_folder.never_begun(parent):
        if (claim := _free_claim(folder)) is None:
            continue
        # Only now is it certain that nobody else changes the folder.
        if folder in run_folder.never_begun(parent):
            run_folder.clear(folder)
            return RunChoice(folder, created=True, claim=claim)
        claim.release(remove=True)
    return None


def _continued(folder: Path, options: Namespace) -> RunChoice:
    parts = run_folder.asked(options.run)
    if run_folder.is_finished(run_folder.read_metrics(folder), parts):
        return RunChoice(folder, complete=True)
    claim = _claim(folder)
    # Only now is it certain that nobody else changes the folder.
    if run_folder.is_finished(run_folder.read_metrics(folder), parts):
        claim.release(remove=True)
        return RunChoice(folder, complete=True)
    run_folder.clear(folder)
    last = folder / run_folder.CHECKPOINTS / "last.ckpt"
    if last.is_file():
        _check_resumable(last, folder)
        return RunChoice(folder, last, claim=claim)
    claim.release(remove=True)
    # Kept and not deleted: its log is all that says why the run ended so early.
    if (kept := run_folder.set_aside(folder)) is not None:
        say(f"{folder} ended before its first checkpoint; it is kept as {kept.name}")
    return _new(options, folder.name)


def _new(options: Namespace, version: str | None) -> RunChoice:
    while True:
        folder = run_folder.create(Path(options.run.root), options.run.name, version)
        # One that has just been made looks like that of a killed process, and another may be faster to take it.
        claim = _claim(folder) if version is not None else _free_claim(folder)
        if claim is not None:
            return RunChoice(folder, created=True, claim=claim)


def _claim(folder: Path) -> Claim:
    if (claim := _free_claim(folder)) is None:
        who = owner(folder / run_folder.LOCK)
        raise ConfigurationError(
            f"Expected to be the only process that trains in {folder}, but {who} is at work there; wait for it."
        )
    return claim


def _free_claim(folder: Path) -> Claim | None:
    try:
        return Claim(folder / run_folder.LOCK)
    except BlockingIOError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write into {folder}, but got: {error}; free the folder or copy the run."
        ) from error
