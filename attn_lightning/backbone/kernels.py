"""Which kernels run: cuDNN's only where they have a backward pass, others where they are the faster ones."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

NO_KERNELS = (
    "this CPU has no instructions for products of bfloat16 (avx512_bf16), and without them it is the slower type"
)
"""Why a recurrent encoder stays in float32 under autocast."""

_FUSED_FROM = 128
"""Places of a text from which on fused attention in half precision is kept: plain attention would fill the memory."""


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


def plain_attention_pays(inputs: Tensor) -> bool:
    """Whether attention of a transformer should run as plain products, not by torch's fused kernel.

    In half precision on a CPU the backward pass of the fused kernel takes about 0.05 ms per text and head, however
    short the text is: 32 texts of 12 heads and 40 places 46 ms, the plain products 2 ms (forward 4.5 and 1.8 ms;
    `tests/benchmarks/bench_pretrained.py`). The gain shrinks with the length, and the products keep a square of the
    length for every head.

    Args:
        inputs: (N, L, E) of the layers.
    """
    if inputs.device.type != "cpu" or inputs.shape[1] >= _FUSED_FROM:
        return False
    computed = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
    return computed in (torch.bfloat16, torch.float16)


def _has_rnn_in_eval_mode(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) and not module.training for module in model.modules())
