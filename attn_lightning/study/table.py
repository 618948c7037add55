"""The tables of a study as numbers, from its run folders alone; `writing` shows them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attn_lightning.callbacks.cost import COSTS
from attn_lightning.errors import did_you_mean
from attn_lightning.evaluation.naming import declared
from attn_lightning.metrics.intervals import UNBOUNDED
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.statistics import Comparison, Summary, compare, holm, summarize
from attn_lightning.study.configuration import Study
from attn_lightning.study.controls import control_values
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState


@dataclass(frozen=True)
class Row:
    """A method, or a control, in one table.

    Attributes:
        method: its label.
        asked: number of seeds the study asks for; 0 for the control, which has none.
        complete: number of complete runs.
        left_out: of these, the number of those that do not meet the condition of the table.
        failed: number of runs that ended with an error.
        summary: the metric over the complete runs that have a finite value.
        comparison: its difference to the baseline; None for the baseline itself and the control.
        p_holm: p-value adjusted over the rows of the table.
    """

    method: str
    asked: int
    complete: int
    left_out: int
    failed: int
    summary: Summary
    comparison: Comparison | None
    p_holm: float

    @property
    def seeds(self) -> str:
        """How many of the asked runs count, and why the others do not."""
        if not self.asked:
            return "-"
        # Said in every table: a mean over three of five seeds looks like one over five.
        missing = self.asked - self.complete - self.failed
        undefined = self.complete - self.left_out - self.summary.n
        notes = [(self.failed, "failed"), (missing, "missing"), (undefined, "undefined")]
        shown = [f"{count} {what}" for count, what in notes if count]
        return f"{self.summary.n}/{self.asked}" + (f" INCOMPLETE: {', '.join(shown)}" if shown else "")


@dataclass(frozen=True)
class MetricTable:
    """One metric on one kind of data under one set of options.

    Attributes:
        data: label of the data.
        options: label of the options, or empty.
        metric: such as `test/accuracy`.
        baseline: label of the method compared with, or None.
        condition: which runs count, such as `test/accuracy >= 0.9`; empty if all do.
        rows: the methods in the order of the study, then the control.
    """

    data: str
    options: str
    metric: str
    baseline: str | None
    condition: str
    rows: tuple[Row, ...]

    @property
    def group(self) -> str:
        """Data, options and condition, which tables of several metrics share."""
        runs = f"runs with {self.condition} alone" if self.condition else ""
        return ", ".join(part for part in (self.data, self.options, runs) if part)

    @property
    def title(self) -> str:
        """What is shown, its range, and which direction is better."""
        span, better = direction(self.metric)
        return f"{self.group}: {self.metric} ({span}; better: {better})"


def measure_of(metric: str) -> Measure | None:
    """What is declared of a metric of a study; None for one that only a callback of the user's own knows."""
    split, _, name = metric.partition("/")
    # Costs have no split, and are declared with the callback that takes them.
    return COSTS.get(name) if split == "cost" else declared(metric)


def direction(metric: str) -> tuple[str, str]:
    """Range of a metric and what is better; `not declared` where there is no declaration."""
    measure = measure_of(metric)
    return ("-", "not declared") if measure is None else (measure.span, measure.better)


def bounds_of(metric: str) -> tuple[float, float]:
    """Smallest and largest possible value of a metric; infinite where nothing is declared."""
    measure = measure_of(metric)
    return UNBOUNDED if measure is None else (measure.minimum, measure.maximum)


def value(record: Mapping[str, Any], metric: str) -> float:
    """A metric of a run: of its test split, its best epoch (`val/...`), its suite, or a cost; NaN if it has none."""
    split, _, name = metric.partition("/")
    places = {"test": ("test", metric), "val": ("best", metric), "evaluation": ("evaluation", metric)}
    place, key = places.get(split, ("cost", name))
    found = record.get(place, {}).get(key)
    # None is how a record writes NaN, which JSON has not.
    return math.nan if found is None else float(found)


