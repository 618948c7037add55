"""Tables for a paper: LaTeX (booktabs), Markdown and CSV, with the field's names and a caption that explains them."""

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from attn_lightning.checks import check_choice
from attn_lightning.console import printable, spreadsheet_text
from attn_lightning.files import file_name
from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.metrics.statistics import Summary
from attn_lightning.report.key_numbers import CONTROLS, Number
from attn_lightning.report.names import MetricName, metric_name
from attn_lightning.study.configuration import Study
from attn_lightning.study.table import MetricTable, Row
from attn_lightning.study.writing import number

Style = Literal["sd", "interval", "mean"]
"""What stands behind a mean: its standard deviation over seeds, its 95 % interval, or nothing."""

STYLES: tuple[str, ...] = get_args(Style)
SIGNIFICANT = 0.05
DIGITS = 3
_KINDS = {"seeds": INTERVAL, "documents": "of a share Wilson's, else of the normal distribution"}
"""Which interval stands behind a number, by what it is about."""

_MARK = "*"
_SPREADS = {"sd": "mean ± standard deviation", "interval": f"mean and its 95 % {INTERVAL}", "mean": "mean"}


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        summary: mean, deviation and interval; NaN where undefined.
        p_holm: adjusted p-value of the difference to the baseline; NaN where nothing was tested.
        best: whether no other method has a better mean.
    """

    summary: Summary
    p_holm: float = math.nan
    best: bool = False

    @property
    def significant(self) -> bool:
        """Whether the difference to the baseline is."""
        return self.p_holm < SIGNIFICANT


@dataclass(frozen=True)
class PaperTable:
    """A table of methods by metrics, or by data.

    Attributes:
        name: of its files, without an ending.
        caption: what is shown, over how many seeds, and what was tested.
        columns: heading of every column, with an arrow for the direction that is better.
        rows: label and cells of every method; None where it has no such number.
        seeds: for every row how many of the asked runs count; empty for single runs.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    seeds: tuple[str, ...] = ()

    def labels(self) -> list[str]:
        """The labels, with the seeds behind those of which not every run counts."""
        seeds = self.seeds or ("",) * len(self.rows)
        # In the label and not in a column: whoever copies rows into a paper takes the warning along.
        incomplete = [f" ({text})" if "INCOMPLETE" in text else "" for text in seeds]
        return [label + text for (label, _), text in zip(self.rows, incomplete, strict=True)]


def check_style(style: str) -> None:
    """Refuse a style that there is not.

    Raises:
        ConfigurationError: it is none of `STYLES`.
    """
    check_choice(choices=STYLES, style=style)


def of_study(study: Study, found: Sequence[MetricTable], style: str) -> list[PaperTable]:
    """The tables of a study: for each kind of data methods by metrics, for each metric on several data methods by data.

    Args:
        study: the study.
        found: its tables, those of the same data, options and condition next to each other.
        style: see `Style`.
    """
    made = [
        # `groupby` joins neighbours only, which is why the order of the tables is part of the contract above.
        _of_group(study, title, list(tables), style)
        for title, tables in groupby(found, key=lambda table: table.group)
    ]
    # With one data set the table over data would have a single column of the one before.
    if len(study.data) > 1:
        for kind in dict.fromkeys((table.options, table.condition, table.metric) for table in found):
            tables = [table for table in found if (table.options, table.condition, table.metric) == kind]
            made.append(_over_data(study, kind, tables, style))
    return made


def _of_group(study: Study, title: str, tables: Sequence[MetricTable], style: str) -> PaperTable:
    names = [metric_name(table.metric) for table in tables]
    return _study_table(
        study, file_name(study.name, title), f"{study.name}, {title}", tables, [_heading(name) for name in names], style
    )


def _over_data(study: Study, kind: tuple[str, str, str], tables: Sequence[MetricTable], style: str) -> PaperTable:
    options, condition, metric = kind
    parts = [part for part in (metric_name(metric).name, options, condition) if part]
    name = file_name(study.name, options, condition, metric)
    return _study_table(
        study, name, f"{study.name}, {', '.join(parts)}", tables, [table.data for table in tables], style
    )


def _heading(name: MetricName) -> str:
    return f"{name.name} {name.arrow}".strip()


