"""The sums behind every measurement per example, against NumPy on all values at once."""

import numpy as np
import pytest
import torch

from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import PerExampleMetric, to_array


class Metric(PerExampleMetric):
    """Takes the numbers as they are."""

    declared = Measure("x", "a number")

    def update(self, values):
        self.add(to_array(values))


def found(metric):
    return {name: value.item() for name, value in metric.compute().items()}


VALUES = torch.tensor([0.5, float("nan"), -2.0, 4.0, 0.0, float("nan"), 1.0])


@pytest.mark.parametrize("size", [1, 3, 7])
def test_mean_deviation_and_count_of_what_is_defined_whatever_the_batches(size):
    metric = Metric()
    for batch in VALUES.split(size):
        metric.update(batch)
    kept = VALUES.numpy()[~np.isnan(VALUES.numpy())]
    assert found(metric) == pytest.approx({"x_mean": kept.mean(), "x_std": kept.std(), "x_n_valid": 5})


def test_a_long_split_of_nearly_equal_values_keeps_its_deviation():
    """In float32 the two sums would agree to all their digits, and the deviation would be 0."""
    metric = Metric()
    values = torch.tensor([1000.0, 1000.125], dtype=torch.float64).repeat(5000)
    metric.update(values)
    assert found(metric)["x_std"] == pytest.approx(0.0625, rel=1e-3)


def test_nothing_defined_is_nan_with_a_count_of_0():
    metric = Metric()
    metric.update(torch.full((3,), torch.nan))
    assert found(metric) == pytest.approx({"x_mean": np.nan, "x_std": np.nan, "x_n_valid": 0}, nan_ok=True)


def test_half_precision_that_numpy_lacks_becomes_float32():
    assert to_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).dtype == np.float32
    assert to_array(torch.ones(2, dtype=torch.int64)).dtype == np.int64
