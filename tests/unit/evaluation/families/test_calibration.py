"""Prediction metrics over a whole split, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics
from torch import nn

from attn_lightning.evaluation.families.calibration import Calibration
from attn_lightning.evaluation.family import MODEL
from attn_lightning.evaluation.subject import Explained, Subject, no_progress


def question(num_classes, size=200, unlabeled=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, size)
    probabilities = rng.dirichlet(np.ones(num_classes), size)
    probabilities = (probabilities + np.eye(num_classes)[labels]) / 2
    labels[:unlabeled] = -1
    explained = Explained(probabilities, labels, {})
    return Subject(nn.Identity(), range(size), num_classes), explained


def run(subject, explained, advance=no_progress):
    return {row.metric: row for row in Calibration().run(subject, explained, advance)}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_equals_scikit_learn(num_classes):
    subject, explained = question(num_classes)
    rows = run(subject, explained)
    y, p = explained.labels[20:], explained.probabilities[20:]
    one_hot, predicted = np.eye(num_classes)[y], p.argmax(1)
    scores = p[:, 1] if num_classes == 2 else p
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "macro_f1": metrics.f1_score(y, predicted, average="macro"),
        "auroc": metrics.roc_auc_score(y, scores, multi_class="ovr"),
        "average_precision": metrics.average_precision_score(y if num_classes == 2 else one_hot, scores),
        "log_loss": metrics.log_loss(y, p),
        "brier": ((p - one_hot) ** 2).sum(1).mean() / 2,
    }
    if num_classes == 2:
        expected["f1"] = metrics.f1_score(y, predicted)
        assert rows["brier"].value == pytest.approx(metrics.brier_score_loss(y, p[:, 1]))
    assert set(rows) == {*expected, "ece"}
    for metric, value in expected.items():
        assert rows[metric].value == pytest.approx(value, abs=1e-6)
    for row in rows.values():
        assert (row.explainer, row.n_valid, row.n) == (MODEL, 180, 200)
    assert rows["accuracy"].std == pytest.approx((predicted == y).std())


def test_calibration_error_of_a_model_that_is_always_sure_and_right_half_the_time():
    subject, _ = question(2, size=4, unlabeled=0)
    rows = run(subject, Explained(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 1, 1]), {}))
    assert rows["ece"].value == pytest.approx(0.4)


def test_what_the_split_leaves_undefined_has_no_value():
    subject, _ = question(2, size=3, unlabeled=0)
    rows = run(subject, Explained(np.array([[0.9, 0.1]] * 3), np.array([0, 0, 0]), {}))
    for metric in ("auroc", "average_precision", "f1"):
        assert (rows[metric].value, rows[metric].n_valid, rows[metric].n) == (None, 0, 3)
    assert rows["accuracy"].value == 1


def test_a_split_without_labels_has_rows_without_values():
    finished = []
    subject, explained = question(2, size=5, unlabeled=5)
    for row in run(subject, explained, finished.append).values():
        assert (row.value, row.n_valid, row.n) == (None, 0, 5)
    assert sum(finished) == 5


def test_a_certain_mistake_is_infinitely_bad_without_a_warning():
    subject, _ = question(2, size=2, unlabeled=0)
    rows = run(subject, Explained(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]), {}))
    assert rows["log_loss"].value == np.inf
    assert rows["brier"].value == 0.5
