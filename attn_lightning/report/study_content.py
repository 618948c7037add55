"""What the page shows of studies: tables, runs by seed, cost, robustness and learning curves."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attn_lightning.report.blocks import Blocks
from attn_lightning.report.key_numbers import chosen_metrics
from attn_lightning.report.names import metric_name
from attn_lightning.report.published import published
from attn_lightning.report.run_content import finite, history
from attn_lightning.report.study_data import StudyData, cost_metric, seconds, wanting
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState
from attn_lightning.study.table import MetricTable, Row, tables, unknown_metrics, value
from attn_lightning.study.writing import note, seeds_text


def study_content(data: StudyData, found: Sequence[MetricTable], blocks: Blocks) -> dict[str, Any]:
    """What the page shows of one study.

    Args:
        data: the study.
        found: its tables.
        blocks: where learning curves are kept.
    """
    # Once, as it asks every run.
    study, cost = data.study, cost_metric(data)
    return {
        "name": study.name,
        "note": note(study),
        "notes": [*wanting(data), *unknown_metrics(study, data.results)],
        "methods": [variant.label for variant in study.methods],
        "data": [variant.label for variant in study.data],
        "options": [variant.label for variant in study.options],
        "seeds": list(study.seeds),
        "baseline": study.baseline,
        "metrics": list(study.metrics),
        "seconds": seconds(data),
        # Without the unit of a column: a duration says its own.
        "time": metric_name(cost).name.removesuffix(" (s)"),
        "runs": len(data.runs),
        "tables": [_table_content(table, data, cost) for table in found],
        "curves": _curves(data),
        "histories": [
            {
                "method": cell.method,
                "data": cell.data,
                "options": cell.options,
                "seed": cell.seed,
                "curves": curves,
            }
            for cell, run in data.runs.items()
            if (curves := history(run, blocks)) is not None
        ],
    }


def study_tables(data: StudyData, metrics: Sequence[str] = ()) -> list[MetricTable]:
    """The tables of a study.

    Args:
        data: the study.
        metrics: those to show; by default the study's own, then the key numbers that it does not ask for.
    """
    # Those of the study first, in its order; the key numbers are for a reader who has nothing but the page.
    known = [*data.study.metrics, *chosen_metrics(data.runs.values(), data.study.metrics)]
    return tables(replace(data.study, metrics=tuple(metrics or dict.fromkeys(known))), data.results)


def _table_content(table: MetricTable, data: StudyData, cost: str) -> dict[str, Any]:
    # The dots beside a table have to be the runs that its means are of.
    required = data.study.require if table.condition else {}
    group = [
        (cell, found)
        for cell, found in data.results
        if (cell.data, cell.options, found.state) == (table.data, table.options, "complete")
        and all(value(found.record, metric) >= least for metric, least in required.items())
    ]
    return {
        "data": table.data,
        "options": table.options,
        "condition": table.condition,
        "metric": table.metric,
        "rows": [_row_content(row, table.metric, group, data, cost) for row in table.rows],
    }


def _row_content(
    row: Row, metric: str, group: Sequence[tuple[Cell, CellState]], data: StudyData, cost: str
) -> dict[str, Any]:
    runs = [(cell.seed, found) for cell, found in group if cell.method == row.method]
    read = [data.runs[cell] for cell, _ in group if cell.method == row.method and cell in data.runs]
    # Of the first run: the others of the row differ from it in their seed alone.
    known = published(read[0], metric) if read else None
    compared = row.comparison
    return {
        "method": row.method,
        # A control has asked for no run of its own.
        "control": not row.asked,
        "seeds": row.seeds,
        **{name: finite(getattr(row.summary, name)) for name in ("mean", "std", "low", "high")},
        "values": {str(seed): finite(value(found.record, metric)) for seed, found in runs},
        "published": None if known is None else vars(known),
        # The size of a point, where a run without a recorded time should not hide the others.
        "cost": _mean([value(found.record, cost) for _, found in runs]),
        "comparison": None
        if compared is None
        else {
            **{name: finite(getattr(compared, name)) for name in ("difference", "low", "high", "effect", "p")},
            "pairs": compared.n,
            "seeds_needed": finite(compared.seeds_needed),
            "seeds_text": seeds_text(compared.seeds_needed),
            "p_holm": finite(row.p_holm),
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    known = [found for found in values if math.isfinite(found)]
    return float(np.mean(known)) if known else None


def _curves(data: StudyData) -> list[dict[str, Any]]:
    # matplotlib comes with it, which a page without a study should not wait for.
    from attn_lightning.report.study_figures import curves_of

    panels = []
    for kind in data.study.data:
        for options in data.study.options:
            group = [r for r in data.results if (r[0].data, r[0].options) == (kind.label, options.label)]
            for title, (axis, curves) in curves_of(group).items():
                # As numbers and not as a picture: the page draws it in its own theme and width.
                panels.append(
                    {
                        "data": kind.label,
                        "options": options.label,
                        "title": title,
                        "axis": axis,
                        "lines": [
                            {
                                "method": curve.method,
                                "x": [float(x) for x in curve.strengths],
                                "runs": [[finite(float(y)) for y in run] for run in curve.values],
                            }
                            for curve in curves
                        ],
                    }
                )
    return panels
