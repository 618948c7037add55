"""A study from checked commands to tables."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attn_lightning.console import say, stdout_console
from attn_lightning.files import write_text
from attn_lightning.study.archive import read_archive, restore, write_archive
from attn_lightning.study.cell_run import Planned
from attn_lightning.study.configuration import Study
from attn_lightning.study.display import Display
from attn_lightning.study.engines import Engine
from attn_lightning.study.expansion import Cell
from attn_lightning.study.grouping import by_error, first_and_number
from attn_lightning.study.publishing import block, publish
from attn_lightning.study.record import write_record
from attn_lightning.study.scheduler import Scheduler, log_path
from attn_lightning.study.state import CellState, Parse, Revisions, cell_state, without_other_data
from attn_lightning.study.table import tables, unknown_metrics
from attn_lightning.study.validation import validate
from attn_lightning.study.writing import comma_separated, markdown, note, terminal


class StudyRun:
    """The cells of a study, every command checked, and the folder where they are run.

    Args:
        study: the study.
        cells: its cells.
        root: the folder of the study.
        parse: the parser of `fit`, which this room does not know.
        revisions: gives what the files of the data of a configuration are now.

    Raises:
        ConfigurationError: `fit` would refuse a command, or no run will have a metric of the tables.
    """

    def __init__(self, study: Study, cells: Sequence[Cell], root: Path, parse: Parse, revisions: Revisions) -> None:
        self.study, self.root, self.parse = study, root, parse
        # A condition on a metric that no run has would leave every table empty.
        metrics = (*study.metrics, *study.require)
        self.cells = list(zip(cells, validate(cells, root, parse, revisions, metrics), strict=True))
        self.errors: dict[Cell, str] = {}
        self.left_out: dict[Cell, str] = {}

    def states(self) -> list[tuple[Cell, CellState]]:
        """Every cell and what its run folder says."""
        states = {
            cell: cell_state(cell.folder(self.root), wanted, self.parse, cell.base_files(self.root))
            for cell, wanted in self.cells
        }
        return list(without_other_data(states).items())

    def take_from(self, archive: Path) -> None:
        """Make run folders of the cells that an archive has and the disk does not; see `archive`."""
        wanted = dict(self.cells)
        found = restore(
            read_archive(archive),
            list(wanted),
            self.root,
            lambda cell, folder: cell_state(folder, wanted[cell], self.parse),
        )
        if found.taken or found.refused:
            say(f"{found.taken} finished cells are taken from {archive}, without their models")
        if found.refused:
            say(
                f"{len(found.refused)} cells of {archive} are of another configuration, other data or not finished, "
                f"and are run again; the first is {found.refused[0]}"
            )

    def keep_in(self, archive: Path) -> None:
        """Put the finished cells into an archive."""
        count = write_archive(archive, self.states(), lambda cell: cell.folder(self.root))
        say(f"archive: {archive}, {count} cells")

    def run(
        self,
        engine: Engine,
        command: Callable[[Planned], Sequence[str]],
        retry_failed: bool,
        unready: Callable[[Sequence[Cell]], Mapping[Cell, str]] | None = None,
    ) -> None:
        """Run what is not finished.

        Args:
            engine: what runs the cells; it is closed at the end.
            command: gives the command line of a cell.
            retry_failed: run failed cells again; else they are left as they are.
            unready: is asked once for those of the cells to run that cannot, and why; they are left out. None where
                nothing can be known before.

        Raises:
            ConfigurationError: what `unready` says if no cell can run.
        """
        states = dict(self.states())
        self._record(states)
        planned = [
            # Only of cells that have failed by now: one that fails while the study runs is not begun again by itself.
            Planned(cell, wanted, retry_failed and states[cell].state == "failed")
            for cell, wanted in self.cells
        ]
        plan = [each for each in planned if each.needs_work(states[each.cell])]
        with Display(len(self.cells), len(self.cells) - len(plan)) as display:
            display.line(_overview(self.study, [found.state for found in states.values()], engine.place))
            scheduler = Scheduler(self.root, engine, command, self.parse, display)
            try:
                if unready is not None:
                    self.left_out = dict(unready([planned.cell for planned in plan]))
            except BaseException:
                # The scheduler closes it otherwise, but has not begun.
                engine.close()
                raise
            for line in self._not_run():
                display.line(line)
            try:
                scheduler.run([planned for planned in plan if planned.cell not in self.left_out])
            except KeyboardInterrupt:
                done = sum(found.state == "complete" for _, found in self.states())
                display.line(f"{done} of {len(self.cells)} cells are complete; the same command goes on from here")
                raise
            self.errors = scheduler.failed

    def show(self, command: str = "", published: Path | None = None) -> int:
        """Print and write the tables.

        Args:
            command: how the study is run, for the file that is published.
            published: a Markdown file whose part about this study is replaced too; see `publishing`.

        Returns:
            0 if every cell is complete, else 1.
        """
        results = self.states()
        found = tables(self.study, results)
        notes = [*unknown_metrics(self.study, results), *_on_other_data(results)]
        self._record(dict(results))
        write_text(self.root / "table.md", markdown(self.study, found, notes))
        write_text(self.root / "table.csv", comma_separated(found))
        console = stdout_console()
        for table in found:
            console.print(terminal(table))
        for text in [note(self.study), *notes, *self._failures(results)]:
            say(text)
        say(f"tables: {self.root / 'table.md'} and table.csv")
        if published is not None:
            publish(published, self.study.name, block(command, results, found))
            say(f"published: {published}")
        return 0 if all(state.state == "complete" for _, state in results) else 1

    def _record(self, states: Mapping[Cell, CellState]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        # A report knows run folders alone, and would take these for runs of the study that it is now.
        stale = {
            cell
            for cell, found in states.items()
            if found.state != "complete" and found.record.get("status") == "complete"
        }
        write_record(self.root, self.study, list(states), stale)

    def _failures(self, results: Sequence[tuple[Cell, CellState]]) -> list[str]:
        failed = [(cell, str(state.record.get("error", ""))) for cell, state in results if state.state == "failed"]
        # Errors of cells without a record: they failed before `fit` could write one.
        never = [(cell, error) for cell, error in self.errors.items() if cell not in dict(failed)]
        logs = {str(cell): log_path(self.root, cell) for cell, _ in [*failed, *never]}
        lines = []
        for names, error in by_error({str(cell): error for cell, error in [*failed, *never]}):
            # The first log stands for all: they say the same.
            log = logs[names[0]]
            lines.append(f"failed: {first_and_number(names)}: {error}{f' [{log}]' if log.exists() else ''}")
        lines += self._not_run()
        return [*lines, "run failed cells again with `--retry-failed`"] if failed else lines

    def _not_run(self) -> list[str]:
        errors = by_error({str(cell): error for cell, error in self.left_out.items()})
        return [f"not run: {first_and_number(names)}: {error}" for names, error in errors]


def _overview(study: Study, states: Sequence[str], place: str) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
    return f"{study.name}: {len(states)} cells ({counts}); {place}"


def _on_other_data(results: Sequence[tuple[Cell, CellState]]) -> list[str]:
    """A line on the complete runs that no table counts for the data that they saw."""
    # To run them again changes nothing: a method that makes other data does so every time.
    left_out = [str(cell) for cell, found in results if found.other_data]
    return left_out and [
        f"left out: {first_and_number(left_out)}: of other data than the newest run of the same table; what makes "
        "other data belongs under `data` of the study, not under `methods`"
    ]
