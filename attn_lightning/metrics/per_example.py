"""The thin class behind every measurement that gives one number per example: mean, deviation and how many count."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from attn_lightning.metrics.measure import Measure

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor as a NumPy array on the CPU; half precision becomes float32, which NumPy has no bfloat16 for.

    Call it once per batch: feeding NumPy one example of a tensor after the other is what makes measurements slow.
    """
    tensor = tensor.detach()
    # NumPy has no bfloat16; float16 it has, but sums in it overflow at 65504.
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


class PerExampleMetric(Metric):
    """Mean and standard deviation of one number per example, over the examples for which it is defined.

    Three sums are kept (count, sum, sum of squares, in float64), so results depend neither on the batch size nor on the
    order, need no memory for long splits, and add up over processes under DDP.

    A subclass names its `declared` measure and calls `add` from its `update`. `compute` gives a dict, so log
    `compute()` at the end of the epoch and `reset()` afterwards, rather than the object itself.

    Attributes:
        declared: the measure of one example.
    """

    full_state_update = False
    is_differentiable = False
    declared: ClassVar[Measure]

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        for state in ("count", "total", "squares"):
            # In float32 the sums of a long split would lose the digits that tell two models apart.
            self.add_state(state, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, values: FloatArray) -> None:
        """Add a batch.

        Args:
            values: (B,) one number per example, NaN where it is undefined.
        """
        # Left out here and counted, so that a mean says over how many examples it goes.
        kept = values[~np.isnan(values)].astype(np.float64)
        for state, added in (("count", len(kept)), ("total", kept.sum()), ("squares", (kept**2).sum())):
            setattr(self, state, getattr(self, state) + float(added))

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the keys of `compute()` mean."""
        return self.declared.over_examples()

    def compute(self) -> dict[str, Tensor]:
        """The results.

        Returns:
            `<name>_mean`, `<name>_std` (over examples, divided by n as NumPy does) and `<name>_n_valid`. Mean and
            deviation of no examples are NaN.
        """
        mean = self.total / self.count
        # The difference of two near numbers may come out as -1e-17, whose root is NaN.
        deviation = (self.squares / self.count - mean**2).clamp_min(0).sqrt()
        values = (mean.float(), deviation.float(), self.count.float())
        return {measure.name: value for measure, value in zip(self.measures, values, strict=True)}
