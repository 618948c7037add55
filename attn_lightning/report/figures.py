"""Figures: pure functions from arrays to a matplotlib `Figure`, which `report.style.write` makes files of.

No function reads a model, a file or a global setting, and none draws at random. Names in the data are shown as text,
never as formulas.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from attn_lightning.metrics.selective import OUTCOMES
from attn_lightning.metrics.statistics import summarize
from attn_lightning.report.style import BACKGROUND, COLORS, MAP, MARKERS, MISTAKE, house_style, plain

FloatArray = NDArray[np.floating[Any]]

OUTCOME_TEXTS = {
    "ftpt": "attention on the explained, prediction right",
    "ffpt": "attention elsewhere, prediction right",
    "ftpf": "attention on the explained, prediction wrong",
    "ffpf": "attention elsewhere, prediction wrong",
}
_BACKGROUND_DOT: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "color": "#DDDDDD",
    "markeredgecolor": "#555555",
    "markeredgewidth": 0.4,
}

BINS = 40
"""Cells of the density per axis."""


def color(index: int) -> str:
    """Colour of a class or method by its place."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Marker of a class or method by its place; with the colour it repeats only after ninety."""
    return MARKERS[index % len(MARKERS)]


# --- decision regions ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """What the model says of a mosaic of one segment, over a grid of the plane.

    Attributes:
        x: (X,) first coordinates, rising evenly.
        y: (Y,) second coordinates, rising evenly.
        scores: (Y, X) attention score before the normalizer.
        probabilities: (Y, X, C) of the classes.
    """

    x: FloatArray
    y: FloatArray
    scores: FloatArray
    probabilities: FloatArray

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Outer edges of the cells, as `imshow` takes them."""
        across, up = (self.x[1] - self.x[0]) / 2, (self.y[1] - self.y[0]) / 2
        edges = (self.x[0] - across, self.x[-1] + across, self.y[0] - up, self.y[-1] + up)
        return tuple(map(float, edges))  # type: ignore[return-value]


@dataclass(frozen=True)
class PlaneMosaics:
    """Mosaics of points of the plane, and where the model looked.

    Attributes:
        points: (N, m, 2).
        attention: (N, m).
        foreground: (N, m) bool, True at z*.
        labels: (N,) class.
        averages: (N, 2) what the classifier was given, where that is a point of the plane; None where it is not.
    """

    points: FloatArray
    attention: FloatArray
    foreground: NDArray[np.bool_]
    labels: NDArray[np.int64]
    averages: FloatArray | None = None

    @property
    def mistaken(self) -> FloatArray:
        """(K, 2) the segments with the most attention, the first of equals, where they are not z*."""
        rows, focus = np.arange(len(self.points)), self.attention.argmax(1)
        found: FloatArray = self.points[rows, focus][~self.foreground[rows, focus]]
        return found


@house_style()
def decision_regions(field: Field, mosaics: PlaneMosaics, names: Sequence[str], title: str) -> Figure:
    """Where the focus network looks and what the classifier says, over the plane of the segments.

    Left: the attention score of a segment at each place; brighter gets more attention beside others. Right: the class
    of a mosaic that has only a segment there, the stronger the colour the surer. On both the segments of the mosaics,
    those that decide the label by their class. On the left a cross marks wrongly attended ones; on the right, if the
    classifier sees points of the plane, a small dot marks the average it was given.

    Args:
        field: scores and probabilities.
        mosaics: to scatter.
        names: of the C classes.
        title: above both.
    """
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    focus, classifier = figure.subplots(1, 2, sharex=True, sharey=True)
    figure.suptitle(plain(title, 110), fontsize=10)
    image = focus.imshow(field.scores, origin="lower", extent=field.extent, cmap=MAP, aspect="auto")
    if np.ptp(field.scores) > 0:
        focus.contour(field.x, field.y, field.scores, levels=12, colors="white", linewidths=0.5, linestyles="solid")
    figure.colorbar(image, ax=focus, label="attention score before the normalizer", shrink=0.85)
    focus.set_title("focus: score of a segment at each place")
    classifier.imshow(_class_image(field.probabilities), origin="lower", extent=field.extent, aspect="auto")
    classifier.set_title("classifier: class of a mosaic of one such segment")
    for axes in (focus, classifier):
        _scatter_segments(axes, mosaics)
        axes.set(xlabel="segment, coordinate 1", xlim=field.extent[:2], ylim=field.extent[2:])
    focus.set_ylabel("segment, coordinate 2")
    focus.plot(*mosaics.mistaken.T, "x", color=MISTAKE, markersize=5, markeredgewidth=1, gid="mistaken")
    if mosaics.averages is not None:
        for label in np.unique(mosaics.labels):
            points = mosaics.averages[mosaics.labels == label]
            classifier.plot(*points.T, ".", color=color(label), markersize=4, gid=f"averages_{label}")
    handles = _segment_handles(names, mosaics)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles) if len(handles) < 6 else math.ceil(len(handles) / 2),
    )
    return figure


