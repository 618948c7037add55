"""Figures beside a page."""

import numpy as np

from attn_lightning.report.page_figures import learning_curves, page_figures
from attn_lightning.report.run_data import read_run
from attn_lightning.report.study_data import read_study_folder
from attn_lightning.report.style import render


def test_runs_have_learning_curves(make_run):
    run = read_run(make_run())
    figure = learning_curves({"_a$x$": run})
    lines = [panel.get_lines()[0] for panel in figure.axes]
    assert [panel.get_title() for panel in figure.axes] == ["train/loss", "val/accuracy"]
    assert lines[1].get_xdata().tolist() == [1, 2, 3]
    assert lines[1].get_ydata().tolist() == [0.5, 0.6, 0.7]
    assert render(figure, "pdf").startswith(b"%PDF")
    assert render(figure, "pdf") == render(figure, "pdf")


def test_the_curve_is_of_what_chose_the_epoch(make_run):
    history = [{"epoch": k, "train/loss": 1.0, "val/accuracy": 0.5, "val/macro_f1": 0.3 + k} for k in range(2)]
    by_f1 = read_run(make_run("a", best={"monitor": "val/macro_f1"}, history=history))
    by_accuracy = read_run(make_run("b", best={"monitor": "val/accuracy"}, history=history))
    titles = [
        [panel.get_title() for panel in learning_curves(runs).axes]
        for runs in ({"a": by_f1}, {"a": by_f1, "b": by_accuracy})
    ]
    assert titles == [["train/loss", "val/macro_f1"], ["train/loss", "val/accuracy"]]


def test_a_curve_of_few_validated_epochs_has_all_of_them(make_run):
    """Of every tenth epoch: with a marker per thirteenth one, and no line between two of them, nothing was drawn."""
    history = [{"epoch": k, "train/loss": None if k == 7 else 1.0} for k in range(200)]
    for k in range(9, 200, 20):
        history[k]["val/accuracy"] = k / 200
    figure = learning_curves({"a": read_run(make_run(history=history))})
    loss, accuracy = (panel.get_lines()[0] for panel in figure.axes)
    assert accuracy.get_xdata().tolist() == list(range(10, 201, 20))
    assert accuracy.get_ydata().tolist() == [k / 200 for k in range(9, 200, 20)]
    assert accuracy.get_markevery() == 1
    # A loss that was not finite is no epoch without a loss.
    assert len(loss.get_xdata()) == 200
    assert np.flatnonzero(np.isnan(loss.get_ydata())).tolist() == [7]


def test_a_single_epoch_is_no_curve(make_run):
    figures, reasons = page_figures([read_run(make_run(history=[{"epoch": 0, "val/accuracy": 0.5}]))], [])
    assert (figures, reasons) == ({}, {})


def test_studies_have_theirs(make_run, tmp_path):
    for method in ("vanilla", "ivat"):
        make_run(f"{method}_mine", "seed_0", texts=None)
    figures, _ = page_figures([], [read_study_folder(tmp_path / "runs")])
    assert "runs-strip-test-accuracy" in figures