def tables(study: Study, results: Sequence[tuple[Cell, CellState]]) -> list[MetricTable]:
    """A table for every kind of data, set of options and metric.

    Args:
        study: the study.
        results: every cell and what its run folder says.

    Returns:
        The tables in the order of the study; the p-values of each are adjusted over its rows. Where the study requires
        something of a run, the tables of all runs are followed by those of the runs that meet it.
    """
    found: list[MetricTable] = []
    for data in study.data:
        for options in study.options:
            group = [r for r in results if (r[0].data, r[0].options) == (data.label, options.label)]
            # All runs come first: a table of the successful ones alone flatters whoever fails most.
            for condition in (False, True) if study.require else (False,):
                named = study.condition if condition else ""
                for metric in study.metrics:
                    rows = _rows(study, group, metric, condition)
                    found.append(MetricTable(data.label, options.label, metric, study.baseline, named, rows))
    return found


def _rows(study: Study, group: Sequence[tuple[Cell, CellState]], metric: str, condition: bool) -> tuple[Row, ...]:
    by_method: dict[str, dict[int, CellState]] = {}
    for cell, state in group:
        # By seed, as comparisons are between runs of the same seed.
        by_method.setdefault(cell.method, {})[cell.seed] = state
    # Of a seed that fails the condition, the comparison loses its pair as well, since it is made of these values.
    required = study.require if condition else {}
    values = {method: _values(states, metric, required) for method, states in by_method.items()}
    bounds = bounds_of(metric)
    comparisons = {m: _comparison(values, m, study.baseline, bounds) for m in values}
    # Over the methods of one table, which is the family of tests that a reader compares at a glance.
    adjusted = holm([math.nan if found is None else found.p for found in comparisons.values()])
    rows = [
        _row(method, by_method[method], values[method], bounds, comparisons[method], p)
        for method, p in zip(comparisons, adjusted, strict=True)
    ]
    return (*rows, *([] if condition else _controls(group, metric)))


def _values(states: Mapping[int, CellState], metric: str, required: Mapping[str, float]) -> dict[int, float]:
    return {
        seed: value(found.record, metric)
        for seed, found in states.items()
        if found.state == "complete" and all(value(found.record, name) >= least for name, least in required.items())
    }


def _comparison(
    values: Mapping[str, Mapping[int, float]], method: str, baseline: str | None, bounds: tuple[float, float]
) -> Comparison | None:
    # Nothing is compared with itself: a difference of exactly 0 would take part in Holm's adjustment.
    return None if baseline is None or method == baseline else compare(values[method], values[baseline], bounds)


def _row(
    method: str,
    states: Mapping[int, CellState],
    values: Mapping[int, float],
    bounds: tuple[float, float],
    comparison: Comparison | None,
    p_holm: float,
) -> Row:
    failed = sum(found.state == "failed" for found in states.values())
    complete = sum(found.state == "complete" for found in states.values())
    summary = summarize(list(values.values()), bounds)
    return Row(method, len(states), complete, complete - len(values), failed, summary, comparison, p_holm)


def _controls(group: Sequence[tuple[Cell, CellState]], metric: str) -> list[Row]:
    # Not those of runs on files that have changed since.
    records = [found.record for _, found in group if found.state != "different"]
    # They do not depend on the seed of the training, so only the mean is shown; it differs where seeds choose labels.
    return [
        Row(
            name, 0, 0, 0, 0, Summary(len(values), float(np.mean(values)), math.nan, math.nan, math.nan), None, math.nan
        )
        for name, values in control_values(records, metric).items()
    ]


def unknown_metrics(study: Study, results: Sequence[tuple[Cell, CellState]]) -> list[str]:
    """A line for every metric that no complete run has, with the nearest that there are."""
    records = [found.record for _, found in results if found.state == "complete"]
    return not_recorded([*study.metrics, *study.require], records)


def not_recorded(metrics: Iterable[str], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every metric that none of some run records has, with the nearest that there are."""
    known = sorted({key for record in records for key in _metric_names(record)})
    lines = []
    for metric in dict.fromkeys(metrics):
        # Without any finished run nothing is known yet, and every metric would be complained about.
        if records and metric not in known:
            hint = did_you_mean(metric, known) or f" Use one of {', '.join(known)}."
            lines.append(f"No finished run has {metric!r}.{hint}")
    return lines


def _metric_names(record: Mapping[str, Any]) -> list[str]:
    # A report reads the records of other people too, which may hold anything.
    test, suite, best, costs = (
        found if isinstance(found := record.get(part), Mapping) else {}
        for part in ("test", "evaluation", "best", "cost")
    )
    validated = [key for key in best if key.startswith("val/")]
    return [*test, *suite, *validated, *(f"cost/{name}" for name in costs)]
