"""Which recurrent kernels run: cuDNN's only where they have a backward pass, those of bfloat16 where a CPU has them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

NO_KERNELS = (
    "this CPU has no instructions for products of bfloat16 (avx512_bf16), and without them it is the slower type"
)
"""Why a recurrent encoder stays in float32 under autocast."""


def recurrent_kernels(model: nn.Module, embeddings: Tensor, *, twice: bool = False) -> AbstractContextManager[None]:
    """CuDNN off where its RNNs cannot be differentiated: in eval mode, and for gradients of gradients.

    It must be off in the forward pass; the backward pass takes the kernels that the forward pass took.

    Args:
        model: the RNN, or what contains it.
        embeddings: its input; without a graph to it there is nothing to differentiate.
        twice: whether a gradient will be differentiated again.
    """
    # Only with a graph to the input: in eval mode without one cuDNN stays on, which is several times faster.
    explained = torch.is_grad_enabled() and embeddings.requires_grad
    if embeddings.is_cuda and (twice or (explained and _has_rnn_in_eval_mode(model))):
        return torch.backends.cudnn.flags(enabled=False)
    return nullcontext()


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 numbers, and torch the kernels that use them."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported()


def cpu_recurrence_type(weights: torch.dtype) -> torch.dtype:
    """The type in which a recurrence on a CPU runs: that of autocast where the CPU is faster in it.

    Args:
        weights: type of the weights; only float32 is ever replaced, as autocast does everywhere.
    """
    asked = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weights
    follows = weights == torch.float32 and asked == torch.bfloat16 and multiplies_bfloat16()
    return asked if follows else weights


def _has_rnn_in_eval_mode(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) and not module.training for module in model.modules())
