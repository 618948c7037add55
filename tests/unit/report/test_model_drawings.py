"""What drawings of a model show, against the numbers they were given."""

import numpy as np

from attn_lightning.metrics.selective import OUTCOMES
from attn_lightning.report.model_drawings import (
    ImageMosaic,
    PlaneMosaics,
    decision_regions,
    evidence_density,
    mosaic_grid,
)
from attn_lightning.report.model_figures import field as asked
from attn_lightning.report.style import render

NAMES = ("a", "b", "c")


def test_regions_show_the_field_and_every_segment(lines, mosaic_model):
    random = np.random.default_rng(0)
    points, attention = random.random((6, 3, 2)), random.dirichlet(np.ones(3), 6)
    foreground = np.eye(3, dtype=bool)[[0, 1, 2, 0, 1, 2]]
    mosaics = PlaneMosaics(points, attention, foreground, np.array([0, 0, 1, 2, 1, 0]), points.mean(1))
    field = asked(mosaic_model(), np.zeros(2), np.ones(2), resolution=6)
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
    for outcome, count in zip(OUTCOMES, outcomes[5:].sum(0), strict=True):
        assert f"{outcome.name.upper()}  {int(count)}  ({100 * count / 45:.1f} %)" in text
    assert "45 examples; 5 without rationale or label left out" in text


def test_density_of_nothing_defined_is_empty_not_an_error():
    nothing = np.full(3, np.nan)
    figure = evidence_density(nothing, nothing, np.full((3, 4), np.nan), "t")
    assert "0 examples; 3 without" in figure.axes[1].texts[0].get_text()
    render(figure, "png")


def test_mosaics_show_every_weight_the_foreground_and_the_prediction(lines):
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
