"""Which cell of a study is next. Where and how cells run is the engine's business; see `engines`."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attn_lightning.console import duration
from attn_lightning.study.cell_run import HELD, REASONS, Planned, base_wanting, holder
from attn_lightning.study.display import Display
from attn_lightning.study.engines import Ended, Engine, Job
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState, Parse, resumable

_CLAIMED_SECONDS = 2.0
_TICK_SECONDS = 30.0


@dataclass(frozen=True)
class _Started:
    planned: Planned
    at: float


class Scheduler:
    """Hands planned cells to an engine in their order and reports what became of them, from their run folders.

    A cell that another study is at work on is waited for; whatever that leaves undone is run here. A cell that begins
    from the run of another waits for it, and is not started without it.

    Args:
        root: folder of the study; what cells print is kept in `<root>/logs/`.
        engine: runs commands.
        command: gives the command line of a cell after `python -m attn_lightning`; it does nothing for a complete cell.
        parse: reads configurations found in run folders.
        display: where events are shown.
    """

    def __init__(
        self,
        root: Path,
        engine: Engine,
        command: Callable[[Planned], Sequence[str]],
        parse: Parse,
        display: Display,
    ) -> None:
        self.root, self.engine, self.command, self.parse, self.display = root, engine, command, parse, display
        self.failed: dict[Cell, str] = {}
        self._waiting: deque[Planned] = deque()
        self._claimed: dict[Cell, Planned] = {}
        self._told: set[Cell] = set()
        self._running: dict[str, _Started] = {}

    def run(self, plan: Sequence[Planned]) -> None:
        """Run the cells; returns when all have ended.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C or another signal, after the engine has ended its jobs.
        """
        self._waiting.extend(plan)
        try:
            while self._waiting or self._running or self._claimed:
                self._start_ready()
                # Before waiting, or the bar would show the cells of the last round for half a minute.
                self.display.tick([str(started.planned.cell) for started in self._running.values()])
                for ended in self.engine.ended(_CLAIMED_SECONDS if self._claimed else _TICK_SECONDS):
                    self._end(ended)
                self._look_at_claimed()
        finally:
            if said := self.engine.close():
                self.display.line(said)

    def _start_ready(self) -> None:
        while self.engine.has_room() and (planned := self._next()) is not None:
            self._start(planned)

    def _next(self) -> Planned | None:
        """Take the first waiting cell whose bases are not still to end, or any if the engine lets it wait itself."""
        # A base that is still to be run, by us or somebody else, keeps its cells waiting.
        open_cells = [*self._waiting, *self._claimed.values()]
        if not self.engine.queues:
            open_cells += [started.planned for started in self._running.values()]
        to_end = {planned.cell.folder(self.root) for planned in open_cells}
        for planned in self._waiting:
            if to_end.isdisjoint(planned.cell.base_folders(self.root)):
                self._waiting.remove(planned)
                return planned
        return None

    def _start(self, planned: Planned) -> None:
        cell = planned.cell
        bases = cell.base_folders(self.root)
        after = [name for name, started in self._running.items() if started.planned.cell.folder(self.root) in bases]
        if not after and (base := base_wanting(self.root, cell)) is not None:
            self._report_failure(cell, f"it begins from {base}, which is not complete", "not started")
            return
        if (who := holder(self.root, cell)) is not None:
            self._wait_for(planned, who)
            return
        state = planned.state(self.root, self.parse)
        # Looked at once more just before the start: hours may have passed since the plan was made.
        if not planned.needs_work(state):
            # Another study has done it since this one looked at all cells.
            self._report(cell, state, "elsewhere")
            return
        self.display.line(_beginning(cell, cell.folder(self.root), state))
        self._running[str(cell)] = _Started(planned, time.monotonic())
        self.engine.submit(Job(str(cell), tuple(self.command(planned)), log_path(self.root, cell), tuple(after)))

    def _wait_for(self, planned: Planned, who: str) -> None:
        cell = planned.cell
        self._claimed[cell] = planned
        if cell not in self._told:
            self._told.add(cell)
            self.display.line(f"{cell} is being run by {who}; waiting for it")

    def _look_at_claimed(self) -> None:
        free = [cell for cell in self._claimed if holder(self.root, cell) is None]
        # Back into the queue and not straight to the engine: its folder says now whether anything is left to do.
        self._waiting.extend(self._claimed.pop(cell) for cell in free)

    def _end(self, ended: Ended) -> None:
        started = self._running.pop(ended.name)
        cell = started.planned.cell
        # Asked in this order: one that gave the cell back in between has completed it.
        who = holder(self.root, cell)
        state = started.planned.state(self.root, self.parse)
        if state.state != "complete" and (who is not None or ended.code == HELD):
            self._wait_for(started.planned, who or "another process")
            return
        self._report(cell, state, duration(time.monotonic() - started.at), ended.reason)

    def _report(self, cell: Cell, state: CellState, took: str, reason: str = "") -> None:
        if state.state == "complete":
            self.display.finished(f"done     {cell} ({took})")
            return
        # What the run itself says is better than what the engine saw of its process.
        recorded = state.record.get("error") if state.state == "failed" else None
        self._report_failure(cell, str(recorded or reason or _last_line(log_path(self.root, cell))), took)

    def _report_failure(self, cell: Cell, error: str, took: str) -> None:
        self.failed[cell] = error
        log = log_path(self.root, cell)
        where = f" [{log}]" if log.exists() and took != "not started" else ""
        self.display.finished(f"FAILED   {cell} ({took}): {error}{where}")


def _beginning(cell: Cell, folder: Path, state: CellState) -> str:
    if state.state == "missing":
        return f"started  {cell}"
    if state.state == "unfinished" and resumable(folder) is not None:
        return f"resumed  {cell}"
    return f"started  {cell} again: {folder} is {REASONS[state.state]}, and is kept beside it"


def log_path(root: Path, cell: Cell) -> Path:
    """Where the output of a cell is kept, of all attempts."""
    return root / "logs" / f"{cell.name}.{cell.version}.log"


def _last_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    # A log holds all attempts, each under its command; an error of an earlier one would mislead.
    last_attempt = f"\n{text}".rpartition("\n$ ")[2].splitlines()[1:]
    said = [line for line in last_attempt if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said or ["it ended without a message"])[-1]
