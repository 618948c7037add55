"""What the figures show, against the numbers they were given; that files are the same twice and never overwritten."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from attn_lightning.backbone import AttentionClassifier
from attn_lightning.backbone.segments import FullyConnectedClassifier, FullyConnectedFocus
from attn_lightning.data.segments import MosaicExamples, Mosaics, Points
from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.evaluation.subject import Subject
from attn_lightning.metrics.selective import OUTCOMES
from attn_lightning.metrics.statistics import bootstrap_interval
from attn_lightning.report import model_figures as measured
from attn_lightning.report.figures import (
    Curve,
    ImageMosaic,
    PlaneMosaics,
    Strip,
    decision_regions,
    evidence_density,
    mosaic_grid,
    robustness_curves,
    shortcuts,
    strips,
)
from attn_lightning.report.study_figures import curves_of, shortcuts_of, strips_of
from attn_lightning.report.style import file_name, plain, render, write
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState
from attn_lightning.types import DataSpec

NAMES = ("a", "b", "c")


def model(layer: int = 0, shape: tuple[int, ...] = (2,)) -> AttentionClassifier:
    torch.manual_seed(3)
    return AttentionClassifier(
        DataSpec(3, 0, int(np.prod(shape)), NAMES, segment_shape=shape),
        focus=lambda s: FullyConnectedFocus(s, widths=(5, 4), layer=layer),
        classifier=lambda s, classes: FullyConnectedClassifier(s, classes, widths=(6,)),
    ).eval()


def examples(count: int = 30, shape: tuple[int, ...] = (2,)) -> MosaicExamples:
    random = np.random.default_rng(5)
    pool = Points(random.uniform(-1, 1, (count * 4, *shape)), random.integers(0, 3, count * 4))
    places, position = np.arange(count * 4).reshape(count, 4), random.integers(0, 4, count)
    return MosaicExamples(pool, Mosaics(places, pool.classes[places[np.arange(count), position]], position))


def subject(layer: int = 0, shape: tuple[int, ...] = (2,), **options: int) -> Subject:
    return Subject(model(layer, shape), examples(shape=shape), 3, **options)


def lines(figure: Figure, name: str) -> list:
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == name]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_field_is_the_model_asked_point_by_point(layer):
    network = model(layer)
    low, high = np.array([-2.0, 1.0]), np.array([3.0, 4.0])
    found = measured.field(network, low, high, resolution=5, token_budget=7)
    assert (found.x[0], found.x[-1], found.y[0], found.y[-1]) == (-2, 3, 1, 4)
    with torch.no_grad():
        for row, y in enumerate(found.y):
            for column, x in enumerate(found.x):
                output = network(torch.tensor([[[x, y]]], dtype=torch.float32), torch.ones(1, 1, dtype=torch.bool))
                assert found.scores[row, column] == pytest.approx(output.scores.item(), abs=1e-5)
                assert found.probabilities[row, column] == pytest.approx(output.logits.softmax(-1)[0], abs=1e-5)


def test_regions_show_the_field_and_every_segment():
    random = np.random.default_rng(0)
    points, attention = random.random((6, 3, 2)), random.dirichlet(np.ones(3), 6)
    foreground = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    mosaics = PlaneMosaics(points, attention, foreground, np.array([0, 0, 1, 2, 1, 0]), points.mean(1))
    field = measured.field(model(), np.zeros(2), np.ones(2), resolution=6)
    figure = decision_regions(field, mosaics, NAMES, "t")
    focus, classifier = figure.axes[0], figure.axes[1]
    assert np.array_equal(focus.images[0].get_array(), field.scores)
    shown = np.asarray(classifier.images[0].get_array())
    best = field.probabilities.argmax(-1)
    hues = {label: {tuple(np.argsort(color)) for color in shown[best == label]} for label in np.unique(best)}
    assert all(len(orders) == 1 for orders in hues.values())
    for axes in (focus, classifier):
        parts = [line for line in axes.lines if str(line.get_gid()).startswith(("background", "foreground"))]
        assert sum(len(line.get_xdata()) for line in parts) == 18
    (of_class,) = [line for line in classifier.lines if line.get_gid() == "foreground_1"]
    assert np.allclose(of_class.get_xydata(), [points[2, 2], points[4, 1]])
    wrong = [points[k, attention[k].argmax()] for k in range(6) if not foreground[k, attention[k].argmax()]]
    assert np.allclose(lines(figure, "mistaken")[0].get_xydata(), np.reshape(wrong, (-1, 2)))
    averages = np.concatenate(
        [line.get_xydata() for axes in figure.axes for line in axes.lines if "averages" in str(line.get_gid())]
    )
    means = points.mean(1)
    assert np.allclose(averages[averages[:, 0].argsort()], means[means[:, 0].argsort()])


@pytest.mark.parametrize(("layer", "shown"), [(0, True), (1, False), (2, False)])
def test_averages_are_shown_where_they_are_places_of_the_plane(layer, shown):
    figures, reasons = measured.model_figures(subject(layer), NAMES, "t")
    assert set(figures) == {"density", "regions"}
    assert set(reasons) == {"mosaics"}
    gids = {str(line.get_gid()) for line in figures["regions"].axes[1].lines}
    assert any(gid.startswith("averages") for gid in gids) == shown


def test_readings_are_those_of_a_plain_loop_whatever_the_batch():
    given = subject()
    found = measured.read(given)
    assert np.array_equal(found.outcomes, measured.read(subject(batch_size=7, token_budget=9)).outcomes)
    mosaics = given.examples.mosaics
    for row in range(30):
        with torch.no_grad():
            batch = given.examples[[row]]
            output = given.model(batch.tokens, batch.mask)
        z, label = mosaics.foreground[row], mosaics.labels[row]
        assert found.weights[row] == pytest.approx(output.attention[0, z].item(), abs=1e-6)
        assert found.probabilities[row] == pytest.approx(output.logits.softmax(-1)[0, label].item(), abs=1e-6)
        focus, right = output.attention[0].argmax() == z, output.logits[0].argmax() == label
        name = ("ft" if focus else "ff") + ("pt" if right else "pf")
        assert OUTCOMES[int(found.outcomes[row].argmax())] == name


def test_damaged_weights_and_empty_splits_are_errors():
    broken = subject()
    with torch.no_grad():
        broken.model.classifier.layers[0].weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="row"):
        measured.read(broken)
    with pytest.raises(ConfigurationError, match="without any"):
        measured.model_figures(Subject(model(), examples(0), 3), NAMES, "t")


def test_density_counts_every_defined_example_and_its_outcome():
    random = np.random.default_rng(1)
    weights, probabilities = random.random(50), random.random(50)
    outcomes = np.eye(4)[random.integers(0, 4, 50)]
    weights[:2], probabilities[1:4], outcomes[4] = np.nan, np.nan, np.nan
    weights[5], probabilities[5] = 1.0, 0.0
    figure = evidence_density(weights, probabilities, outcomes, "t")
    cells = figure.axes[0].collections[0].get_array()
    assert cells.sum() == 45
    assert cells.reshape(40, 40)[0, 39] >= 1
    (text,) = [text.get_text() for text in figure.axes[1].texts]
    for name, count in zip(OUTCOMES, outcomes[5:].sum(0), strict=True):
        assert f"{name.upper()}  {int(count)}  ({100 * count / 45:.1f} %)" in text
    assert "45 examples; 5 without evidence or label left out" in text


def test_density_of_nothing_defined_is_empty_not_an_error():
    nothing = np.full(3, np.nan)
    figure = evidence_density(nothing, nothing, np.full((3, 4), np.nan), "t")
    assert "0 examples; 3 without" in figure.axes[1].texts[0].get_text()
    render(figure, "png")


def test_mosaics_show_every_weight_the_foreground_and_the_prediction():
    random = np.random.default_rng(2)
    mosaic = ImageMosaic(random.random((5, 4, 4, 3)), np.array([0.5, 0.25, 0.25, 0, 0]), 1, "cat", "b$d", 0.75)
    figure = mosaic_grid({"FTPT": [mosaic], "FFPF": []}, "t")
    (axes,) = [axes for axes in figure.axes if axes.images]
    assert [text.get_text() for text in axes.texts] == ["0.50", "0.25", "0.25", "0.00", "0.00"]
    assert np.array_equal(axes.images[3].get_array(), mosaic.images[3])
    frames = [patch.get_width() for patch in axes.patches]
    assert frames[0] > frames[1] == frames[2]
    assert all(axes.images[0].zorder > patch.zorder for patch in axes.patches)
    left, right, *_ = axes.images[1].get_extent()
    (z,) = lines(figure, "z")
    assert left < z.get_xdata()[0] < right
    assert "says bd (0.75)" in axes.get_title()
    assert any("none" in text.get_text() for axes in figure.axes for text in axes.texts)


def test_images_come_out_of_the_data_as_they_went_in():
    given = subject(shape=(3, 4, 4))
    figures, reasons = measured.model_figures(given, NAMES, "t")
    assert set(figures) == {"density", "mosaics"}
    assert set(reasons) == {"regions"}
    shown = [np.asarray(image.get_array()) for axes in figures["mosaics"].axes for image in axes.images]
    pixels = (np.moveaxis(given.examples.pool.values, 1, -1) + 1) / 2
    assert shown
    assert all((np.abs(pixels - image).max((1, 2, 3)) < 1e-6).any() for image in shown)
    wide = Subject(given.model, examples(shape=(3, 4, 4)), 3)
    wide.examples.pool.values *= 3
    with pytest.raises(ConfigurationError, match="-1, 1"):
        measured.model_figures(wide, NAMES, "t")


def test_strips_have_a_dot_per_run_and_say_what_is_missing():
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
    assert tuple(intervals[0].get_xdata()) == bootstrap_interval([0.5, 1.0, 0.75])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["m\n3 of 3 runs", "n\n1 of 5 runs, 2 failed, 1 missing, 1 undefined", "o\n0 of 3 runs, 3 failed"]


def cell(method: str, seed: int, data: str = "d") -> Cell:
    return Cell(method, data, "", seed, Path("x.yaml"), (), f"{method}_{data}", False)


def test_runs_of_a_study_become_strips_and_curves():
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


def test_shortcuts_start_at_the_majority_rate():
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


def test_curves_leave_out_strengths_that_a_run_lacks():
    values = np.array([[1.0, 0.5], [0.5, np.nan]])
    figure = robustness_curves({"p": ("epsilon", [Curve("m", np.array([0.0, 1.0]), values)])}, "accuracy", "t")
    assert lines(figure, "mean")[0].get_ydata() == pytest.approx([0.75, 0.5])


def test_names_are_text_and_never_formulas():
    assert plain("a\x1b[31m$x_1$\n") == "a [31mx_1 "
    assert plain("_hidden") == " _hidden"
    assert len(plain("x" * 500)) == 60
    assert (
        file_name("strip", "", "evaluation/a/b[where=scores,epsilon=1.0]")
        == "strip-evaluation-a-b-where=scores-epsilon=1.0"
    )
    assert "/" not in file_name("../../etc")
    figure = strips({"$\\frac{": [Strip("$\\oops{", {0: 1.0})]}, "$m", "$\\frac")
    render(figure, "svg")


def test_files_are_the_same_twice_and_nothing_is_overwritten(tmp_path):
    def made(value: float) -> dict[str, Figure]:
        return {"s": strips({"d": [Strip("m", {0: value, 1: 0.5})]}, "x", "t")}

    first = write(made(0.25), tmp_path / "new")
    assert {path.name for path in first} == {"s.png", "s.svg"}
    before = {path: path.read_bytes() for path in first}
    assert before[tmp_path / "new" / "s.png"].startswith(b"\x89PNG")
    svg = before[tmp_path / "new" / "s.svg"]
    ElementTree.fromstring(svg)
    assert b"<dc:date>" not in svg
    assert write(made(0.25), tmp_path / "new") == first
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write({**made(0.75), "later": made(0.1)["s"]}, tmp_path / "new")
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--output"):
        write(made(0.25), tmp_path / "file")
