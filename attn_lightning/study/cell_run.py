"""One cell of a study, as often as anybody asks: claimed, looked at, and then skipped, resumed or run.

This is what makes "at least once", which every engine can promise, into "exactly once".
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attn_lightning import run_folder
from attn_lightning.console import say
from attn_lightning.errors import AttnLightningError, ConfigurationError
from attn_lightning.locks import Claim, is_held, owner
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState, Parse, Wanted, cell_state, is_complete, resumable

HELD = 75
"""Exit code where another process is at work on the cell; `EX_TEMPFAIL` of the system's own tools."""

_ATTEMPTS, _PAUSE_SECONDS = 4, 0.1

REASONS = {
    "unfinished": "interrupted before its first checkpoint, or cannot be resumed",
    "failed": "a failed run",
    "different": "a run of another configuration or other data, or begun from a base that was made again",
}
"""Why a run folder is set aside."""


@dataclass(frozen=True)
class Planned:
    """A cell to run.

    Attributes:
        cell: the cell.
        wanted: what is asked of it, from `validate`.
        retry: run it again if its run folder says that it failed.
    """

    cell: Cell
    wanted: Wanted
    retry: bool = False

    def state(self, root: Path, parse: Parse) -> CellState:
        """What its run folder says now."""
        return cell_state(self.cell.folder(root), self.wanted, parse, self.cell.base_files(root))

    def needs_work(self, state: CellState) -> bool:
        """Whether it is to be run in this state."""
        return state.state != "complete" and (state.state != "failed" or self.retry)


def claim_path(root: Path, cell: Cell) -> Path:
    """The lock of a cell."""
    return root / ".claims" / f"{cell.name}.{cell.version}.lock"


def holder(root: Path, cell: Cell) -> str | None:
    """Who is at work on a cell, for people; None if nobody is."""
    path = claim_path(root, cell)
    return owner(path) if is_held(path) else None


def base_wanting(root: Path, cell: Cell) -> Path | None:
    """A run that the cell begins from and that is not complete; None if there is none."""
    return next((folder for folder in cell.base_folders(root) if not is_complete(folder)), None)


def run_cell(planned: Planned, root: Path, parse: Parse, fit: Callable[[Sequence[str]], int]) -> int:
    """Do what is left to do of a cell.

    Args:
        planned: the cell.
        root: the folder of the study.
        parse: reads older configurations with today's defaults.
        fit: runs a `fit` command in this process.

    Returns:
        0 if the cell is complete at the end, `HELD` if another process is at work on it, else 1.

    Raises:
        ConfigurationError: a run that it begins from is not complete.
        AttnLightningError: what `fit` says.
    """
    cell = planned.cell
    # Before the claim: a cell that waits for its base must not keep others from looking at it.
    if (base := base_wanting(root, cell)) is not None:
        raise ConfigurationError(
            f"Expected {base} to be complete, which {cell} begins from, but it is not; run it first."
        )
    claim = _claim(claim_path(root, cell))
    if claim is None:
        say(f"{cell} is being run by {owner(claim_path(root, cell))}")
        return HELD
    try:
        # Only now is it certain that nobody else changes the folder.
        state = planned.state(root, parse)
        if not planned.needs_work(state):
            return _leave(cell, state)
        if not _resumed(planned, root, parse, fit, state):
            _set_aside(cell.folder(root), state)
            fit(cell.arguments(root))
        # Read from the folder again: `fit` may return 0 without the evaluation that was asked for.
        return 0 if planned.state(root, parse).state == "complete" else 1
    finally:
        claim.release()


def _claim(path: Path) -> Claim | None:
    """The right to work on a cell; None if somebody else has it, and not only for the moment that `holder` takes."""
    # Asking who holds a claim takes it for a moment; a cell must not be given up for that.
    for attempt in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            return Claim(path)
        time.sleep(_PAUSE_SECONDS * (attempt < _ATTEMPTS - 1))
    return None


def _leave(cell: Cell, state: CellState) -> int:
    if state.state == "complete":
        say(f"nothing to do: {cell} is complete")
        return 0
    say(f"{cell} has failed: {state.record.get('error')}; `--retry-failed` runs it again")
    return 1


def _resumed(planned: Planned, root: Path, parse: Parse, fit: Callable[[Sequence[str]], int], state: CellState) -> bool:
    """Go on with a run that was interrupted; False if there is none, or if it refuses to go on."""
    if state.state != "unfinished" or resumable(planned.cell.folder(root)) is None:
        return False
    try:
        fit([*planned.cell.arguments(root), "--run.resume=auto"])
    except AttnLightningError as error:
        # One that has failed after it went on has recorded that, and is not started over and over.
        if planned.state(root, parse).state != "unfinished":
            raise
        say(f"{planned.cell} could not be resumed: {error}; starting again")
        return False
    return True


def _set_aside(folder: Path, state: CellState) -> None:
    if state.state != "missing" and (target := run_folder.set_aside(folder)) is not None:
        say(f"{folder} was {REASONS[state.state]}; it is kept as {target.name}")
