"""What drawings of a study show, against the numbers they were given."""

import numpy as np
import pytest

from attn_lightning.metrics.intervals import mean_interval
from attn_lightning.report.study_drawings import Curve, Strip, robustness_curves, strips


def test_strips_have_a_dot_per_run_and_say_what_is_missing(lines):
    rows = [
        Strip("m", {0: 0.5, 2: 0.75, 1: 1.0}),
        Strip("n", {0: 0.5, 1: float("nan")}, failed=2, missing=1),
        Strip("o", {}, 3),
    ]
    figure = strips({"first": rows, "second": rows[:1]}, "test/accuracy", "t")
    runs = lines(figure, "runs")
    assert [line.get_xdata().tolist() for line in runs] == [[0.5, 1.0, 0.75], [0.5], [0.5, 1.0, 0.75]]
    assert [line.get_xdata()[0] for line in lines(figure, "mean")] == [0.75, 0.5, 0.75]
    intervals = lines(figure, "interval")
    assert len(intervals) == 2
    assert tuple(intervals[0].get_xdata()) == mean_interval([0.5, 1.0, 0.75])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["m\n3 of 3 runs", "n\n1 of 5 runs, 2 failed, 1 missing, 1 undefined", "o\n0 of 3 runs, 3 failed"]


def test_curves_leave_out_strengths_that_a_run_lacks(lines):
    values = np.array([[1.0, 0.5], [0.5, np.nan]])
    figure = robustness_curves({"p": ("epsilon", [Curve("m", np.array([0.0, 1.0]), values)])}, "accuracy", "t")
    assert lines(figure, "mean")[0].get_ydata() == pytest.approx([0.75, 0.5])