def _study_table(
    study: Study, name: str, title: str, tables: Sequence[MetricTable], columns: Sequence[str], style: str
) -> PaperTable:
    methods: dict[str, str] = {}
    for table in tables:
        for row in table.rows:
            # A control may have a value on some of the data only; every row that occurs anywhere gets a line.
            methods.setdefault(row.method, row.seeds)
    rows = tuple((method, tuple(_cell(table, method) for table in tables)) for method in methods)
    # The note changes with it: a mark that stands nowhere needs no explanation.
    tested = any(cell is not None and cell.significant for _, cells in rows for cell in cells)
    caption = f"{title}: {_SPREADS[style]} over {_seeds(study)}. Best mean in bold. {_test_note(study, tested)}"
    return PaperTable(name, caption.rstrip(), tuple(columns), rows, tuple(methods.values()))


def _seeds(study: Study) -> str:
    return f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}"


def _test_note(study: Study, found: bool) -> str:
    """What was tested, and whether anything came of it: a table without marks says whether one could have had any."""
    if study.baseline is None or len(study.methods) < 2 or len(study.seeds) < 2:
        return ""
    # Two of the 2^n signs of n differences give the largest mean, so that 2 / 2^n is the least p.
    smallest = 2.0 ** (1 - len(study.seeds))
    test = f"two-sided paired permutation test over seeds, Holm-adjusted over the rows, below {SIGNIFICANT:g}"
    reach = f" With {_seeds(study)}, no p is below {smallest:.2g}."
    if found:
        return f"{_MARK}: p of the difference to {study.baseline} ({test}).{reach}"
    return f"No difference to {study.baseline} is significant ({test}).{reach}"


def _cell(table: MetricTable, method: str) -> Cell | None:
    row = next((row for row in table.rows if row.method == method), None)
    if row is None or math.isnan(row.summary.mean):
        return None
    return Cell(row.summary, row.p_holm, row.method in _best(table.metric, _methods(table.rows)))


def _methods(rows: Sequence[Row]) -> dict[str, float]:
    """Means of the methods; controls take no part in what is best."""
    # A control has asked for no runs of its own, which is how it is told from a method.
    return {row.method: row.summary.mean for row in rows if row.asked and not math.isnan(row.summary.mean)}


def _best(metric: str, means: Mapping[str, float]) -> list[str]:
    """Those that would be printed like the best one; none where neither direction is better."""
    higher = metric_name(metric).higher_is_better
    if higher is None or len(means) < 2:
        return []
    best = max(means.values()) if higher else min(means.values())
    # By the printed digits: bold for one of two numbers that look equal would puzzle a reader.
    return [label for label, mean in means.items() if round(mean, DIGITS) == round(best, DIGITS)]


def of_runs(groups: Mapping[str, Sequence[Number]], data: str, style: str) -> PaperTable:
    """The table of single runs on one kind of data.

    Args:
        groups: key numbers by the label of the run, or of runs that differ in their seed.
        data: name of the data.
        style: see `Style`; of a single run there is no deviation over seeds.
    """
    metrics = list(dict.fromkeys(number.metric for numbers in groups.values() for number in numbers))
    by_metric = {metric: _values(groups, metric) for metric in metrics}
    rows = [(label, tuple(_run_cell(metric, by_metric[metric], label) for metric in metrics)) for label in groups]
    for control in CONTROLS:
        cells = tuple(_control_cell(groups, metric, control) for metric in metrics)
        if any(cell is not None for cell in cells):
            # Below the methods, and only where some metric has a value for it.
            rows.append((f"{control} (control)", cells))
    overs = {number.over for numbers in groups.values() for number in numbers}
    over = [kind for kind in ("seeds", "documents") if kind in overs]
    kinds = " or ".join(f"{kind} ({_KINDS[kind]})" for kind in over)
    behind = f"; in brackets 95 % intervals over {kinds}" if style == "interval" and over else ""
    if style == "sd" and any(not math.isnan(number.std) for numbers in groups.values() for number in numbers):
        behind = f"; of several seeds {_SPREADS[style]}"
    columns = tuple(_heading(metric_name(metric)) for metric in metrics)
    return PaperTable(file_name("runs", data), f"Test split of {data}{behind}. Best in bold.", columns, tuple(rows))


def _values(groups: Mapping[str, Sequence[Number]], metric: str) -> dict[str, Number]:
    return {label: found for label, numbers in groups.items() for found in numbers if found.metric == metric}


def _run_cell(metric: str, values: Mapping[str, Number], label: str) -> Cell | None:
    if label not in values:
        return None
    found = values[label]
    # Among the runs of the table, whatever the controls beside them reach.
    best = label in _best(metric, {name: known.value for name, known in values.items()})
    return Cell(Summary(1, found.value, found.std, found.low, found.high), best=best)