def _class_image(probabilities: FloatArray) -> FloatArray:
    """(Y, X, 3) colour of the most probable class, mixed with white: less of it the surer the model is."""
    num_classes = probabilities.shape[-1]
    best = probabilities.argmax(-1)
    sure = (probabilities.max(-1) - 1 / num_classes) / (1 - 1 / num_classes)
    strength = (0.12 + 0.4 * sure)[..., None]
    colors = np.array([to_rgb(color(label)) for label in range(num_classes)])
    image: FloatArray = 1 - strength * (1 - colors[best])
    return image


def _scatter_segments(axes: Axes, mosaics: PlaneMosaics) -> None:
    background = mosaics.points[~mosaics.foreground]
    # Light with a dark edge, to be seen on every colour of the score.
    axes.plot(*background.T, **_BACKGROUND_DOT, markersize=2.6, rasterized=True, gid="background")
    explained, labels = mosaics.points[mosaics.foreground], mosaics.labels[mosaics.foreground.nonzero()[0]]
    for label in np.unique(labels):
        axes.plot(
            *explained[labels == label].T,
            marker(label),
            color=color(label),
            markeredgecolor="white",
            markeredgewidth=0.5,
            markersize=5,
            gid=f"foreground_{label}",
        )


def _segment_handles(names: Sequence[str], mosaics: PlaneMosaics) -> list[Line2D]:
    handles = [
        _handle(plain(name, 20), marker=marker(label), color=color(label), markeredgecolor="white", markersize=7)
        for label, name in enumerate(names)
    ]
    handles.append(_handle("background segment", **_BACKGROUND_DOT, markersize=4))
    handles.append(_handle("most attention, but background", marker="x", color=MISTAKE))
    if mosaics.averages is not None:
        handles.append(_handle("what the classifier was given", marker=".", color="#444444", markersize=5))
    return handles


def _handle(label: str, **appearance: Any) -> Line2D:
    return Line2D([], [], **{"linestyle": "", "label": label, **appearance})


# --- mosaics of images --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageMosaic:
    """A mosaic of images with what the model made of it.

    Attributes:
        images: (m, height, width, 3) in [0, 1].
        attention: (m,) weights.
        foreground: position z* of the image that decides the label.
        label: name of its class.
        predicted: name of the predicted class.
        probability: of the predicted class.
    """

    images: FloatArray
    attention: FloatArray
    foreground: int
    label: str
    predicted: str
    probability: float


