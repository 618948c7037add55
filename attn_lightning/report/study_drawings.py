"""Drawings of the runs of a study: pure functions from numbers to a matplotlib `Figure`."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from attn_lightning.metrics.intervals import INTERVAL, UNBOUNDED
from attn_lightning.metrics.statistics import summarize
from attn_lightning.report.style import BACKGROUND, COLORS, FloatArray, color, handle, house_style, marker, plain


@dataclass(frozen=True)
class Strip:
    """The runs of a method.

    Attributes:
        method: its label.
        values: the metric of every complete run, by seed; not finite where it is undefined.
        failed: number of runs that ended with an error.
        missing: number of runs that are not there, or not finished.
        bounds: smallest and largest possible value.
    """

    method: str
    values: Mapping[int, float]
    failed: int = 0
    missing: int = 0
    bounds: tuple[float, float] = UNBOUNDED

    @property
    def finite(self) -> list[float]:
        """What is drawn, in the order of the seeds."""
        return [value for _, value in sorted(self.values.items()) if math.isfinite(value)]

    @property
    def label(self) -> str:
        """The method and what became of its runs."""
        undefined = len(self.values) - len(self.finite)
        notes = [(self.failed, "failed"), (self.missing, "missing"), (undefined, "undefined")]
        shown = "".join(f", {count} {what}" for count, what in notes if count)
        # Of all that were asked for: a failed run is a result of the method too.
        asked = len(self.values) + self.failed + self.missing
        return f"{plain(self.method, 40)}\n{len(self.finite)} of {asked} runs{shown}"


@house_style()
def strips(panels: Mapping[str, Sequence[Strip]], metric: str, title: str) -> Figure:
    """Every run a dot, by method; beside the dots of a method their mean and its 95 % interval over seeds.

    Args:
        panels: methods by the data they ran on; the first comes on top.
        metric: below the horizontal axes, with its range and direction.
        title: above.
    """
    labels = {heading: [row.label for row in rows] for heading, rows in panels.items()}
    figure, grid = _stacked(labels, title, row_height=0.62, extra=0.8)
    for axes, rows in zip(grid, panels.values(), strict=True):
        for place, row in enumerate(rows):
            _draw_strip(axes, row, place)
    grid[-1].set_xlabel(textwrap.fill(plain(metric, 240), 88))
    figure.legend(
        handles=[
            handle("one run", marker="o", color=COLORS[0], alpha=0.65),
            Line2D([], [], marker="D", color="black", markersize=5, label=f"mean, 95 % {INTERVAL}"),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _stacked(
    labels: Mapping[str, Sequence[str]], title: str, row_height: float, extra: float
) -> tuple[Figure, Sequence[Axes]]:
    """A panel below the other with a labelled row for every method, all as wide as the same range.

    Args:
        labels: of the rows, the first on top, by the heading of the panel.
        title: above all.
        row_height: inches of a row.
        extra: inches for title and legend.
    """
    heights = [max(1, len(rows)) for rows in labels.values()]
    figure = Figure(figsize=(7.2, row_height * sum(heights) + 0.75 * len(labels) + extra), layout="constrained")
    grid = figure.subplots(len(labels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    figure.suptitle(plain(title, 90), fontsize=10)
    for axes, (heading, rows) in zip(grid, labels.items(), strict=True):
        axes.set_title(plain(heading), loc="left")
        axes.set_yticks(range(len(rows)), rows)
        # Downwards, so that the first method stands on top as in the tables.
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        axes.tick_params(axis="x", labelbottom=True)
    return figure, list(grid)


def _draw_strip(axes: Axes, strip: Strip, place: int) -> None:
    values = strip.finite
    # Spread by seed, not at random, so that a run is at the same height in every figure.
    offsets = np.linspace(-0.28, 0.08, len(values)) if len(values) > 1 else np.zeros(1) - 0.1
    if values:
        axes.plot(values, place + offsets, "o", color=COLORS[0], alpha=0.65, markersize=5, gid="runs")
        summary = summarize(values, strip.bounds)
        if math.isfinite(summary.low):
            # Beside the dots and not over them: with five runs the interval would hide them.
            axes.plot([summary.low, summary.high], [place + 0.26] * 2, color="black", linewidth=1.4, gid="interval")
        axes.plot(summary.mean, place + 0.26, "D", color="black", markersize=4.5, gid="mean")


@dataclass(frozen=True)
class ShortcutRow:
    """What the runs of a method got right, and what a probe that sees only their attention did.

    Attributes:
        method: its label; underscores become spaces.
        accuracies: of the model, one per run.
        probes: of a classifier on the weights of attention alone, one per run.
    """

    method: str
    accuracies: Sequence[float]
    probes: Sequence[float]


@house_style()
def shortcuts(panels: Mapping[str, tuple[float, Sequence[ShortcutRow]]], title: str) -> Figure:
    """How much right answers a model gives although what it attends to says nothing.

    A bar from the majority rate, which is all that can be right without a shortcut, to the mean accuracy; a dot for
    every run, a triangle for what a probe reads off the weights of attention alone.

    Args:
        panels: by heading, the majority rate and the methods, the first on top.
        title: above.
    """
    labels = {heading: [plain(r.method.replace("_", " "), 40) for r in rows] for heading, (_, rows) in panels.items()}
    figure, grid = _stacked(labels, title, row_height=0.42, extra=0.9)
    for axes, (majority, rows) in zip(grid, panels.values(), strict=True):
        axes.axvline(majority, color="black", linestyle="--", linewidth=1, gid="majority")
        for place, row in enumerate(rows):
            _draw_shortcut(axes, row, place, majority)
        axes.set_xlim(0, 1.01)
    grid[-1].set_xlabel("share of test texts that are classified rightly")
    figure.legend(
        handles=[
            Line2D([], [], color="black", linestyle="--", linewidth=1, label="always the most frequent class"),
            Patch(color=COLORS[4], alpha=0.35, label="beyond it: the shortcut"),
            handle("one run", marker="o", color=COLORS[4]),
            handle("probe on the attention weights alone", marker="^", color=COLORS[0]),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _draw_shortcut(axes: Axes, row: ShortcutRow, place: int, majority: float) -> None:
    if row.accuracies:
        mean = float(np.mean(row.accuracies))
        axes.barh(place, mean - majority, left=majority, height=0.5, color=COLORS[4], alpha=0.35, gid="gain")
        # Beyond the axis, where no bar and no dot of a run can cover it.
        axes.text(1.02, place, f"mean {mean:.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    offsets = np.linspace(-0.18, 0.18, max(2, len(row.accuracies)))
    axes.plot(row.accuracies, place + offsets[: len(row.accuracies)], "o", color=COLORS[4], markersize=4, gid="runs")
    axes.plot(row.probes, place + offsets[: len(row.probes)], "^", color=COLORS[0], markersize=4, gid="probes")


@dataclass(frozen=True)
class Curve:
    """A metric of a method over the strength of an attack.

    Attributes:
        method: its label.
        strengths: (K,) rising.
        values: (seeds, K), NaN where a run has none.
        bounds: smallest and largest possible value.
    """

    method: str
    strengths: FloatArray
    values: FloatArray
    bounds: tuple[float, float] = UNBOUNDED


@house_style()
def robustness_curves(panels: Mapping[str, tuple[str, Sequence[Curve]]], metric: str, title: str) -> Figure:
    """A metric over the strength of the attack, by method: the mean over seeds and its 95 % interval.

    Args:
        panels: by heading, what the strength is and the curves.
        metric: beside the vertical axes.
        title: above.
    """
    # Three beside each other are as wide as a page of a paper.
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.5 * across + 0.4, 2.9 * down + 1.1), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    figure.suptitle(plain(title, 40 * across), fontsize=10)
    # Over all panels, so that a method has one colour in all of them.
    methods = list(dict.fromkeys(curve.method for _, curves in panels.values() for curve in curves))
    for axes, (heading, (strength, curves)) in zip(grid, panels.items(), strict=False):
        axes.set(title=plain(heading), xlabel=plain(strength))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(linewidth=0.4, alpha=0.6)
        for curve in curves:
            _draw_curve(axes, curve, methods.index(curve.method))
    # The rest of the last row: empty axes would look like panels without data.
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[: len(panels) : across]:
        axes.set_ylabel(plain(metric))
    # The most of any panel, as a place of attack may be missing from some runs.
    runs = {method: max(len(c.values) for c in _of(panels, method)) for method in methods}
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], color=color(i), marker=marker(i), markersize=4, label=f"{plain(method, 40)} ({runs[method]} runs)"
        )
        for i, method in enumerate(methods)
    ]
    handles.append(Patch(color=BACKGROUND, alpha=0.25, label=f"95 % {INTERVAL}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(across + 1, len(handles)))
    return figure


def _of(panels: Mapping[str, tuple[str, Sequence[Curve]]], method: str) -> Iterable[Curve]:
    return (curve for _, curves in panels.values() for curve in curves if curve.method == method)


def _draw_curve(axes: Axes, curve: Curve, place: int) -> None:
    found = [summarize(column.tolist(), curve.bounds) for column in curve.values.T]
    style: dict[str, Any] = {"color": color(place), "marker": marker(place), "markersize": 3.5, "linewidth": 1.2}
    axes.plot(curve.strengths, [summary.mean for summary in found], gid="mean", **style)
    low, high = ([getattr(summary, end) for summary in found] for end in ("low", "high"))
    # NaN where there are fewer than two runs; matplotlib leaves these places out.
    axes.fill_between(curve.strengths, low, high, color=color(place), alpha=0.15, linewidth=0)
