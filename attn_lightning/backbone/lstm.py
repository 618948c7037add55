"""Bidirectional LSTMs over batches of different lengths, by torch's kernels: packed for CUDA, padded for a CPU.

Both compute the same function, in which padding takes no part. Which is faster differs: cuDNN has a kernel for packed
sequences, while on a CPU their backward pass zero-fills the whole batch at every time step
(https://github.com/pytorch/pytorch/issues/149194). There two padded directions through oneDNN are several times
faster, and since batches are made of texts of similar length, little of that work is spent on padding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attn_lightning.backbone.input_gradient import FEWEST_TEXTS, InputGradientLSTM

# `nn.LSTM.parameters()` lists `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh` of a direction, forward before backward.
PER_DIRECTION = 4


def packed_lstm(lstm: nn.LSTM, inputs: Tensor, mask: Tensor) -> Tensor:
    """Torch's own bidirectional LSTM on packed sequences.

    Args:
        lstm: bidirectional and batch first.
        inputs: (B, T, E); values at padding are ignored.
        mask: (B, T) bool, real tokens first and at least one of them.

    Returns:
        (B, T, 2 * H), 0 at padding.
    """
    packed = pack_padded_sequence(inputs, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
    return states


def padded_lstm(lstm: nn.LSTM, inputs: Tensor, mask: Tensor, twice: bool = True) -> Tensor:
    """The same function as `packed_lstm`, over all B * T places.

    The backward direction reads every row reversed within its own length, so that it meets padding last, as the
    forward direction does. A state of a real token has then seen real tokens only.

    Args:
        lstm: bidirectional and batch first.
        inputs: (B, T, E), in the type in which all is computed: weights are cast to it, and their gradients come back
            in their own. Values at padding are ignored.
        mask: (B, T) bool, real tokens first and at least one of them.
        twice: can be differentiated twice; without it a CPU saves the gradients of constant weights.

    Returns:
        (B, T, 2 * H) in the type of the inputs, 0 at padding.
    """
    rows, width = mask.shape
    padding = ~mask.unsqueeze(-1)
    positions = torch.arange(width, device=mask.device)
    # One index into the flattened batch: torch takes a much faster kernel for it than for an index per dimension.
    mirrored = torch.where(mask, mask.sum(1, keepdim=True) - 1 - positions, positions)
    mirrored = (mirrored + width * torch.arange(rows, device=mask.device).unsqueeze(1)).flatten()
    weights, states = [weight.to(inputs.dtype) for weight in lstm.parameters()], inputs
    run = _one_way if twice or not _differentiates_inputs_alone(inputs, weights) else InputGradientLSTM.apply
    for first in range(0, len(weights), 2 * PER_DIRECTION):
        states = _zero_at_padding(states, mask)
        ahead = run(states, weights[first : first + PER_DIRECTION])
        back = run(_reorder(states, mirrored), weights[first + PER_DIRECTION : first + 2 * PER_DIRECTION])
        # In place, as a copy of the states of a long batch is a noticeable part of a step's memory.
        states = torch.cat([ahead, _reorder(back, mirrored)], dim=-1).masked_fill_(padding, 0.0)
    return states


def _differentiates_inputs_alone(inputs: Tensor, weights: Sequence[Tensor]) -> bool:
    if inputs.device.type != "cpu" or inputs.dtype not in (torch.float32, torch.float64):
        return False
    learns = any(weight.requires_grad for weight in weights)
    return torch.is_grad_enabled() and inputs.requires_grad and not learns and len(inputs) >= FEWEST_TEXTS


def _zero_at_padding(inputs: Tensor, mask: Tensor) -> Tensor:
    """The (B, T, E) inputs, with zeros where they hold anything else at padding.

    What padding holds must be finite: in the gradients of the weights it is multiplied by zero.
    """
    # Word vectors are zero there already, and the copy would be kept for the backward pass. To look is to wait for a
    # GPU, and only a CPU looks for less than it copies.
    if inputs.device.type == "cpu" and not bool(inputs[~mask].any()):
        return inputs
    return inputs.masked_fill(~mask.unsqueeze(-1), 0.0)


def _reorder(tensor: Tensor, places: Tensor) -> Tensor:
    """(B, T, S) with place `places[i]` of the flattened (B * T) batch at place i."""
    return tensor.flatten(0, 1).index_select(0, places).view_as(tensor)


def _one_way(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """(B, T, H) states of one direction, from a start of zeros."""
    start = inputs.new_zeros(1, inputs.shape[0], weights[1].shape[1])
    # Flags: biases, one layer, no dropout, training (keeps what the backward pass needs), one direction, batch first.
    states: Tensor = torch.lstm(inputs, (start, start), list(weights), True, 1, 0.0, True, False, True)[0]
    return states
