"""Running the cells of a study: several at a time, each a process of its own, so that none can take others with it."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attn_lightning import run_folder
from attn_lightning.locks import Claim, owner
from attn_lightning.study.display import Display, duration, seconds_left
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState, Parse, Wanted, cell_state, is_complete, resumable

_POLL_SECONDS = 0.2
_CLAIMED_SECONDS = 2.0
_STOP_SECONDS = 30.0


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


@dataclass
class _Job:
    planned: Planned
    claim: Claim
    process: "subprocess.Popen[bytes]"
    started: float
    resumed: bool


class Scheduler:
    """Runs planned cells and keeps what their processes print in `<root>/logs/`.

    A cell that another study process holds is waited for; whatever that leaves undone is run here. A cell that begins
    from the run of another waits for it, and is not started without it.

    Args:
        root: folder of the study.
        jobs: cells that run at a time; each gets its share of the cores as `OMP_NUM_THREADS`, unless that is set.
        parse: reads configurations found in run folders.
        display: where events are shown.
        durations: seconds of earlier cells by data, for the first estimates.
        program: what runs a command.
    """

    def __init__(
        self,
        root: Path,
        jobs: int,
        parse: Parse,
        display: Display,
        durations: Mapping[str, list[float]],
        program: Sequence[str] = (sys.executable, "-m", "attn_lightning"),
    ) -> None:
        self.root, self.jobs, self.parse, self.display, self.program = root, jobs, parse, display, program
        self.failed: dict[Cell, str] = {}
        self._durations = {data: list(values) for data, values in durations.items()}
        self._measured: dict[str, list[float]] = {}
        self._waiting: deque[Planned] = deque()
        self._claimed: dict[Cell, Planned] = {}
        self._told: set[Cell] = set()
        self._running: list[_Job] = []

    def run(self, plan: Sequence[Planned]) -> None:
        """Run the cells in their order; returns when all have ended.

        Raises:
            KeyboardInterrupt: stopped by Ctrl-C or another signal, after the running cells were stopped.
        """
        self._waiting.extend(plan)
        try:
            self._loop()
        except BaseException:
            self._stop()
            raise

    def _loop(self) -> None:
        asked = time.monotonic()
        while self._waiting or self._running or self._claimed:
            while len(self._running) < self.jobs and (planned := self._next()) is not None:
                self._start(planned)
            self._reap()
            self.display.tick([str(job.planned.cell) for job in self._running], self._left())
            if self._claimed and time.monotonic() - asked > _CLAIMED_SECONDS:
                asked = time.monotonic()
                self._waiting.extend(self._claimed.values())
                self._claimed.clear()
            time.sleep(_POLL_SECONDS)

    def _next(self) -> Planned | None:
        """Take the first waiting cell whose bases are not still to end."""
        open_cells = [*self._waiting, *self._claimed.values(), *(job.planned for job in self._running)]
        to_end = {planned.cell.folder(self.root) for planned in open_cells}
        for planned in self._waiting:
            if to_end.isdisjoint(planned.cell.base_folders(self.root)):
                self._waiting.remove(planned)
                return planned
        return None

    def _state(self, planned: Planned) -> CellState:
        cell = planned.cell
        return cell_state(cell.folder(self.root), planned.wanted, self.parse, cell.base_files(self.root))

    def _start(self, planned: Planned) -> None:
        cell = planned.cell
        without = [folder for folder in cell.base_folders(self.root) if not is_complete(folder)]
        if without:
            self._refuse(cell, f"it begins from {without[0]}, which is not complete")
            return
        path = self.root / ".claims" / f"{cell.name}.{cell.version}.lock"
        try:
            claim = Claim(path)
        except BlockingIOError:
            self._claimed[cell] = planned
            if cell not in self._told:
                self._told.add(cell)
                self.display.line(f"{cell} is being run by {owner(path)}; waiting for it")
            return
        # Only now is it certain that nobody else changes the folder.
        state = self._state(planned)
        if state.state == "complete" or (state.state == "failed" and not planned.retry):
            claim.release()
            self._report(cell, state, "elsewhere")
        else:
            self._launch(planned, claim, state)

    def _launch(self, planned: Planned, claim: Claim, state: CellState, resume: bool = True) -> None:
        cell = planned.cell
        folder = cell.folder(self.root)
        checkpoint = resumable(folder) if resume and state.state == "unfinished" else None
        if checkpoint is not None:
            arguments = [*cell.arguments(self.root), "--run.resume=auto"]
            self.display.line(f"resumed  {cell}")
        else:
            arguments = cell.arguments(self.root)
            if state.state != "missing" and (target := run_folder.set_aside(folder)) is not None:
                self.display.line(f"{folder} was {_REASONS[state.state]}; it is kept as {target.name}")
            self.display.line(f"started  {cell}")
        process = self._process(cell, claim, arguments)
        self._running.append(_Job(planned, claim, process, time.monotonic(), checkpoint is not None))

    def _process(self, cell: Cell, claim: Claim, arguments: list[str]) -> "subprocess.Popen[bytes]":
        command = [*self.program, *arguments]
        path = log_path(self.root, cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            # A session of its own: Ctrl-C reaches the study alone, which then stops its runs in order.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                pass_fds=(claim.descriptor,),
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        threads = str(max(1, cores() // self.jobs))
        return {"OMP_NUM_THREADS": threads, **os.environ}

    def _reap(self) -> None:
        for job in [job for job in self._running if job.process.poll() is not None]:
            self._running.remove(job)
            state = self._state(job.planned)
            if job.resumed and state.state == "unfinished" and job.process.returncode == 1:
                self.display.line(f"{job.planned.cell} could not be resumed; its log says why: starting again")
                self._launch(job.planned, job.claim, state, resume=False)
                continue
            job.claim.release()
            seconds = time.monotonic() - job.started
            if state.state == "complete" and not job.resumed:
                self._measured.setdefault(job.planned.cell.data, []).append(seconds)
            self._report(job.planned.cell, state, duration(seconds))

    def _report(self, cell: Cell, state: CellState, took: str) -> None:
        if state.state == "complete":
            self.display.finished(f"done     {cell} ({took})", self._left())
            return
        error = str(state.record.get("error") or _last_line(log_path(self.root, cell)))
        self.failed[cell] = error
        self.display.finished(f"FAILED   {cell} ({took}): {error} [{log_path(self.root, cell)}]", self._left())

    def _refuse(self, cell: Cell, reason: str) -> None:
        self.failed[cell] = reason
        self.display.finished(f"FAILED   {cell} (not started): {reason}", self._left())

    def _left(self) -> float | None:
        now = time.monotonic()
        waiting = [planned.cell.data for planned in [*self._waiting, *self._claimed.values()]]
        running = [(job.planned.cell.data, now - job.started) for job in self._running]
        return seconds_left(waiting, running, {**self._durations, **self._measured}, self.jobs)

    def _stop(self) -> None:
        """Interrupt the running cells, which then record that; kill what does not end in time."""
        for job in self._running:
            _signal(job, signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            while any(job.process.poll() is None for job in self._running) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
        finally:
            for job in self._running:
                _signal(job, signal.SIGKILL)
                job.process.wait()
                job.claim.release()


_REASONS = {
    "unfinished": "interrupted before its first checkpoint, or cannot be resumed",
    "failed": "a failed run",
    "different": "a run of another configuration or other data, or begun from a base that was made again",
}


def log_path(root: Path, cell: Cell) -> Path:
    """Where the output of a cell is kept, of all attempts."""
    return root / "logs" / f"{cell.name}.{cell.version}.log"


def _signal(job: _Job, number: int) -> None:
    if job.process.poll() is None:
        os.killpg(job.process.pid, number)


def _last_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    last_attempt = f"\n{text}".rpartition("\n$ ")[2].splitlines()[1:]
    said = [line for line in last_attempt if line.strip()]
    errors = [line for line in said if line.startswith("error: ")]
    return (errors or said or ["it ended without a word"])[-1]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
