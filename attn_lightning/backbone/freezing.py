"""Parameters that stand still for a while, without a word to the optimizer or to DDP."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def constant(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Take parameters as constants in the passes of the block, and restore their flags.

    A pass below which nothing learns keeps no graph. Where only a gradient by activations is wanted, `autograd.grad`
    skips parameters by itself only in torch's own operations: a fused LSTM or a custom function computes their
    gradients on the way, which costs half as many products again.

    Args:
        parameters: those of a model, or of a part of it; one that does not learn anyway stays as it is.
    """
    # A list, as the flags that the filter reads are about to change.
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in learned:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_()


def kept_in_graph(value: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The same value, with parameters in its graph that get no gradient from it.

    DDP waits in every backward pass for all parameters that could learn when it wrapped the model. These report
    without a gradient: their `.grad` stays None on one process, and DDP makes zeros of it on several.

    Args:
        value: a scalar.
        parameters: those that had no part in it.
    """
    kept: Tensor = _KeptInGraph.apply(value, *parameters)  # type: ignore[no-untyped-call]
    return kept


class _KeptInGraph(torch.autograd.Function):
    """The identity of its first argument."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *parameters: Tensor) -> Tensor:
        ctx.num_parameters = len(parameters)
        # A view: autograd takes an input that is returned unchanged for an output without a function.
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (gradients[0], *[None] * ctx.num_parameters)
