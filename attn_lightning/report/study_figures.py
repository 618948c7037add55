"""The figures of a study, from its run folders alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from attn_lightning.evaluation.families.robustness import Robustness
from attn_lightning.evaluation.families.shortcut_probe import ShortcutProbe
from attn_lightning.files import file_name
from attn_lightning.report.study_drawings import Curve, ShortcutRow, Strip, robustness_curves, shortcuts, strips
from attn_lightning.study.configuration import Study
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState
from attn_lightning.study.table import bounds_of, direction, value

Results = Sequence[tuple[Cell, CellState]]

CURVE = "accuracy"
ACCURACY = "test/accuracy"
_PROBE = f"evaluation/{ShortcutProbe.name}"
MAJORITY, PROBED = f"{_PROBE}/majority_rate", f"{_PROBE}/shortcut_accuracy[masks=profile]"
# The key is all that a record holds of a point, so that its parts are read back from the name.
_POINT = re.compile(
    rf"evaluation/{Robustness.name}/{CURVE}"
    r"\[where=(?P<where>\w+),attack=(?P<attack>\w+),target=(?P<target>\w+),(?P<axis>\w+)=(?P<strength>[0-9.e+-]+)\]"
)
_TARGETS = {"none": "", "prediction": ", away from the prediction", "label": ", away from the label"}
_AXES = {"epsilon": "epsilon (L2 norm, units of the {where})", "budget": "words replaced at most"}


def study_figures(
    study: Study, results: Results, metrics: Sequence[str] = ()
) -> tuple[dict[str, Figure], dict[str, str]]:
    """A strip plot for every metric and set of options; curves of robustness and shortcuts where runs have them.

    Args:
        study: the study.
        results: every cell and what its run folder says.
        metrics: those to draw; the ones of the study by default.

    Returns:
        Figures by name of the file, and for metrics without one the reason.
    """
    figures: dict[str, Figure] = {}
    reasons: dict[str, str] = {}
    for options in study.options:
        group = [found for found in results if found[0].options == options.label]
        for metric in metrics or study.metrics:
            panels = {data.label: strips_of(group, data.label, metric) for data in study.data}
            name = _free(figures, file_name("strip", options.label, metric))
            if any(row.finite for rows in panels.values() for row in rows):
                figures[name] = _strips(study, panels, metric, options.label)
            else:
                # Said and not left out: a missing file would look like a mistake of the command.
                reasons[name] = f"no complete run has a value of {metric}"
        for data in study.data:
            curves = curves_of([found for found in group if found[0].data == data.label])
            # Most studies attack nothing, and owe nobody a reason for a figure that they do not ask for.
            if curves:
                title = ", ".join(part for part in (study.name, data.label, options.label) if part)
                name = _free(figures, file_name("robustness", data.label, options.label))
                figures[name] = robustness_curves(curves, f"{CURVE} (0..1)", title)
        told = _shortcut_panels(study, group)
        if told:
            name = _free(figures, file_name("shortcuts", options.label))
            title = ", ".join(part for part in (study.name, options.label) if part)
            figures[name] = shortcuts(told, f"{title}: right answers that only attention can have told")
    return figures, reasons


def _shortcut_panels(study: Study, group: Results) -> dict[str, tuple[float, list[ShortcutRow]]]:
    panels = {
        data.label: shortcuts_of([found for found in group if found[0].data == data.label]) for data in study.data
    }
    return {label: panel for label, panel in panels.items() if panel is not None}


def _strips(study: Study, panels: dict[str, list[Strip]], metric: str, options: str) -> Figure:
    span, better = direction(metric)
    title = ", ".join(part for part in (study.name, options) if part)
    return strips(panels, f"{metric} ({span}; better: {better})", title)


def _free(taken: dict[str, Figure], name: str) -> str:
    """The name, with a number where another figure has it: signs that files cannot have may have told them apart."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def strips_of(results: Results, data: str, metric: str) -> list[Strip]:
    """The runs on one kind of data by method, in the order of the study."""
    by_method: dict[str, list[tuple[Cell, CellState]]] = {}
    for cell, found in results:
        if cell.data == data:
            by_method.setdefault(cell.method, []).append((cell, found))
    return [
        Strip(
            method,
            {cell.seed: value(found.record, metric) for cell, found in runs if found.state == "complete"},
            failed=sum(found.state == "failed" for _, found in runs),
            # Shown beside the dots: five of ten runs may be the five that did not fail.
            missing=sum(found.state not in ("complete", "failed") for _, found in runs),
            bounds=bounds_of(metric),
        )
        for method, runs in by_method.items()
    ]


def curves_of(results: Results) -> dict[str, tuple[str, list[Curve]]]:
    """Accuracy under attack of the complete runs: by place, attack and target, what the strength is, and a curve each.

    Args:
        results: cells on one kind of data under one set of options.
    """
    found: dict[tuple[str, str, str, str], dict[str, dict[int, dict[float, float]]]] = {}
    for cell, state in results:
        record = state.record.get("evaluation", {}) if state.state == "complete" else {}
        for name, measured in record.items():
            point = _POINT.fullmatch(name)
            # None is how a record writes a number that is not finite.
            if point is not None and measured is not None:
                key = (point["where"], point["attack"], point["target"], point["axis"])
                runs = found.setdefault(key, {}).setdefault(cell.method, {})
                runs.setdefault(cell.seed, {})[float(point["strength"])] = float(measured)
    panels = {}
    for (where, attack, target, axis), methods in found.items():
        heading = f"{where}: {attack.replace('_', ' ')}{_TARGETS.get(target, f', {target}')}"
        strength = _AXES.get(axis, axis).format(where=where)
        panels[heading] = (strength, [_curve(method, runs) for method, runs in methods.items()])
    return panels


def shortcuts_of(results: Results) -> tuple[float, list[ShortcutRow]] | None:
    """The majority rate, and by method the accuracies of models and of the probe on their attention.

    Args:
        results: cells on one kind of data under one set of options.

    Returns:
        None where no complete run has met the probe.
    """
    records: dict[str, list[Mapping[str, Any]]] = {}
    for cell, state in results:
        if state.state == "complete" and state.record.get("evaluation", {}).get(MAJORITY) is not None:
            records.setdefault(cell.method, []).append(state.record)
    if not records:
        return None
    # A property of the test labels, equal in all runs on this data.
    majority = value(next(iter(records.values()))[0], MAJORITY)
    rows = [
        ShortcutRow(method, [value(r, ACCURACY) for r in runs], [value(r, PROBED) for r in runs])
        for method, runs in records.items()
    ]
    return majority, rows


def _curve(method: str, runs: dict[int, dict[float, float]]) -> Curve:
    # Runs may have been attacked with other strengths; where one has none, NaN keeps it out of that mean.
    strengths = sorted({strength for points in runs.values() for strength in points})
    values = [[points.get(strength, np.nan) for strength in strengths] for points in runs.values()]
    return Curve(method, np.array(strengths), np.array(values), bounds_of(ACCURACY))
