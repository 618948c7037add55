"""What a model says is measured as a plain loop would, and the data decides which figures there are."""

import numpy as np
import pytest
import torch

from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.evaluation.subject import Subject
from attn_lightning.metrics.selective import OUTCOMES
from attn_lightning.report import model_figures as measured

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_field_is_the_model_asked_point_by_point(layer, mosaic_model):
    network = mosaic_model(layer)
    low, high = np.array([-2.0, 1.0]), np.array([3.0, 4.0])
    found = measured.field(network, low, high, resolution=5, token_budget=7)
    assert (found.x[0], found.x[-1], found.y[0], found.y[-1]) == (-2, 3, 1, 4)
    with torch.no_grad():
        for row, y in enumerate(found.y):
            for column, x in enumerate(found.x):
                output = network(torch.tensor([[[x, y]]], dtype=torch.float32), torch.ones(1, 1, dtype=torch.bool))
                assert found.scores[row, column] == pytest.approx(output.scores.item(), abs=1e-5)
                assert found.probabilities[row, column] == pytest.approx(output.logits.softmax(-1)[0], abs=1e-5)


@pytest.mark.parametrize(("layer", "shown"), [(0, True), (1, False), (2, False)])
def test_averages_are_shown_where_they_are_places_of_the_plane(layer, shown, mosaic_subject):
    figures, reasons = measured.model_figures(mosaic_subject(layer), NAMES, "t")
    assert set(figures) == {"density", "regions"}
    assert set(reasons) == {"mosaics"}
    gids = {str(line.get_gid()) for line in figures["regions"].axes[1].lines}
    assert any(gid.startswith("averages") for gid in gids) == shown


def test_readings_are_those_of_a_plain_loop_whatever_the_batch(mosaic_subject):
    given = mosaic_subject()
    found = measured.read(given)
    assert np.array_equal(found.outcomes, measured.read(mosaic_subject(batch_size=7, token_budget=9)).outcomes)
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
        assert OUTCOMES[int(found.outcomes[row].argmax())].name == name


def test_damaged_weights_and_empty_splits_are_errors(mosaic_subject, mosaic_model, mosaic_examples):
    broken = mosaic_subject()
    with torch.no_grad():
        broken.model.classifier.layers[0].weight.fill_(float("nan"))
    with pytest.raises(NumericalError, match="row"):
        measured.read(broken)
    with pytest.raises(ConfigurationError, match="without any"):
        measured.model_figures(Subject(mosaic_model(), mosaic_examples(0), 3), NAMES, "t")


def test_images_come_out_of_the_data_as_they_went_in(mosaic_subject, mosaic_examples):
    given = mosaic_subject(shape=(3, 4, 4))
    figures, reasons = measured.model_figures(given, NAMES, "t")
    assert set(figures) == {"density", "mosaics"}
    assert set(reasons) == {"regions"}
    shown = [np.asarray(image.get_array()) for axes in figures["mosaics"].axes for image in axes.images]
    pixels = (np.moveaxis(given.examples.pool.values, 1, -1) + 1) / 2
    assert shown
    assert all((np.abs(pixels - image).max((1, 2, 3)) < 1e-6).any() for image in shown)
    wide = Subject(given.model, mosaic_examples(shape=(3, 4, 4)), 3)
    wide.examples.pool.values *= 3
    with pytest.raises(ConfigurationError, match="-1, 1"):
        measured.model_figures(wide, NAMES, "t")
