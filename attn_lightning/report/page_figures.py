"""The figures beside a page: those of studies, and the learning curves of runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from attn_lightning.files import file_name
from attn_lightning.report.run_data import Run, numbers
from attn_lightning.report.study_data import StudyData
from attn_lightning.report.study_figures import study_figures
from attn_lightning.report.style import COLORS, MARKERS, house_style, plain

_LOSS, _VALIDATED = "train/loss", "val/accuracy"
_LEAST_EPOCHS = 2
_MOST_MARKERS = 15


def page_figures(runs: Sequence[Run], studies: Sequence[StudyData]) -> tuple[dict[str, Figure], dict[str, str]]:
    """All figures that the runs and studies allow.

    Args:
        runs: runs that were named one by one.
        studies: studies.

    Returns:
        Figures by name of the file, and for those that cannot be drawn the reason.
    """
    figures: dict[str, Figure] = {}
    reasons: dict[str, str] = {}
    # A curve of one epoch is a dot.
    if any(len(run.history) >= _LEAST_EPOCHS for run in runs):
        figures["learning-curves"] = learning_curves({run.label: run for run in runs})
    for data in studies:
        found, missing = study_figures(data.study, data.results)
        figures.update({file_name(data.study.name, name): figure for name, figure in found.items()})
        reasons.update({file_name(data.study.name, name): reason for name, reason in missing.items()})
    return figures, reasons


@house_style()
def learning_curves(runs: Mapping[str, Run]) -> Figure:
    """Loss and what chose the best epoch, by epoch; accuracy where runs were chosen by different metrics.

    Args:
        runs: by label.
    """
    monitors = {run.monitor or _VALIDATED for run in runs.values()}
    panels = (_LOSS, monitors.pop() if len(monitors) == 1 else _VALIDATED)
    figure = Figure(figsize=(3.4 * len(panels), 2.8), layout="constrained")
    for panel, metric in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, (label, run) in enumerate(runs.items()):
            # Epochs that did not measure it have no point, and the line joins those beside them. A value that was
            # not finite leaves a gap, where joining its ends would hide it.
            rows = {k: numbers(row) for k, row in enumerate(run.history) if metric in row}
            values = np.array([row.get(metric, np.nan) for row in rows.values()])
            epochs = np.array([row.get("epoch", float(k)) + 1 for k, row in rows.items()])
            panel.plot(
                epochs,
                values,
                color=COLORS[place % len(COLORS)],
                marker=MARKERS[place % len(MARKERS)],
                # A marker per point would hide the line of a long training.
                markevery=max(1, len(rows) // _MOST_MARKERS),
                markersize=4,
                label=plain(label),
            )
        panel.set_xlabel("epoch")
        panel.set_title(metric)
    # Of one panel, as all of them draw the same runs.
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
