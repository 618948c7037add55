"""The report: one HTML file that holds its data, and tables beside it, made of run folders alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attn_lightning import __version__
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import replacing, write_text
from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.report.arithmetic import configuration_but_seed
from attn_lightning.report.blocks import Blocks
from attn_lightning.report.comparison import compare_runs, comparison_content
from attn_lightning.report.documents import PREDICTIONS
from attn_lightning.report.key_numbers import chosen_metrics, key_numbers
from attn_lightning.report.names import metric_name
from attn_lightning.report.paper_tables import WRITERS, check_style, of_runs, of_study
from attn_lightning.report.run_content import Corpora, groups_content, run_content
from attn_lightning.report.run_data import Run, is_run, only_run, read_run
from attn_lightning.report.study_content import study_content, study_tables
from attn_lightning.report.study_data import StudyData, read_study_folder
from attn_lightning.report.template import render
from attn_lightning.study.grouping import first_and_number
from attn_lightning.study.table import not_recorded

PAGE = "report.html"
TABLES, FIGURES = "tables", "figures"
FIGURE_KINDS = ("svg", "pdf", "png")
MOST_DOCUMENTS = 20_000


@dataclass(frozen=True)
class ReportOptions:
    """What a report holds.

    Attributes:
        documents: documents per run at the most.
        metrics: those of the tables for a paper; by default a study's own, and the key numbers of runs.
        style: what stands behind a mean in these tables.
        figures: draw figures as files too.
    """

    documents: int = MOST_DOCUMENTS
    metrics: tuple[str, ...] = ()
    style: str = "sd"
    figures: bool = True


DEFAULTS = ReportOptions()


@dataclass
class Sources:
    """What a report is made of.

    Attributes:
        runs: runs that were named one by one.
        studies: studies, whose runs are not among `runs`.
        notes: a line for everything that could not be read.
    """

    runs: list[Run] = field(default_factory=list)
    studies: list[StudyData] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_sources(paths: Sequence[Path]) -> Sources:
    """Read runs and studies; one that cannot be read becomes a note.

    Args:
        paths: folders of runs and of studies.

    Raises:
        ConfigurationError: none of them can be read.
    """
    found = Sources()
    # Each folder once, however it was spelled; a dict keeps the order, a set would not.
    for path in dict.fromkeys(only_run(path.resolve()) for path in paths):
        try:
            if not path.is_dir():
                raise ConfigurationError(
                    f"Expected the folder of a run or a study, but {path} is no folder; name one with a metrics.json."
                )
            if is_run(path):
                found.runs.append(read_run(path))
            else:
                found.studies.append(read_study_folder(path))
                found.notes.extend(found.studies[-1].notes)
        except (ConfigurationError, OSError) as error:
            found.notes.append(one_line(error))
    if not found.runs and not found.studies:
        raise ConfigurationError("; ".join(found.notes) or "Expected runs or studies to report on, but got none.")
    return found


def write_page(sources: Sources, output: Path, options: ReportOptions = DEFAULTS) -> Path:
    """Write the page of runs and studies, and the tables and figures beside it.

    Args:
        sources: what was read; a note is added for everything that could not be shown.
        output: folder of the page, made if need be; an earlier report in it is replaced.
        options: what is in it.

    Returns:
        The page.

    Raises:
        ConfigurationError: an option is none, or the folder cannot be written.
    """
    check_style(options.style)
    check_numbers(at_least=0, documents=options.documents)
    page = output / PAGE
    try:
        files = [
            *_write_tables(sources, output, options),
            *(_write_figures(sources, output) if options.figures else []),
        ]
        write_text(page, render(page_content(sources, options.documents, files)))
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to write a report to {output}, but got: {error}; choose another `--output`."
        ) from error
    return page


def _write_tables(sources: Sources, output: Path, options: ReportOptions) -> list[str]:
    tables = [
        table
        for data in sources.studies
        for table in of_study(data.study, study_tables(data, options.metrics or data.study.metrics), options.style)
    ]
    for name in dict.fromkeys(run.data_name for run in sources.runs):
        groups = _groups((place, run) for place, run in enumerate(sources.runs) if run.data_name == name)
        members = {label: [run for _, run in runs] for label, runs in groups.items()}
        metrics = options.metrics or chosen_metrics(run for runs in members.values() for run in runs)
        tables.append(
            of_runs({label: key_numbers(runs, metrics) for label, runs in members.items()}, name, options.style)
        )
    # A column of dashes would not say that the name was misspelled.
    counted = [found.record for data in sources.studies for _, found in data.results if found.state == "complete"]
    sources.notes.extend(not_recorded(options.metrics, [*(run.record for run in sources.runs), *counted]))
    (output / TABLES).mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    for table in tables:
        stem = _free(written, table.name)
        for ending, writer in WRITERS.items():
            path = f"{TABLES}/{stem}.{ending}"
            write_text(output / path, writer(table, options.style))
            written.append(path)
    return written


def _free(taken: Sequence[str], stem: str) -> str:
    """The name, with a number where another table has it: signs that files cannot have may have told them apart."""
    number, free = 1, stem
    while f"{TABLES}/{free}.tex" in taken:
        number += 1
        free = f"{stem}-{number}"
    return free


def _write_figures(sources: Sources, output: Path) -> list[str]:
    # They need matplotlib, which a page alone should not wait for.
    from attn_lightning.report.page_figures import page_figures
    from attn_lightning.report.style import render as rendered

    figures, reasons = page_figures(sources.runs, sources.studies)
    sources.notes.extend(f"not drawn: {name}: {reason}" for name, reason in reasons.items())
    (output / FIGURES).mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for kind in FIGURE_KINDS:
            with replacing(output / FIGURES / f"{name}.{kind}") as file:
                file.write(rendered(figure, kind))
            written.append(f"{FIGURES}/{name}.{kind}")
    return written


def page_content(sources: Sources, documents: int, files: Sequence[str] = ()) -> dict[str, Any]:
    """Everything that the page shows, as JSON.

    Args:
        sources: runs and studies; their notes are added to.
        documents: documents per run at the most.
        files: those beside the page, by their paths from it.
    """
    # Filled by everything below, and put into the page last, when all is known.
    blocks = Blocks()
    corpora = Corpora(blocks)
    shown = _shown(sources)
    untold = _without_predictions(shown) if documents else set()
    if untold:
        labels = first_and_number(run.label for run in shown if run.folder in untold)
        sources.notes.append(f"{labels} are shown without documents: no {PREDICTIONS} is in their folders")
    runs = []
    for run in shown:
        content, notes = run_content(run, blocks, corpora, 0 if run.folder in untold else documents)
        runs.append(content)
        sources.notes.extend(notes)
    sources.notes.extend(_apart(sources.runs))
    places = {run.folder: place for place, run in enumerate(shown)}
    groups = groups_content(_groups([(places[run.folder], run) for run in sources.runs]))
    studies = [study_content(study, study_tables(study), blocks) for study in sources.studies]
    return {
        "version": __version__,
        "title": _title(sources),
        "notes": list(dict.fromkeys(sources.notes)),
        "runs": runs,
        "groups": groups,
        "studies": studies,
        "comparison": _compared(sources),
        "corpora": corpora.content(),
        "metrics": _metrics(_keys(groups, studies)),
        "files": list(files),
        "interval": INTERVAL,
        "blocks": blocks.contents,
    }


def _title(sources: Sources) -> str:
    # Three names are what a tab of a browser has room for.
    names = [*(study.study.name for study in sources.studies), *(run.label for run in sources.runs)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shown(sources: Sources) -> list[Run]:
    """All runs that the page names: of a study, those of its first seed."""
    found = {run.folder: run for run in sources.runs}
    for study in sources.studies:
        first: dict[tuple[str, str, str], Run] = {}
        for cell, run in study.runs.items():
            first.setdefault((cell.data, cell.options, cell.method), run)
        for run in first.values():
            # A run that was named itself stays where it is, and is not shown twice.
            found.setdefault(run.folder, run)
    return list(found.values())


def _without_predictions(runs: Iterable[Run]) -> set[Path]:
    """Folders of runs that are noted together: none of a single one, whose note says what to do."""
    # Cells that came out of an archive have numbers alone: a line for each would hide every other note.
    found = {run.folder for run in runs if not (run.folder / PREDICTIONS).is_file()}
    return found if len(found) > 1 else set()


def _groups(runs: Iterable[tuple[int, Run]]) -> dict[str, list[tuple[int, Run]]]:
    """Runs by what they are beside their seed; a label of its own for each."""
    by_kind: dict[tuple[str, ...], list[tuple[int, Run]]] = {}
    for place, run in runs:
        # By the configuration too: one name is given to a run with other options on the command line as well.
        kind: tuple[str, ...] = (run.name, run.method, run.data_name, run.test_digest, configuration_but_seed(run))
        seeds = [other.seed for _, other in by_kind.get(kind, [])]
        # The same seed twice is another run of something that the record does not tell apart.
        kind = (*kind, run.label) if run.seed in seeds or run.seed is None else kind
        by_kind.setdefault(kind, []).append((place, run))
    found: dict[str, list[tuple[int, Run]]] = {}
    for members in by_kind.values():
        first = members[0][1]
        label = first.label if len(members) == 1 else f"{first.name} ({len(members)} seeds)"
        while label in found:
            # Two groups may differ in what no label says, such as another test split of the same name.
            label += "′"
        found[label] = members
    return found


def _compared(sources: Sources) -> dict[str, Any] | None:
    """The paired comparison of a page of two runs; None where they have nothing to compare."""
    # Of three runs there are three pairs, and a page of all of them invites to pick one.
    if len(sources.runs) != 2 or sources.runs[0].test_digest != sources.runs[1].test_digest:
        return None
    try:
        return comparison_content(compare_runs(*sources.runs))
    except ConfigurationError:
        # A run without predictions is among the notes already.
        return None


def _apart(runs: Sequence[Run]) -> list[str]:
    """A line where runs cannot be laid side by side."""
    by_data: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        by_data.setdefault((run.data_name, run.test_digest), []).append(run.label)
    if len(by_data) < 2:
        return []
    parts = [f"{', '.join(labels)} on {name}" for (name, _), labels in by_data.items()]
    return [f"These runs have other test documents and are not laid side by side: {'; '.join(parts)}"]


def _keys(groups: Sequence[Mapping[str, Any]], studies: Sequence[Mapping[str, Any]]) -> list[str]:
    of_groups = [number["metric"] for group in groups for number in group["numbers"]]
    return list(dict.fromkeys([*of_groups, *(table["metric"] for study in studies for table in study["tables"])]))


def _metrics(keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for key in keys:
        known = metric_name(key)
        found[key] = {
            "name": known.name,
            "meaning": known.meaning,
            "range": known.range,
            "better": known.better,
            "higher": known.higher_is_better,
        }
    return found
