"""Drawing of claims: a pure function from findings to a matplotlib `Figure`."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attn_lightning.report.claims import Finding, Verdict
from attn_lightning.report.style import BACKGROUND, COLORS, handle, house_style, plain

_LOOKS: dict[Verdict, tuple[str, str]] = {
    "holds": (COLORS[0], "o"),
    "does not hold": (COLORS[4], "s"),
    "cannot be told": (BACKGROUND, "D"),
}
"""Colour and shape: verdicts are told apart without colour too."""

_INCHES, _GAP = 0.17, 1.0
"""Height of a finding, and the room between claims in findings."""

_LINEAR_POINTS = 5
"""Up to here the axis is linear and beyond it logarithmic: published rises of 50 points stand beside those of 0.5."""


@house_style()
def claims_figure(found: Sequence[Finding], title: str) -> Figure:
    """The difference that was measured for every claim with its 95 % interval, and the published one beside it.

    Args:
        found: findings that have a difference, those of one claim next to each other. They stand below each other from
            the top in this order. Differences point to the side of the claim: where it says "lower", the sign is
            turned.
        title: above.
    """
    groups: dict[str, list[Finding]] = {}
    for each in found:
        groups.setdefault(each.claim.sentence, []).append(each)
    labels = {name: _label(name, group) for name, group in groups.items()}
    # A group is as high as its label at least: two lines of text need the room of two findings.
    heights = {name: max(len(group), 0.75 * len(labels[name].splitlines())) for name, group in groups.items()}
    whole = sum(heights.values()) + _GAP * len(groups)
    figure = Figure(figsize=(7.2, _INCHES * whole + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    places, top = [], 0.0
    for name, group in groups.items():
        middle = top + heights[name] / 2
        for number, each in enumerate(group):
            _draw(axes, each, middle + number - (len(group) - 1) / 2)
        places.append(middle)
        top += heights[name] + _GAP
        axes.axhline(top - _GAP / 2, color=BACKGROUND, linewidth=0.3)
    axes.set_yticks(places, list(labels.values()), fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(top - _GAP / 2, -_GAP / 2)
    axes.set_xscale("symlog", linthresh=_LINEAR_POINTS, linscale=1)
    _set_ticks(axes)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_xlabel("points of difference, to the right as claimed")
    figure.suptitle(plain(title, 110), fontsize=10)
    figure.legend(handles=_handles(found), loc="outside lower center", ncols=4)
    return figure


def _label(sentence: str, group: Sequence[Finding]) -> str:
    lines = textwrap.wrap(plain(sentence, 200), 52)
    return "\n".join([*lines, *textwrap.wrap(plain(", ".join(each.claim.data for each in group), 200), 60)])


def _set_ticks(axes: Axes) -> None:
    ends = max(abs(end) for end in axes.get_xlim())
    beyond = [step for step in (20, 50, 100) if step <= ends]
    ticks = [*(-step for step in reversed(beyond)), -5, -2, 0, 2, 5, *beyond]
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:+g}".replace("-", "−") if tick else "0")
    axes.minorticks_off()


def _draw(axes: Axes, each: Finding, place: float) -> None:
    sign = 100 if each.claim.direction == "higher" else -100
    color, shape = _LOOKS[each.verdict]
    measured = each.measured
    if math.isfinite(measured.low):
        ends = [sign * measured.low, sign * measured.high]
        axes.plot(ends, [place, place], color=color, linewidth=1.4, gid="interval")
    axes.plot(sign * measured.difference, place, shape, color=color, markersize=4.5, gid="difference")
    if math.isfinite(each.claim.published):
        axes.plot(sign * each.claim.published, place, "|", color="black", markersize=9, markeredgewidth=1.6)


def _handles(found: Sequence[Finding]) -> list[Line2D]:
    shown = [verdict for verdict in _LOOKS if any(each.verdict == verdict for each in found)]
    handles = [handle(verdict, color=_LOOKS[verdict][0], marker=_LOOKS[verdict][1]) for verdict in shown]
    if any(math.isfinite(each.claim.published) for each in found):
        handles.append(handle("published", marker="|", color="black", markersize=9))
    return handles
