"""The task loss and the weights of its classes, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from attn_lightning.errors import ConfigurationError
from attn_lightning.task_loss import class_counts, class_weights_from_counts, cross_entropy


def test_cross_entropy_is_scikit_learns_log_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator) * 3
    labels = torch.arange(20) % 3
    ours = cross_entropy(logits, labels)
    assert ours.shape == (20,)
    expected = log_loss(labels, logits.double().softmax(-1).numpy())
    assert float(ours.mean()) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_half_precision_is_float32():
    assert cross_entropy(torch.zeros(2, 2, dtype=torch.bfloat16), torch.tensor([0, 1])).dtype == torch.float32


def test_class_weights_multiply_each_example():
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    weights = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(cross_entropy(logits, labels, weights), weights[labels] * cross_entropy(logits, labels))


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 2], [7, 2, 5])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(class_weights_from_counts([7, 2, 5], "balanced"), expected, rtol=1e-6)


def test_a_class_without_examples_changes_nothing_for_the_others():
    labels = np.repeat([0, 2], [7, 5])
    first, second = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(class_weights_from_counts([7, 0, 5], "balanced"), [first, 1.0, second], rtol=1e-6)


def test_positive_weight_makes_both_classes_count_alike():
    weights = class_weights_from_counts([30, 10], "positive")
    assert weights.tolist() == [1.0, 3.0]
    assert class_weights_from_counts([30, 10], "none") is None


def test_positive_weight_needs_two_classes():
    with pytest.raises(ConfigurationError, match="2 classes"):
        class_weights_from_counts([1, 2, 3], "positive")


def test_class_counts_need_a_manifest():
    class Counted:
        manifest = {"splits": {"train": {"classes": {"a": 3, "b": 1}}}}  # noqa: RUF012

    assert class_counts(Counted()) == [3, 1]
    Counted.manifest["labeled"] = {"classes": {"a": 2, "b": 2}}
    assert class_counts(Counted()) == [2, 2], "labels that are hidden do not count"
    with pytest.raises(ConfigurationError, match="manifest"):
        class_counts(object())
