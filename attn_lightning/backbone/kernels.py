"""CuDNN's recurrent kernels, switched off where they have no backward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def recurrent_kernels(model: nn.Module, embeddings: Tensor, *, twice: bool = False) -> AbstractContextManager[None]:
    """CuDNN off where its RNNs cannot be differentiated: in eval mode, and for gradients of gradients.

    It must be off in the forward pass; the backward pass takes the kernels that the forward pass took.

    Args:
        model: the RNN, or what contains it.
        embeddings: its input; without a graph to it there is nothing to differentiate.
        twice: whether a gradient will be differentiated again.
    """
    explained = torch.is_grad_enabled() and embeddings.requires_grad
    if embeddings.is_cuda and (twice or (explained and _has_rnn_in_eval_mode(model))):
        return torch.backends.cudnn.flags(enabled=False)
    return nullcontext()


def _has_rnn_in_eval_mode(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) and not module.training for module in model.modules())
