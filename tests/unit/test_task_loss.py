"""The task loss and the weights of its classes, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.task_loss import LossWatch, class_counts, class_weights_from_counts, cross_entropy


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


def test_on_a_cpu_the_first_bad_loss_is_refused_at_once():
    watch = LossWatch(torch.device("cpu"))
    watch.add(torch.tensor(1.0), {"task": torch.tensor(1.0)}, 0, 0)
    with pytest.raises(NumericalError, match=r"task = 1, at = inf at step 1 of epoch 0"):
        watch.add(torch.tensor(float("inf")), {"task": torch.tensor(1.0), "at": torch.tensor(float("inf"))}, 1, 0)


def test_elsewhere_losses_are_looked_at_together_and_the_first_bad_one_is_named():
    # The "meta" device has no numbers, so that looking at one would fail; those given here are on the CPU.
    watch = LossWatch(torch.device("meta"), together=4)
    for step, value in enumerate((1.0, float("nan"), float("inf"))):
        watch.add(torch.tensor(value), {"task": torch.tensor(value)}, step, 7)
    with pytest.raises(NumericalError, match=r"task = nan at step 1 of epoch 7"):
        watch.add(torch.tensor(1.0), {"task": torch.tensor(1.0)}, 3, 7)
    with pytest.raises(NumericalError, match=r"at step 1 of epoch 7"):
        watch.check()


def test_good_losses_are_looked_at_once_and_keep_no_graph():
    watch = LossWatch(torch.device("meta"), together=3)
    leaf = torch.ones((), requires_grad=True)
    for step in range(7):
        watch.add(leaf * 2, {"task": leaf * 2}, step, 0)
        assert all(not value.requires_grad for total, parts, *_ in watch._waiting for value in (total, *parts.values()))
        assert len(watch._waiting) == (step + 1) % 3
    watch.check()
    watch.check()
    assert watch._waiting == []
