"""Controls of a study's tables."""

import math

import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score, log_loss

from attn_lightning.study.controls import LINEAR, MAJORITY, control_values, majority_metrics


def manifest(**labeled):
    splits = {"train": {"classes": {"no": 30, "yes": 70}}, "test": {"classes": {"yes": 6, "no": 4}}}
    return {"splits": splits, **labeled}


@pytest.mark.parametrize(("train", "test"), [((30, 70), (4, 6)), ((5, 3, 2), (1, 0, 9)), ((7, 1, 0), (2, 2, 3))])
def test_the_majority_class_is_the_dummy_of_scikit_learn(train, test):
    labels = [[label for label, count in enumerate(counts) for _ in range(count)] for counts in (train, test)]
    dummy = DummyClassifier(strategy="prior").fit([[0]] * sum(train), labels[0])
    predicted = dummy.predict([[0]] * sum(test))
    found = majority_metrics(train, test)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels[1], predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels[1], predicted, average="macro", zero_division=0))
    if 0 not in train:
        probabilities = dummy.predict_proba([[0]] * sum(test))
        expected = log_loss(labels[1], probabilities, labels=range(len(train)))
        assert found["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_classes_are_matched_by_name_and_labels_that_are_hidden_do_not_count():
    record = {"data": manifest()}
    assert control_values([record], "test/accuracy") == {MAJORITY: [pytest.approx(0.6)]}
    hidden = {"data": manifest(labeled={"classes": {"no": 3, "yes": 2}})}
    assert control_values([hidden], "test/accuracy") == {MAJORITY: [pytest.approx(0.4)]}


def test_every_run_that_has_a_control_gives_a_value():
    linear = {"control": {"tfidf_logistic_regression": {"accuracy": 0.8, "auroc": None}}}
    assert control_values([linear, {}, linear], "test/accuracy") == {LINEAR: [0.8, 0.8]}
    assert control_values([linear], "test/auroc") == control_values([linear], "val/accuracy") == {}


@pytest.mark.parametrize("data", [None, {}, {"splits": {}}, {"splits": {"train": {"rows": 3}, "test": {"rows": 3}}}])
def test_data_that_count_no_classes_have_no_majority(data):
    assert control_values([{"data": data}], "test/accuracy") == {}


def test_what_is_undefined_is_left_out():
    assert math.isnan(majority_metrics((1, 1), (2, 0))["auroc"])
    one = {"splits": {"train": {"classes": {"a": 1, "b": 1}}, "test": {"classes": {"a": 2}}}}
    assert control_values([{"data": one}], "test/auroc") == {}
    assert majority_metrics((1,), (1,)) == majority_metrics((0, 0), (1, 1)) == {}