@house_style()
def mosaic_grid(columns: Mapping[str, Sequence[ImageMosaic]], title: str) -> Figure:
    """Attention over mosaics of images: one column per heading, one mosaic below the other.

    The frame of an image is the thicker the more attention it has, its weight is written on it, and the image that
    decides the label has a white triangle. A wrong prediction is written in bold.

    Args:
        columns: mosaics by heading; a column may be empty.
        title: above all.
    """
    rows = max(1, *(len(column) for column in columns.values()))
    figure = Figure(figsize=(2.7 * len(columns), 2.85 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows + 1, len(columns), squeeze=False, height_ratios=(0.08, *[1.0] * rows))
    figure.suptitle(plain(title, 110), fontsize=10)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, (heading, mosaics) in enumerate(columns.items()):
        text = plain(heading) + ("" if mosaics else "\nnone")
        grid[0, column].text(0.5, 0, text, ha="center", va="center", fontsize=10)
        for axes, mosaic in zip(grid[1:, column], mosaics, strict=False):
            _draw_mosaic(axes, mosaic)
    figure.legend(
        handles=[
            Line2D([], [], color=COLORS[1], linewidth=4, label="attention (thickness and number)"),
            _handle("decides the label", marker="^", color="white", markeredgecolor="black", markersize=8),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _draw_mosaic(axes: Axes, mosaic: ImageMosaic) -> None:
    count, height, width, _ = mosaic.images.shape
    side = math.ceil(math.sqrt(count))
    gap = 0.16
    for place, (image, weight) in enumerate(zip(mosaic.images, mosaic.attention.tolist(), strict=True)):
        left, top = (place % side) * (1 + gap), (place // side) * (1 + gap)
        axes.imshow(image, extent=(left, left + 1, top + 1, top), interpolation="nearest", aspect=height / width)
        # A frame outside the image covers nothing of it.
        frame = 0.01 + 0.06 * weight
        size = 1 + 2 * frame
        axes.add_patch(
            Rectangle(
                (left - frame, top - frame), size, size, facecolor="none" if weight < 0.005 else COLORS[1], zorder=-1
            )
        )
        text = axes.text(left + 0.97, top + 0.96, f"{weight:.2f}", color="white", fontsize=7, ha="right", va="bottom")
        text.set_bbox({"facecolor": "black", "alpha": 0.65, "linewidth": 0, "pad": 1})
        if place == mosaic.foreground:
            axes.plot(left + 0.14, top + 0.15, "^", color="white", markeredgecolor="black", markersize=7, gid="z")
    end = side * (1 + gap)
    axes.set(xlim=(-gap, end), ylim=(math.ceil(count / side) * (1 + gap), -gap))
    right = mosaic.predicted == mosaic.label
    said = f"says {plain(mosaic.predicted, 18)} ({mosaic.probability:.2f})\nis {plain(mosaic.label, 24)}"
    axes.set_title(said, fontweight="normal" if right else "bold", fontsize=8)


# --- density ------------------------------------------------------------------------------------------------------


@house_style()
def evidence_density(weights: FloatArray, probabilities: FloatArray, outcomes: FloatArray, title: str) -> Figure:
    """How attention on the evidence and the probability of the true class go together.

    Args:
        weights: (N,) attention on the explained, `a_{z*}`, in [0, 1]; the sum over it where it is several tokens.
        probabilities: (N,) probability of the true class, `p_y`.
        outcomes: (N, 4) as `metrics.selective.outcomes` gives them; rows of NaN, and rows that are NaN in one of the
            other two, are left out and counted.
        title: above.
    """
    known = ~(np.isnan(weights) | np.isnan(probabilities) | np.isnan(outcomes).any(1))
    counts = np.histogram2d(weights[known], probabilities[known], bins=BINS, range=((0, 1), (0, 1)))[0]
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    axes, side = figure.subplots(1, 2, width_ratios=(1.15, 1))
    figure.suptitle(plain(title, 110), fontsize=10)
    edges = np.linspace(0, 1, BINS + 1)
    shown = np.ma.masked_equal(counts.T, 0)
    most = max(2.0, float(counts.max()))
    mesh = axes.pcolormesh(edges, edges, shown, cmap=f"{MAP}_r", norm=LogNorm(1, most), rasterized=True)
    ticks = [step * 10**power for power in range(9) for step in (1, 2, 5) if step * 10**power <= most]
    bar = figure.colorbar(mesh, ax=axes, label="examples per cell (logarithmic)", ticks=ticks, format="%d")
    bar.minorticks_off()
    axes.set(
        xlabel="attention on the explained, a_z* (share)",
        ylabel="probability of the true class, p_y",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    side.set_axis_off()
    side.text(0, 0.97, _outcome_lines(outcomes[known], len(weights)), va="top", linespacing=1.5, gid="outcomes")
    return figure


def _outcome_lines(outcomes: FloatArray, total: int) -> str:
    lines = []
    for name, count in zip(OUTCOMES, outcomes.sum(0), strict=True):
        share = f"{100 * count / len(outcomes):.1f} %" if len(outcomes) else "-"
        lines.append(f"{name.upper()}  {int(count):,}  ({share})\n{OUTCOME_TEXTS[name]}\n")
    left_out = total - len(outcomes)
    lines.append(
        f"{len(outcomes):,} examples" + (f"; {left_out:,} without evidence or label left out" * (left_out > 0))
    )
    return "\n".join(lines)


# --- studies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strip:
    """The runs of a method.

    Attributes:
        method: its label.
        values: the metric of every complete run, by seed; not finite where it is undefined.
        failed: number of runs that ended with an error.
        missing: number of runs that are not there, or not finished.
    """

    method: str
    values: Mapping[int, float]
    failed: int = 0
    missing: int = 0

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
        asked = len(self.values) + self.failed + self.missing
        return f"{plain(self.method, 40)}\n{len(self.finite)} of {asked} runs{shown}"


@house_style()
def strips(panels: Mapping[str, Sequence[Strip]], metric: str, title: str) -> Figure:
    """Every run a dot, by method; beside the dots of a method their mean and its 95 % bootstrap interval over seeds.

    Args:
        panels: methods by the data they ran on; the first comes on top.
        metric: below the horizontal axes, with its range and direction.
        title: above.
    """
    heights = [max(1, len(rows)) for rows in panels.values()]
    figure = Figure(figsize=(7.2, 0.62 * sum(heights) + 0.75 * len(panels) + 0.8), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    figure.suptitle(plain(title, 90), fontsize=10)
    for axes, (heading, rows) in zip(grid, panels.items(), strict=True):
        axes.set_title(plain(heading), loc="left")
        for place, row in enumerate(rows):
            _draw_strip(axes, row, place)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        axes.tick_params(axis="x", labelbottom=True)
    grid[-1].set_xlabel(textwrap.fill(plain(metric, 240), 88))
    figure.legend(
        handles=[
            _handle("one run", marker="o", color=COLORS[0], alpha=0.65),
            Line2D([], [], marker="D", color="black", markersize=5, label="mean, 95 % bootstrap interval"),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _draw_strip(axes: Axes, strip: Strip, place: int) -> None:
    values = strip.finite
    # Spread by seed, not at random, so that a run is at the same height in every figure.
    offsets = np.linspace(-0.28, 0.08, len(values)) if len(values) > 1 else np.zeros(1) - 0.1
    if values:
        axes.plot(values, place + offsets, "o", color=COLORS[0], alpha=0.65, markersize=5, gid="runs")
        summary = summarize(values)
        if math.isfinite(summary.low):
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
    heights = [len(rows) for _, rows in panels.values()]
    figure = Figure(figsize=(7.2, 0.42 * sum(heights) + 0.75 * len(panels) + 0.9), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    figure.suptitle(plain(title, 90), fontsize=10)
    for axes, (heading, (majority, rows)) in zip(grid, panels.items(), strict=True):
        axes.set_title(plain(heading), loc="left")
        axes.axvline(majority, color="black", linestyle="--", linewidth=1, gid="majority")
        for place, row in enumerate(rows):
            _draw_shortcut(axes, row, place, majority)
        axes.set_yticks(range(len(rows)), [plain(row.method.replace("_", " "), 40) for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.01))
        axes.grid(axis="x", linewidth=0.4, alpha=0.6)
        axes.tick_params(axis="x", labelbottom=True)
    grid[-1].set_xlabel("share of test texts that are classified rightly")
    figure.legend(
        handles=[
            Line2D([], [], color="black", linestyle="--", linewidth=1, label="always the most frequent class"),
            Patch(color=COLORS[4], alpha=0.35, label="beyond it: the shortcut"),
            _handle("one run", marker="o", color=COLORS[4]),
            _handle("probe on the attention weights alone", marker="^", color=COLORS[0]),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _draw_shortcut(axes: Axes, row: ShortcutRow, place: int, majority: float) -> None:
    if row.accuracies:
        mean = float(np.mean(row.accuracies))
        axes.barh(place, mean - majority, left=majority, height=0.5, color=COLORS[4], alpha=0.35, gid="gain")
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
    """

    method: str
    strengths: FloatArray
    values: FloatArray


@house_style()
def robustness_curves(panels: Mapping[str, tuple[str, Sequence[Curve]]], metric: str, title: str) -> Figure:
    """A metric over the strength of the attack, by method: the mean over seeds and its 95 % bootstrap interval.

    Args:
        panels: by heading, what the strength is and the curves.
        metric: beside the vertical axes.
        title: above.
    """
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(3.5 * across + 0.4, 2.9 * down + 1.1), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    figure.suptitle(plain(title, 40 * across), fontsize=10)
    methods = list(dict.fromkeys(curve.method for _, curves in panels.values() for curve in curves))
    for axes, (heading, (strength, curves)) in zip(grid, panels.items(), strict=False):
        axes.set(title=plain(heading), xlabel=plain(strength))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(linewidth=0.4, alpha=0.6)
        for curve in curves:
            _draw_curve(axes, curve, methods.index(curve.method))
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[: len(panels) : across]:
        axes.set_ylabel(plain(metric))
    runs = {method: max(len(c.values) for c in _of(panels, method)) for method in methods}
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], color=color(i), marker=marker(i), markersize=4, label=f"{plain(method, 40)} ({runs[method]} runs)"
        )
        for i, method in enumerate(methods)
    ]
    handles.append(Patch(color=BACKGROUND, alpha=0.25, label="95 % bootstrap interval"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(across + 1, len(handles)))
    return figure


def _of(panels: Mapping[str, tuple[str, Sequence[Curve]]], method: str) -> Iterable[Curve]:
    return (curve for _, curves in panels.values() for curve in curves if curve.method == method)


def _draw_curve(axes: Axes, curve: Curve, place: int) -> None:
    found = [summarize(column.tolist()) for column in curve.values.T]
    style: dict[str, Any] = {"color": color(place), "marker": marker(place), "markersize": 3.5, "linewidth": 1.2}
    axes.plot(curve.strengths, [summary.mean for summary in found], gid="mean", **style)
    low, high = ([getattr(summary, end) for summary in found] for end in ("low", "high"))
    axes.fill_between(curve.strengths, low, high, color=color(place), alpha=0.15, linewidth=0)
