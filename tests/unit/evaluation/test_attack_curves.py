"""What attacks are asked for and what is kept of them, against plain loops."""

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.spatial.distance import jensenshannon

from attn_lightning.evaluation.attack_curves import CleanBatch, Curve, Finding
from attn_lightning.perturbation.sites import clean_pass
from attn_lightning.types import UNLABELED
from support.texts import random_texts, small_model

LENGTHS = (5, 1, 9, 3, 2, 7)


def clean_batch(labels):
    model, batch = small_model(), random_texts(LENGTHS)[list(range(len(LENGTHS)))]
    return CleanBatch(batch._replace(labels=torch.tensor(labels)), clean_pass(model, batch.tokens, batch.mask))


def test_a_curve_has_its_points_and_the_mean_height_of_each_example():
    curve = Curve({"where": "scores"}, "epsilon", (1.0, 3.0), 2)
    curve.values[0] = [[1, 1], [1, 0], [0, 0]]
    (accuracy, *_) = curve.areas()
    heights = [trapezoid(column, [0, 1, 3]) / 3 for column in curve.values[0].T]
    assert accuracy.value == pytest.approx(np.mean(heights))
    points = [row for row in curve.points() if row.metric == "accuracy"]
    assert [(row.setting["epsilon"], row.value) for row in points] == [(0.0, 1.0), (1.0, 0.5), (3.0, 0.0)]


def test_every_example_is_attacked_once_per_class_to_lead_away_from():
    predicted = clean_batch([0] * 6).predicted.tolist()
    labels = [predicted[0], (predicted[1] + 1) % 3, UNLABELED, *predicted[3:]]
    clean = clean_batch(labels)
    jobs = clean.jobs(("prediction", "label"), token_budget=2 * max(LENGTHS))
    assert all(len(job.rows) <= 2 for job in jobs)
    pairs = [pair for job in jobs for pair in zip(job.rows.tolist(), job.classes.tolist(), strict=True)]
    assert sorted(pairs) == sorted({*enumerate(predicted), (1, labels[1])})
    served = {
        target: sorted(
            row for job in jobs for row, yes in zip(job.rows.tolist(), job.serves[target], strict=True) if yes
        )
        for target in ("prediction", "label")
    }
    assert served == {"prediction": [0, 1, 2, 3, 4, 5], "label": [0, 1, 3, 4, 5]}
    only = clean.jobs(("label",), token_budget=2**16)
    assert sorted(row for job in only for row in job.rows.tolist()) == [0, 1, 3, 4, 5]


def test_what_was_found_is_kept_where_it_belongs():
    clean = clean_batch([0, 1, 2, UNLABELED, 1, 0])
    curve = Curve({}, "epsilon", (1.0,), len(LENGTHS))
    curves = {("scores", "random", "none"): curve, ("scores", "pgd", "label"): Curve({}, "epsilon", (1.0,), 6)}
    clean.record_clean(curves)
    np.testing.assert_array_equal(np.isnan(curves["scores", "pgd", "label"].values[0, 0]), [0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(curve.values[1, 0], np.ones(6))
    everything = clean.everything()
    turned = clean.output.logits.roll(1, 1)
    attention = torch.where(clean.batch.mask, 1 / clean.batch.mask.sum(1, keepdim=True), 0.0)
    clean.record(curves, Finding("scores", "random", 1, everything, turned, attention))
    np.testing.assert_array_equal(curve.values[1, 1], np.zeros(6))
    for row, length in enumerate(LENGTHS):
        ours, uniform = (weights[row, :length].double().numpy() for weights in (clean.output.attention, attention))
        expected = np.nan if length == 1 else jensenshannon(ours, uniform) ** 2
        assert curve.values[2, 1, row] == pytest.approx(expected, abs=1e-6, nan_ok=True)
