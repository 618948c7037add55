"""Prediction metrics, against scikit-learn on the whole split."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from sklearn.preprocessing import label_binarize

from attn_lightning.metrics.prediction import prediction_metrics


def split(num_classes, seed=0, size=300, ties=False):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, num_classes, generator=generator) * 2
    labels = (logits + 3 * torch.randn(size, num_classes, generator=generator)).argmax(1)
    return logits.round() if ties else logits, labels


def results(metrics):
    return {name: value.item() for name, value in metrics.compute().items()}


def expected_calibration_error(p, y, bins=15):
    confidence, right, error = p.max(1), p.argmax(1) == y, 0.0
    for low in range(bins):
        inside = np.minimum((confidence * bins).astype(int), bins - 1) == low
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return error


def reference(logits, labels):
    p, y, num_classes = logits.double().softmax(1).numpy(), labels.numpy(), logits.shape[1]
    predicted = p.argmax(1)
    scores = p[:, 1] if num_classes == 2 else p
    binary = y if num_classes == 2 else label_binarize(y, classes=range(num_classes))
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(y, predicted),
        "macro_f1": sklearn_metrics.f1_score(y, predicted, average="macro"),
        "auroc": sklearn_metrics.roc_auc_score(y, scores, multi_class="ovr"),
        "average_precision": sklearn_metrics.average_precision_score(binary, scores),
        "log_loss": sklearn_metrics.log_loss(y, p),
        "ece": expected_calibration_error(p, y),
    }
    if num_classes == 2:
        expected["f1"] = sklearn_metrics.f1_score(y, predicted)
    return expected


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_equals_scikit_learn_whatever_the_batches(num_classes, ties):
    logits, labels = split(num_classes, ties=ties)
    metrics = prediction_metrics(num_classes)
    for rows in torch.arange(len(labels)).split(64):
        metrics.update(logits[rows], labels[rows])
    assert results(metrics) == pytest.approx(reference(logits, labels), abs=1e-6)


def test_logarithms_of_probabilities_do_as_well_as_logits():
    logits, labels = split(2)
    metrics, same = prediction_metrics(2), prediction_metrics(2)
    metrics.update(logits, labels)
    same.update(logits.log_softmax(1), labels)
    assert results(same) == pytest.approx(results(metrics), abs=1e-6)


def test_logits_between_0_and_1_are_not_taken_for_probabilities():
    logits, labels = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)), split(2, size=200)[1]
    metrics = prediction_metrics(2)
    metrics.update(logits, labels)
    assert results(metrics) == pytest.approx(reference(logits, labels), abs=1e-6)


def test_very_confident_predictions_are_neither_tied_nor_infinite():
    logits = torch.tensor([[0.0, 20.0], [0.0, 21.0], [0.0, 22.0], [0.0, 200.0]])
    labels = torch.tensor([0, 1, 1, 0])
    metrics = prediction_metrics(2)
    metrics.update(logits, labels)
    values = results(metrics)
    assert values["log_loss"] == pytest.approx(220 / 4)
    assert values["auroc"] == 0.5


def undefined_split(num_classes, label):
    metrics = prediction_metrics(num_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.update(
            split(num_classes)[0].abs() * torch.tensor([1.0] + [-1.0] * (num_classes - 1)), torch.full((300,), label)
        )
        return results(metrics)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_one_class_only_is_nan_without_a_warning(num_classes):
    values = undefined_split(num_classes, label=0)
    undefined = {name for name, value in values.items() if math.isnan(value)}
    assert undefined == {"auroc", "average_precision"} | ({"f1"} if num_classes == 2 else set())
    assert values["accuracy"] == 1.0


def test_f1_is_0_where_there_was_something_to_find():
    assert undefined_split(2, label=1)["f1"] == 0.0


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    logits, labels = split(3)
    labels = labels.clamp(max=1)
    metrics = prediction_metrics(3)
    metrics.update(logits, labels)
    p = logits.double().softmax(1).numpy()
    areas = [sklearn_metrics.roc_auc_score(labels.numpy() == c, p[:, c]) for c in range(2)]
    assert results(metrics)["auroc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_prefix_reset_clone_and_values_of_one_batch():
    logits, labels = split(2)
    metrics = prediction_metrics(2, prefix="val/")
    first = metrics(logits[:100], labels[:100])
    whole = reference(logits[:100], labels[:100])
    assert {name: value.item() for name, value in first.items()} == pytest.approx(
        {f"val/{name}": value for name, value in whole.items()}, abs=1e-6
    )
    metrics.reset()
    metrics.update(logits, labels)
    clone = metrics.clone(prefix="test/")
    assert results(clone)["test/auroc"] == results(metrics)["val/auroc"]


def test_one_example_works():
    metrics = prediction_metrics(2)
    metrics.update(torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    values = results(metrics)
    assert values["accuracy"] == values["f1"] == 1.0
    assert values["log_loss"] == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_every_metric_is_declared_and_torchmetrics_agrees_on_its_direction(num_classes):
    metrics = prediction_metrics(num_classes)
    directions = {name: metric.higher_is_better for name, metric in metrics.items()}
    assert {measure.name: measure.higher_is_better for measure in metrics.measures} == directions
    assert {name for name, higher in directions.items() if not higher} == {"log_loss", "ece"}


@pytest.mark.parametrize("num_classes", [2, 3])
def test_states_of_processes_add_up(num_classes):
    logits, labels = split(num_classes)
    expected = reference(logits, labels)
    probabilities = logits.double().softmax(1)
    for name, metric in prediction_metrics(num_classes).items():
        other = metric.clone()
        metric.update(probabilities[:37], labels[:37])
        other.update(probabilities[37:], labels[37:])
        metric.merge_state(other)
        assert metric.compute().item() == pytest.approx(expected[name], abs=1e-6)
