"""Drawings of what a trained model does: pure functions from arrays to a matplotlib `Figure`.

No function reads a model, a file or a global setting, and none draws at random. `report.style.write` makes files of
the figures. Names in the data are shown as text, never as formulas.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from attn_lightning.metrics.selective import OUTCOMES
from attn_lightning.report.style import COLORS, MAP, MISTAKE, FloatArray, color, handle, house_style, marker, plain

_BACKGROUND_DOT: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "color": "#DDDDDD",
    "markeredgecolor": "#555555",
    "markeredgewidth": 0.4,
}

BINS = 40
"""Cells of the density per axis."""


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
    # A constant score has no contours, and matplotlib would warn of it.
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
    # 0 where all classes are as likely, 1 where one is certain, for any number of classes.
    sure = (probabilities.max(-1) - 1 / num_classes) / (1 - 1 / num_classes)
    strength = (0.12 + 0.4 * sure)[..., None]
    colors = np.array([to_rgb(color(label)) for label in range(num_classes)])
    image: FloatArray = 1 - strength * (1 - colors[best])
    return image


def _scatter_segments(axes: Axes, mosaics: PlaneMosaics) -> None:
    background = mosaics.points[~mosaics.foreground]
    # Light with a dark edge, to be seen on every colour of the score.
    axes.plot(*background.T, **_BACKGROUND_DOT, markersize=2.6, rasterized=True, gid="background")
    deciding, labels = mosaics.points[mosaics.foreground], mosaics.labels[mosaics.foreground.nonzero()[0]]
    for label in np.unique(labels):
        axes.plot(
            *deciding[labels == label].T,
            marker(label),
            color=color(label),
            markeredgecolor="white",
            markeredgewidth=0.5,
            markersize=5,
            gid=f"foreground_{label}",
        )


def _segment_handles(names: Sequence[str], mosaics: PlaneMosaics) -> list[Line2D]:
    handles = [
        handle(plain(name, 20), marker=marker(label), color=color(label), markeredgecolor="white", markersize=7)
        for label, name in enumerate(names)
    ]
    handles.append(handle("background segment", **_BACKGROUND_DOT, markersize=4))
    handles.append(handle("most attention, but background", marker="x", color=MISTAKE))
    if mosaics.averages is not None:
        handles.append(handle("what the classifier was given", marker=".", color="#444444", markersize=5))
    return handles


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
            handle("decides the label", marker="^", color="white", markeredgecolor="black", markersize=8),
        ],
        loc="outside lower center",
        ncols=2,
    )
    return figure


def _draw_mosaic(axes: Axes, mosaic: ImageMosaic) -> None:
    count, height, width, _ = mosaic.images.shape
    # As near to a square as the number of segments allows.
    side = math.ceil(math.sqrt(count))
    # Room for the thickest frame on both sides, 0.07 of an image each.
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
    # Bold and not red: the figure must say it in grey too.
    right = mosaic.predicted == mosaic.label
    said = f"says {plain(mosaic.predicted, 18)} ({mosaic.probability:.2f})\nis {plain(mosaic.label, 24)}"
    axes.set_title(said, fontweight="normal" if right else "bold", fontsize=8)


# --- density ------------------------------------------------------------------------------------------------------


@house_style()
def evidence_density(weights: FloatArray, probabilities: FloatArray, outcomes: FloatArray, title: str) -> Figure:
    """How attention on the rationale and the probability of the true class go together.

    Args:
        weights: (N,) attention on the rationale, `a_{z*}`, in [0, 1]; the sum over it where it is several tokens.
        probabilities: (N,) probability of the true class, `p_y`.
        outcomes: (N, 4) as `metrics.selective.outcomes` gives them; rows of NaN, and rows that are NaN in one of the
            other two, are left out and counted.
        title: above.
    """
    # Only examples of which all three are known, so that both halves of the figure count the same ones.
    known = ~(np.isnan(weights) | np.isnan(probabilities) | np.isnan(outcomes).any(1))
    counts = np.histogram2d(weights[known], probabilities[known], bins=BINS, range=((0, 1), (0, 1)))[0]
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    axes, side = figure.subplots(1, 2, width_ratios=(1.15, 1))
    figure.suptitle(plain(title, 110), fontsize=10)
    edges = np.linspace(0, 1, BINS + 1)
    shown = np.ma.masked_equal(counts.T, 0)
    # At least 2: a logarithmic scale from 1 to 1 has no width.
    most = max(2.0, float(counts.max()))
    mesh = axes.pcolormesh(edges, edges, shown, cmap=f"{MAP}_r", norm=LogNorm(1, most), rasterized=True)
    ticks = [step * 10**power for power in range(9) for step in (1, 2, 5) if step * 10**power <= most]
    bar = figure.colorbar(mesh, ax=axes, label="examples per cell (logarithmic)", ticks=ticks, format="%d")
    bar.minorticks_off()
    axes.set(
        xlabel="attention on the rationale, a_z* (share)",
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
    for outcome, count in zip(OUTCOMES, outcomes.sum(0), strict=True):
        share = f"{100 * count / len(outcomes):.1f} %" if len(outcomes) else "-"
        lines.append(f"{outcome.name.upper()}  {int(count):,}  ({share})\n{outcome.meaning}\n")
    left_out = total - len(outcomes)
    lines.append(
        f"{len(outcomes):,} examples" + (f"; {left_out:,} without rationale or label left out" * (left_out > 0))
    )
    return "\n".join(lines)
