"""A study from checked commands to tables."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from attn_lightning.study.configuration import Study
from attn_lightning.study.display import Display
from attn_lightning.study.expansion import Cell
from attn_lightning.study.scheduler import Planned, Scheduler, cores, log_path
from attn_lightning.study.state import CellState, cell_state
from attn_lightning.study.table import tables, unknown_metrics
from attn_lightning.study.validation import Validator, validate
from attn_lightning.study.writing import comma_separated, markdown, note, terminal

_MOST_JOBS = 4


class StudyRun:
    """The cells of a study, every command checked, and the folder where they are run.

    Args:
        study: the study.
        cells: its cells.
        root: the folder of the study.

    Raises:
        ConfigurationError: `fit` would refuse a command.
    """

    def __init__(self, study: Study, cells: Sequence[Cell], root: Path) -> None:
        self.study, self.root, self.validator = study, root, Validator()
        self.cells = list(zip(cells, validate(cells, root, self.validator), strict=True))
        self.errors: dict[Cell, str] = {}

    def states(self) -> list[tuple[Cell, CellState]]:
        """Every cell and what its run folder says."""
        parse = self.validator.parse
        return [
            (cell, cell_state(cell.folder(self.root), config, parse, cell.base_files(self.root)))
            for cell, config in self.cells
        ]

    def run(self, jobs: int | None, retry_failed: bool) -> None:
        """Run what is not finished.

        Args:
            jobs: cells at a time; one per core, at most 4, by default.
            retry_failed: run failed cells again; else they are left as they are.
        """
        states = dict(self.states())
        skipped = ("complete",) if retry_failed else ("complete", "failed")
        plan = [
            Planned(cell, config, retry=states[cell].state == "failed")
            for cell, config in self.cells
            if states[cell].state not in skipped
        ]
        jobs = max(1, min(jobs or min(_MOST_JOBS, cores()), len(plan)))
        with Display(len(self.cells), len(self.cells) - len(plan)) as display:
            display.line(_overview(self.study, [found.state for found in states.values()], jobs))
            scheduler = Scheduler(self.root, jobs, self.validator.parse, display, _durations(states))
            try:
                scheduler.run(plan)
            except KeyboardInterrupt:
                done = sum(found.state == "complete" for _, found in self.states())
                display.line(f"{done} of {len(self.cells)} cells are complete; the same command goes on from here")
                raise
            self.errors = scheduler.failed

    def show(self) -> int:
        """Print and write the tables; 0 if every cell is complete."""
        results = self.states()
        found = tables(self.study, results)
        notes = unknown_metrics(self.study, results)
        self.root.mkdir(parents=True, exist_ok=True)
        _write(self.root / "table.md", markdown(self.study, found, notes))
        _write(self.root / "table.csv", comma_separated(found))
        console = Console(width=None if sys.stdout.isatty() else 160)
        for table in found:
            console.print(terminal(table))
        for text in [note(self.study), *notes, *self._failures(results)]:
            print(text)
        print(f"tables: {self.root / 'table.md'} and table.csv")
        return 0 if all(state.state == "complete" for _, state in results) else 1

    def _failures(self, results: Sequence[tuple[Cell, CellState]]) -> list[str]:
        failed = [(cell, str(state.record.get("error", ""))) for cell, state in results if state.state == "failed"]
        never = [(cell, error) for cell, error in self.errors.items() if cell not in dict(failed)]
        logs = {cell: log_path(self.root, cell) for cell, _ in [*failed, *never]}
        lines = [
            f"failed: {cell}: {error}{f' [{logs[cell]}]' if logs[cell].exists() else ''}"
            for cell, error in [*failed, *never]
        ]
        return [*lines, "run failed cells again with `--retry-failed`"] if failed else lines


def _overview(study: Study, states: Sequence[str], jobs: int) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
    return f"{study.name}: {len(states)} cells ({counts}); {jobs} at a time"


def _durations(states: dict[Cell, CellState]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for cell, state in states.items():
        seconds = state.record.get("cost", {}).get("fit_seconds")
        if state.state == "complete" and seconds is not None:
            found.setdefault(cell.data, []).append(seconds)
    return found


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
