"""The runs of a study from its folder alone: by the study's own record, or, without one, by the names of the runs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from attn_lightning.data.revision import Version, recorded_revisions
from attn_lightning.data.sources import GENERATED
from attn_lightning.errors import ConfigurationError
from attn_lightning.report.arithmetic import configuration_but_seed
from attn_lightning.report.key_numbers import chosen_metrics
from attn_lightning.report.run_data import Run, read_run, runs_below
from attn_lightning.study.configuration import Study
from attn_lightning.study.expansion import Cell
from attn_lightning.study.grouping import first_and_number
from attn_lightning.study.record import RECORD, bare_cell, bare_variant, read_record, stale_runs
from attn_lightning.study.state import CellState

_BASELINES = ("vanilla", "softmax")
"""What others are compared with where no study says so."""


@dataclass(frozen=True)
class StudyData:
    """A study whose runs were read.

    Attributes:
        folder: of the study.
        study: what it compares.
        results: every cell and what its run says.
        runs: the run of every cell that has one.
        notes: a line for everything that could not be read or counted.
    """

    folder: Path
    study: Study
    results: Sequence[tuple[Cell, CellState]]
    runs: Mapping[Cell, Run]
    notes: tuple[str, ...]


def read_study_folder(folder: Path) -> StudyData:
    """Read a study.

    Args:
        folder: with `study.json`, or with runs somewhere below it.

    Raises:
        ConfigurationError: there are no runs in it.
    """
    notes: list[str] = []
    found = _runs(folder, notes)
    if not found:
        # Of a folder with nothing but damaged runs, what is wrong with them is the news.
        raise ConfigurationError(
            "; ".join(notes).removeprefix("left out: ")
            or f"Expected a run or a study in {folder}, but there is no run in it; name the folder of one."
        )
    recorded = _recorded(folder, found, notes) if (folder / RECORD).exists() else None
    # Without a record the names of the runs are all there is: METHOD_DATA/VERSION, as a study makes them.
    study, runs = recorded or _inferred(folder, found)
    runs = _on_the_same_data(runs, notes)
    results = [(cell, CellState("missing") if run is None else _state(run)) for cell, run in runs.items()]
    kept = {cell: run for cell, run in runs.items() if run is not None}
    return StudyData(folder, study, results, kept, tuple(notes))


def _runs(folder: Path, notes: list[str]) -> list[Run]:
    found = []
    for path in runs_below(folder):
        try:
            # One damaged run becomes a note: the report of a hundred others must not fail for it.
            found.append(read_run(path))
            notes.extend(found[-1].notes)
        except ConfigurationError as error:
            notes.append(f"left out: {error}")
    return found


def _recorded(folder: Path, found: Sequence[Run], notes: list[str]) -> tuple[Study, dict[Cell, Run | None]] | None:
    try:
        study, cells = read_record(folder)
    except ConfigurationError as error:
        notes.append(f"the names of the runs are used: {error}")
        return None
    stale = stale_runs(folder)
    if stale:
        labels = first_and_number(str(cell) for cell in cells if cell.folder(folder) in stale)
        notes.append(
            f"left out: {labels}: runs of other options or data than {study.name} asks for, or without a part of their "
            "measurements, as it was looked at last"
        )
    by_folder = {run.folder: run for run in found if run.folder not in stale}
    return study, {cell: by_folder.get(cell.folder(folder)) for cell in cells}


def _inferred(folder: Path, found: Sequence[Run]) -> tuple[Study, dict[Cell, Run | None]]:
    """Methods are what the names of the experiments say beside the name of the data; seeds are in the records."""
    cells: dict[Cell, Run | None] = {}
    taken: set[tuple[str, str, int]] = set()
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for run in found:
        method, seed = _method_label(run), run.seed or 0
        # Of other options it is another method, though its name is the same: no mean is over both.
        kind = kinds.setdefault((method, run.data_name), {})
        method = kind.setdefault(configuration_but_seed(run), f"{method} {run.folder.name}" if kind else method)
        # The same name and seed twice: kept apart by the folder, or one of the two would be lost.
        if (method, run.data_name, seed) in taken:
            method = f"{method} {run.folder.name}"
        taken.add((method, run.data_name, seed))
        cells[bare_cell(method, run.data_name, "", seed, run.name)] = run
    methods, data = (list(dict.fromkeys(getattr(cell, axis) for cell in cells)) for axis in ("method", "data"))
    study = Study(
        name=folder.name,
        experiments=Path(),
        methods=tuple(map(bare_variant, methods)),
        data=tuple(map(bare_variant, data)),
        options=(bare_variant(""),),
        seeds=tuple(sorted({cell.seed for cell in cells})),
        metrics=tuple(chosen_metrics(found)),
        # Guessed only where an experiment of ours is called so; else nothing is compared, rather than with the wrong
        # one.
        baseline=next((name for name in _BASELINES if name in methods and len(methods) > 1), None),
    )
    return study, cells


def _method_label(run: Run) -> str:
    for ending in (f"_{run.data_name}", f"_{run.name.rpartition('_')[2]}"):
        if run.name.endswith(ending) and run.name != ending:
            return run.name.removesuffix(ending)
    return run.name


def _on_the_same_data(runs: Mapping[Cell, Run | None], notes: list[str]) -> dict[Cell, Run | None]:
    """Runs on other examples or files than the most of their table are left out of it."""
    counts: dict[tuple[object, ...], Counter[tuple[str, Version]]] = {}
    for cell, run in runs.items():
        if run is not None and run.test_digest:
            counts.setdefault(_table_of(cell, run), Counter())[_examples(run)] += 1
    kept: dict[Cell, Run | None] = {}
    for cell, run in runs.items():
        if run is not None and run.test_digest:
            # What most runs were made with; of two kinds alike often, the one that came first.
            usual = max(counts[_table_of(cell, run)].items(), key=lambda item: item[1])[0]
            tested, version = run.test_digest != usual[0], _examples(run)[1]
            if tested or not version.agrees(usual[1]):
                what = "was tested on other examples" if tested else "was trained on other files"
                notes.append(f"left out: {run.folder} {what} than the other runs on {cell.data}")
                run = None
        kept[cell] = run
    return kept


def _examples(run: Run) -> tuple[str, Version]:
    """What the results of a run belong to: its test examples, and its files where it was not made by a generator."""
    version = recorded_revisions(run.record).get("", Version(""))
    return run.test_digest, Version("", GENERATED) if version.kind == GENERATED else version


def _table_of(cell: Cell, run: Run) -> tuple[object, ...]:
    """What runs have in common that are compared; what is generated may follow the seed of the cell."""
    return cell.data, cell.options, cell.seed if _examples(run)[1].kind == GENERATED else None


def _state(run: Run) -> CellState:
    state: CellState = CellState("unfinished", dict(run.record))
    if run.status in ("complete", "failed"):
        return replace(state, state="complete" if run.status == "complete" else "failed")
    return state


def wanting(data: StudyData) -> list[str]:
    """A line on the cells that are not complete; none if all are."""
    # Of all cells that the study asked for: a table of what happens to be there says nothing of the rest.
    states = [found.state for _, found in data.results]
    others = {state: states.count(state) for state in dict.fromkeys(states) if state != "complete"}
    if not others:
        return []
    counts = ", ".join(f"{count} {state}" for state, count in others.items())
    return [f"{data.study.name}: {len(states) - sum(others.values())} of {len(states)} runs are complete ({counts})"]


def cost_metric(data: StudyData) -> str:
    """What the fits of a study are compared by: CPU time, which other work hardly moves, if all runs have it."""
    costs = [run.values("cost") for run in data.runs.values()]
    return "cost/cpu_seconds" if costs and all("cpu_seconds" in cost for cost in costs) else "cost/fit_seconds"


def seconds(data: StudyData) -> float:
    """Time of fitting of all runs together, as `cost_metric` measures it."""
    name = cost_metric(data).partition("/")[2]
    return math.fsum(run.values("cost").get(name, 0.0) for run in data.runs.values())