def _control_cell(groups: Mapping[str, Sequence[Number]], metric: str, control: str) -> Cell | None:
    # Controls do not depend on the method: the first group that has measured one speaks for all.
    for found in _values(groups, metric).values():
        if control in found.controls:
            return Cell(Summary(1, found.controls[control], math.nan, math.nan, math.nan))
    return None


# --- writing ------------------------------------------------------------------------------------------------------


def _spread(summary: Summary, style: str) -> str:
    if style == "sd" and not math.isnan(summary.std):
        return f" ± {number(summary.std, digits=DIGITS)}"
    if style == "interval" and not math.isnan(summary.low):
        return f" [{number(summary.low, digits=DIGITS)}, {number(summary.high, digits=DIGITS)}]"
    return ""


def latex(table: PaperTable, style: str) -> str:
    """The table for LaTeX with the package booktabs; every text in it is escaped.

    Args:
        table: the table.
        style: see `Style`.
    """

    def cell(found: Cell | None) -> str:
        if found is None:
            return "--"
        mean = latex_text(number(found.summary.mean, digits=DIGITS))
        mean = rf"\textbf{{{mean}}}" if found.best else mean
        return mean + latex_text(_spread(found.summary, style)) + ("$^{*}$" if found.significant else "")

    shown = zip(table.labels(), (cells for _, cells in table.rows), strict=True)
    lines = [" & ".join([latex_text(label), *map(cell, cells)]) + r" \\" for label, cells in shown]
    head = " & ".join(["Method", *map(latex_text, table.columns)]) + r" \\"
    return "\n".join(
        [
            # The first line that a reader of the file sees, where a missing package would end in an undefined
            # `toprule`.
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.caption)}}}",
            rf"\label{{tab:{file_name(table.name)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # A bracket at the beginning of a row would be read as the option of the line break before it.
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "ε": r"$\varepsilon$",
    "†": r"$\dagger$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "′": r"$'$",
    "…": r"\dots{}",
    "*": r"$^{*}$",
}


def latex_text(text: str) -> str:
    """Text as LaTeX that shows it and does nothing else."""
    return "".join(_LATEX.get(sign, sign) for sign in printable(text))


def markdown(table: PaperTable, style: str) -> str:
    """The table as Markdown, its caption above it."""

    def cell(found: Cell | None) -> str:
        if found is None:
            return "–"
        mean = number(found.summary.mean, digits=DIGITS)
        shown = f"**{mean}**" if found.best else mean
        return shown + _spread(found.summary, style) + (r"\*" if found.significant else "")

    head = ["Method", *map(_markdown_text, table.columns)]
    shown = zip(table.labels(), (cells for _, cells in table.rows), strict=True)
    lines = [[_markdown_text(label), *map(cell, cells)] for label, cells in shown]
    ruler = ["---", *("---:" for _ in table.columns)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in (head, ruler, *lines))
    return f"{_markdown_text(table.caption)}\n\n{body}\n"


def _markdown_text(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\`*_[]|#<>&" else sign for sign in printable(text))


def comma_separated(table: PaperTable, style: str) -> str:  # noqa: ARG001
    """The table as CSV with numbers in full: of every column mean, deviation, interval and adjusted p, in any style."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("mean", "sd", "low", "high", "p (Holm)")
    with_seeds = bool(table.seeds)
    heads = [f"{column}: {part}" for column in table.columns for part in parts]
    writer.writerow(["Method", *(["Seeds"] if with_seeds else []), *map(spreadsheet_text, heads)])
    for place, (label, cells) in enumerate(table.rows):
        # In full and in every style: whoever computes with them must not inherit the rounding of a printed table.
        numbers = [part for cell in cells for part in _numbers(cell)]
        seeds = [spreadsheet_text(table.seeds[place])] if with_seeds else []
        writer.writerow([spreadsheet_text(label), *seeds, *("" if math.isnan(found) else found for found in numbers)])
    return text.getvalue()


def _numbers(cell: Cell | None) -> tuple[float, ...]:
    if cell is None:
        return (math.nan,) * 5
    summary = cell.summary
    return summary.mean, summary.std, summary.low, summary.high, cell.p_holm


WRITERS: dict[str, Callable[[PaperTable, str], str]] = {"tex": latex, "md": markdown, "csv": comma_separated}
"""By the ending of the file."""
