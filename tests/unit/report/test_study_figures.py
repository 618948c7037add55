"""The records of runs become strips, curves and shortcuts."""

from pathlib import Path

from attn_lightning.report.study_drawings import robustness_curves, shortcuts
from attn_lightning.report.study_figures import curves_of, shortcuts_of, strips_of
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState


def cell(method: str, seed: int, data: str = "d") -> Cell:
    return Cell(method, data, "", seed, Path("x.yaml"), (), f"{method}_{data}", False)


def test_runs_of_a_study_become_strips_and_curves(lines):
    def record(height: float) -> dict:
        point = "evaluation/robustness/{}[where=scores,attack=pgd,target=label,epsilon={}]"
        values = {point.format("accuracy", 0.0): height, point.format("accuracy", 2.0): height - 0.25}
        others = {point.format("unchanged", 2.0): 0.1, "evaluation/robustness/accuracy_area[where=scores]": 0.3}
        return {"test": {"test/accuracy": height}, "evaluation": values | others}

    results = [
        (cell("m", 0), CellState("complete", record(0.75))),
        (cell("m", 1), CellState("complete", record(0.5))),
        (cell("m", 2), CellState("failed", record(0.0))),
        (cell("n", 0), CellState("unfinished", record(0.0))),
        (cell("m", 0, "other"), CellState("complete", record(0.25))),
    ]
    m, n = strips_of(results, "d", "test/accuracy")
    assert (m.values, m.failed, m.missing) == ({0: 0.75, 1: 0.5}, 1, 0)
    assert (n.values, n.failed, n.missing) == ({}, 0, 1)
    panels = curves_of(results[:4])
    ((heading, (strength, (curve,))),) = panels.items()
    assert heading == "scores: pgd, away from the label"
    assert strength.startswith("epsilon (L2 norm")
    assert curve.strengths.tolist() == [0, 2]
    assert curve.values.tolist() == [[0.75, 0.5], [0.5, 0.25]]
    figure = robustness_curves(panels, "accuracy", "t")
    assert lines(figure, "mean")[0].get_xydata().tolist() == [[0, 0.625], [2, 0.375]]


def test_shortcuts_start_at_the_majority_rate(lines):
    def record(accuracy: float, probe: float) -> dict:
        probed = {
            "majority_rate": 0.5,
            "shortcut_accuracy[masks=profile]": probe,
            "shortcut_accuracy[masks=top 5]": 0.1,
        }
        names = {f"evaluation/shortcut_probe/{name}": found for name, found in probed.items()}
        return {"test": {"test/accuracy": accuracy}, "evaluation": names}

    results = [
        (cell("four_tokens", 0), CellState("complete", record(0.75, 0.625))),
        (cell("four_tokens", 1), CellState("complete", record(1.0, 0.875))),
        (cell("control", 0), CellState("complete", record(0.25, 0.5))),
        (cell("control", 1), CellState("failed", record(0.0, 0.0))),
    ]
    majority, rows = shortcuts_of(results)
    assert majority == 0.5
    assert [(row.method, row.accuracies, row.probes) for row in rows] == [
        ("four_tokens", [0.75, 1.0], [0.625, 0.875]),
        ("control", [0.25], [0.5]),
    ]
    assert shortcuts_of([(cell("m", 0), CellState("complete", {"test": {"test/accuracy": 1.0}}))]) is None
    figure = shortcuts({"sst": (majority, rows)}, "t")
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if patch.get_gid() == "gain"]
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0.5, 0.375), (0.5, -0.25)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["four tokens", "control"]
    assert lines(figure, "majority")[0].get_xdata() == [0.5, 0.5]
    assert [list(drawn.get_xdata()) for drawn in lines(figure, "runs")] == [[0.75, 1.0], [0.25]]
    assert [list(drawn.get_xdata()) for drawn in lines(figure, "probes")] == [[0.625, 0.875], [0.5]]
