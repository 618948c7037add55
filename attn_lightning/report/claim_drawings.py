"""Drawing of claims: a pure function from findings to a matplotlib `Figure`."""

import math
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


@house_style()
def claims_figure(found: Sequence[Finding], title: str) -> Figure:
    """Every claim a row: the difference that was measured with its 95 % interval, and the published one beside it.

    Args:
        found: the claims that have a difference; the first comes on top. Differences point to the side of the claim:
            where it says "lower", the sign is turned.
        title: above.
    """
    figure = Figure(figsize=(7.2, 0.42 * len(found) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    for place, each in enumerate(found):
        _draw(axes, each, place)
    axes.set_yticks(range(len(found)), [_label(each) for each in found], fontsize=7.5)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_xlabel("difference in points (100 times the metric), to the right: as claimed")
    figure.suptitle(plain(title, 110), fontsize=10)
    shown = [verdict for verdict in _LOOKS if any(each.verdict == verdict for each in found)]
    handles = [handle(verdict, color=_LOOKS[verdict][0], marker=_LOOKS[verdict][1]) for verdict in shown]
    published = any(math.isfinite(each.claim.published) for each in found)
    extra = [Line2D([], [], linestyle="", marker="|", color="black", markersize=10, label="published")]
    figure.legend(handles=[*handles, *(extra if published else [])], loc="outside lower center", ncols=4)
    return figure


def _draw(axes: Axes, each: Finding, place: int) -> None:
    sign = 100 if each.claim.direction == "higher" else -100
    color, shape = _LOOKS[each.verdict]
    measured = each.measured
    if math.isfinite(measured.low):
        axes.plot([sign * measured.low, sign * measured.high], [place, place], color=color, linewidth=1.6)
    axes.plot(sign * measured.difference, place, shape, color=color, markersize=6)
    if math.isfinite(each.claim.published):
        axes.plot(sign * each.claim.published, place, "|", color="black", markersize=11, markeredgewidth=1.6)


def _label(each: Finding) -> str:
    claim = each.claim
    return f"{plain(claim.claim, 64)}\n{plain(f'{claim.data}: {claim.method} against {claim.against}', 64)}"
