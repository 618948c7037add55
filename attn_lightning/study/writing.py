"""The tables of a study for the terminal, as Markdown and as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from attn_lightning.console import literal, spreadsheet_text
from attn_lightning.metrics.intervals import DIFFERENCE_INTERVAL, INTERVAL
from attn_lightning.metrics.power import ALPHA, MOST_SEEDS, POWER
from attn_lightning.study.configuration import Study
from attn_lightning.study.table import MetricTable, Row, direction

_HEADER = (
    "method",
    "seeds",
    "mean ± sd",
    "95 % interval",
    "difference",
    "95 % interval",
    "effect",
    "p",
    "p (Holm)",
    "seeds needed",
)


def number(value: float, sign: bool = False, digits: int = 4) -> str:
    """A number for people; `-` where it is undefined."""
    if math.isnan(value):
        return "-"
    # Seconds and tokens per second need no four decimals.
    # z: what rounds to zero has no sign to show.
    return f"{value:{'+' if sign else ''}z,.{digits if abs(value) < 100 else 1}f}"


def _interval(low: float, high: float, sign: bool = False) -> str:
    return "-" if math.isnan(low) else f"[{number(low, sign)}, {number(high, sign)}]"


def _cells(row: Row) -> tuple[str, ...]:
    summary, comparison = row.summary, row.comparison
    deviation = "" if math.isnan(summary.std) else f" ± {number(summary.std)}"
    shown = (row.method, row.seeds, number(summary.mean) + deviation, _interval(summary.low, summary.high))
    if comparison is None:
        return (*shown, "-", "-", "-", "-", "-", "-")
    difference = number(comparison.difference, sign=True)
    interval = _interval(comparison.low, comparison.high, sign=True)
    p_values = [number(p) for p in (comparison.p, row.p_holm)]
    effect = number(comparison.effect, sign=True)
    return (*shown, difference, interval, effect, *p_values, seeds_text(comparison.seeds_needed))


def seeds_text(seeds: float) -> str:
    """A number of seeds for people; `-` where it is unknown."""
    if math.isnan(seeds):
        return "-"
    # No number of seeds up to that one would show so small a difference.
    return f">{MOST_SEEDS:,}" if math.isinf(seeds) else f"{seeds:.0f}"


def note(study: Study) -> str:
    """How to read the tables."""
    if study.baseline is None:
        return f"Interval of the mean over seeds: 95 % {INTERVAL}."
    # Two of the 2^n signs of n differences give the largest mean: 2 / 2^n is the least p there can be.
    smallest = 2.0 ** (1 - len(study.seeds))
    return (
        f"Difference to {study.baseline} on the same seeds. Intervals: 95 %, of a mean the {INTERVAL}, of a difference "
        f"the {DIFFERENCE_INTERVAL}. Effect: mean / sd of these. p: paired permutation test, two-sided; with "
        f"{len(study.seeds)} seeds it cannot be below {smallest:.2g}; Holm: adjusted over the rows of a table. Seeds "
        f"needed: for p below {ALPHA:g} in {POWER:.0%} of studies, if the true difference and its sd were those "
        "measured."
    )


def terminal(table: MetricTable) -> Table:
    """The table for the terminal."""
    shown = Table(title=literal(table.title), title_justify="left")
    for name in _HEADER:
        # Folded and not cut off: variants of a method differ at the end of their labels.
        shown.add_column(name, justify="left" if name in ("method", "seeds") else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(literal, _cells(row)))
    return shown


def markdown(study: Study, found: Sequence[MetricTable], notes: Sequence[str]) -> str:
    """All tables as Markdown."""
    parts = [f"# {study.name}", note(study), *notes, "## Overview", OVERVIEW_NOTE, *overview_parts(found)]
    for table in found:
        parts += [f"## {table.title}", _markdown_table(_HEADER, [_cells(row) for row in table.rows])]
    return "\n\n".join(parts) + "\n"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|---|---|" + "---:|" * (len(header) - 2)]
    # Labels hold options of the user's, and a bar in one would begin a new column.
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def overview_parts(found: Sequence[MetricTable]) -> list[str]:
    """All metrics of the same runs side by side as Markdown: a heading and a table for each kind of data."""
    return [
        part for title, header, lines in overviews(found) for part in (f"### {title}", _markdown_table(header, lines))
    ]


OVERVIEW_NOTE = (
    f"Mean over seeds and its 95 % {INTERVAL}; `*`: differs from the baseline with p (Holm) below .05, by a paired "
    "permutation test."
)


def overviews(found: Sequence[MetricTable]) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """All metrics of the same runs side by side: a title, a header and the rows for each.

    Args:
        found: the tables, those of the same data, options and condition next to each other.
    """
    shown = []
    for title, group in groupby(found, key=lambda table: table.group):
        columns = list(group)
        methods: dict[str, str] = {}
        for table in columns:
            for row in table.rows:
                methods.setdefault(row.method, row.seeds)
        # A method that has no row in some table, as controls have not, still gets its line.
        rows = [(m, seeds, *(_overview_cell(table, m) for table in columns)) for m, seeds in methods.items()]
        shown.append((title, ("method", "seeds", *short_names([table.metric for table in columns])), rows))
    return shown


def short_names(metrics: Sequence[str]) -> list[str]:
    """What tells metrics apart, with a sign for the direction that is better."""
    # As short as tells them apart.
    for parts in range(1, 5):
        short = [_last_parts(metric, parts) for metric in metrics]
        if len(set(short)) == len(short):
            break
    signs = {"higher": " ↑", "lower": " ↓"}
    return [s + signs.get(direction(m)[1], "") for s, m in zip(short, metrics, strict=True)]


def _last_parts(metric: str, parts: int) -> str:
    # A setting may hold a slash, which is no part of a path.
    name, bracket, setting = metric.partition("[")
    return "/".join(name.split("/")[-parts:]) + bracket + setting


def _overview_cell(table: MetricTable, method: str) -> str:
    row = next((row for row in table.rows if row.method == method), None)
    if row is None or math.isnan(row.summary.mean):
        return "-"
    mean, low, high = (number(found, digits=3) for found in (row.summary.mean, row.summary.low, row.summary.high))
    # One run, or runs without a value, have no interval; a dash in brackets would look like one.
    interval = "" if low == "-" else f" [{low}, {high}]"
    return f"{mean}{interval}{' *' if row.p_holm < 0.05 else ''}"


def comma_separated(found: Sequence[MetricTable]) -> str:
    """All tables as one CSV, a line per row, numbers in full; undefined ones are empty."""
    lines = [_record(table, row) for table in found for row in table.rows]
    text = io.StringIO()
    # There is a line at least: a study has a method, data and a metric.
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _record(table: MetricTable, row: Row) -> dict[str, str | int | float]:
    comparison = row.comparison
    compared = {} if comparison is None else vars(comparison)
    numbers = {
        "mean": row.summary.mean,
        "std": row.summary.std,
        "low": row.summary.low,
        "high": row.summary.high,
        "difference": compared.get("difference", math.nan),
        "difference_low": compared.get("low", math.nan),
        "difference_high": compared.get("high", math.nan),
        "effect": compared.get("effect", math.nan),
        "p": compared.get("p", math.nan),
        "p_holm": row.p_holm,
        "seeds_needed": compared.get("seeds_needed", math.nan),
    }
    return {
        "data": spreadsheet_text(table.data),
        "options": spreadsheet_text(table.options),
        "condition": spreadsheet_text(table.condition),
        "metric": table.metric,
        "better": direction(table.metric)[1],
        "method": spreadsheet_text(row.method),
        "baseline": "" if comparison is None else spreadsheet_text(table.baseline or ""),
        "seeds_asked": row.asked,
        "seeds_complete": row.complete,
        "seeds_failed": row.failed,
        "seeds_left_out": row.left_out,
        "seeds_valid": row.summary.n if row.asked else 0,
        "seeds_paired": 0 if comparison is None else comparison.n,
        **{name: "" if math.isnan(found) else found for name, found in numbers.items()},
    }
