"""The bidirectional LSTM of the package: torch's function, computed so that padding costs nothing on a CPU.

Torch's packed sequences are exact but slow there, since their backward pass zero-fills the whole batch at every time
step (https://github.com/pytorch/pytorch/issues/149194). Here the rows are sorted by length, the backward direction
reads each row reversed within its own length, and both directions advance together: step `s` handles the rows that
are longer than `s`, in both directions, and nothing else. The products with the input and all weight gradients are
single matrix products over the real tokens.

Legend of this file: N real tokens of the batch in the order of the steps, H states per direction, S steps. "Slots"
are the 2 N places of a (2, N, ...) tensor: first the forward direction, then the backward one.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Schedule(NamedTuple):
    """Which token each step of both directions handles.

    Attributes:
        sizes: rows that take part in each of the S steps, never increasing; their sum is N.
        source: (2 * N,) place in the flattened (B * T) batch that each slot reads.
        slots: (2, B * T) slot of each place in each direction, 2 * N where the place is padding.
        previous: (N - sizes[0],) for each token after the first step, the token (in 0..N-1) of the step before.
    """

    sizes: list[int]
    source: Tensor
    slots: Tensor
    previous: Tensor


def schedule(mask: Tensor) -> Schedule:
    """The order in which the steps of both directions go through a batch.

    Args:
        mask: (B, T) bool, the real tokens first in every row and at least one of them.
    """
    rows, width = mask.shape
    lengths, order = mask.sum(1).sort(descending=True, stable=True)
    steps = torch.arange(int(lengths[0]), device=mask.device).unsqueeze(1)
    active = steps < lengths
    ahead, back = (order * width + steps)[active], (order * width + lengths - 1 - steps)[active]
    tokens = torch.arange(len(ahead), device=mask.device)
    slots = torch.full((2, rows * width), 2 * len(ahead), device=mask.device)
    slots[0, ahead], slots[1, back] = tokens, tokens + len(ahead)
    numbers = active.flatten().cumsum(0).view_as(active) - 1
    return Schedule(active.sum(1).tolist(), torch.cat([ahead, back]), slots, numbers[:-1][active[1:]])


def packed_lstm(lstm: nn.LSTM, inputs: Tensor, mask: Tensor) -> Tensor:
    """Torch's own bidirectional LSTM on packed sequences.

    Args:
        lstm: bidirectional and batch first.
        inputs: (B, T, E).
        mask: (B, T) bool, real tokens first.

    Returns:
        (B, T, 2 * H), 0 at padding.
    """
    packed = pack_padded_sequence(inputs, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
    return states


def scheduled_lstm(lstm: nn.LSTM, inputs: Tensor, mask: Tensor) -> Tensor:
    """The same function as `packed_lstm`, for a CPU. Can be differentiated twice.

    Args:
        lstm: bidirectional and batch first.
        inputs: (B, T, E), in the type of the weights.
        mask: (B, T) bool, real tokens first.

    Returns:
        (B, T, 2 * H), 0 at padding.
    """
    order, states = schedule(mask), inputs
    weights = list(lstm.parameters())
    for layer in range(lstm.num_layers):
        states = _Layer.apply(states, mask, order, *weights[8 * layer : 8 * layer + 8])  # type: ignore[no-untyped-call]
    return states


def torch_layer(inputs: Tensor, mask: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """One bidirectional layer by torch's differentiable kernels: two padded directions, the second one reversed.

    Args:
        inputs: (B, T, E).
        mask: (B, T) bool, real tokens first.
        weights: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh` of the forward and then of the backward direction.

    Returns:
        (B, T, 2 * H), 0 at padding.
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    order = torch.where(mask, mask.sum(1, keepdim=True) - 1 - positions, positions)
    rows = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1)
    ahead = _one_way(inputs, weights[:4])
    back = _one_way(inputs[rows, order], weights[4:])[rows, order]
    return torch.cat([ahead, back], dim=-1).masked_fill(~mask.unsqueeze(-1), 0.0)


def _one_way(inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    start = inputs.new_zeros(1, inputs.shape[0], weights[1].shape[1])
    states: Tensor = torch.lstm(inputs, (start, start), list(weights), True, 1, 0.0, True, False, True)[0]
    return states


class _Layer(torch.autograd.Function):
    """One bidirectional layer over a schedule: `apply(inputs, mask, order, *weights)`, shapes as in `torch_layer`.

    Gates are kept in the order (output, input, forget, cell): the three with a sigmoid side by side, and the three
    that act through the cell too. Torch's order is (input, forget, cell, output), one roll away.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, order: Schedule, *weights: Tensor) -> Tensor:
        size = weights[1].shape[1]
        input_weights, state_weights = _stack(weights[0], weights[4]), _stack(weights[1], weights[5])
        bias = _stack(weights[2] + weights[3], weights[6] + weights[7]).unsqueeze(1)
        sources = inputs.flatten(0, 1).index_select(0, order.source).unflatten(0, (2, -1))
        gates = torch.baddbmm(bias, sources, input_weights.mT)
        padded, states = _with_zero_row(gates, size)
        kept, squashed = _run(gates, states, state_weights, order.sizes)
        ctx.order = order
        ctx.save_for_backward(inputs, mask, *weights, sources, gates, states, kept, squashed)
        return padded.index_select(0, order.slots.t().flatten()).view(*mask.shape, 2 * size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, mask, *saved = ctx.saved_tensors
        weights, rest = saved[:8], saved[8:]
        if torch.is_grad_enabled():
            return _differentiable_backward(inputs, mask, weights, gradient)
        slopes = _gate_slopes(ctx.order, weights, rest, gradient)
        # Explanations hold the weights constant and ask for the inputs alone: half of the products are not needed then.
        learns = any(ctx.needs_input_grad[3:])
        to_weights = _weight_gradients(ctx.order, slopes, rest) if learns else [None] * 8
        to_inputs = _input_gradient(ctx.order, weights, slopes, inputs.shape) if ctx.needs_input_grad[0] else None
        return to_inputs, None, None, *to_weights


def _run(gates: Tensor, states: Tensor, weights: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """All steps of both directions: fills `states` (2, N, H) and turns `gates` (2, N, 4 H) into activated gates.

    Returns:
        (2, N, H) what each cell kept of its past, `forget * previous cell`, and (2, N, H) `tanh(cell)`.
    """
    kept, squashed, cell = torch.empty_like(states), torch.empty_like(states), torch.empty_like(states)
    sigmoids = gates[..., : 3 * states.shape[2]]
    parts = [gates, sigmoids, *gates.unflatten(2, (4, -1)).unbind(2), states, kept, squashed, cell]
    past_state = past_cell = states[:, :0]
    for rows, gate, sigmoid, out, into, forget, new, state, keep, squash, now in _steps(sizes, parts):
        if past_state.shape[1]:
            gate.baddbmm_(past_state[:, :rows], weights.mT)
        sigmoid.sigmoid_()
        new.tanh_()
        if past_state.shape[1]:
            torch.mul(forget, past_cell[:, :rows], out=keep)
        else:
            keep.zero_()
        torch.addcmul(keep, into, new, out=now)
        torch.tanh(now, out=squash)
        torch.mul(out, squash, out=state)
        past_state, past_cell = state, now
    return kept, squashed


def _gate_slopes(order: Schedule, weights: Sequence[Tensor], saved: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """(2, N, 4 H) gradients of the gates before their activation."""
    _, gates, states, kept, squashed = saved
    size, tokens = states.shape[2], states.shape[1]
    read = torch.cat([2 * order.source[:tokens], 2 * order.source[tokens:] + 1])
    inflow = gradient.reshape(-1, size).index_select(0, read).view_as(states)
    return _run_back(gates, states, kept, squashed, inflow, _stack(weights[1], weights[5]), order.sizes)


def _weight_gradients(order: Schedule, slopes: Tensor, saved: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the eight weights of a layer, in torch's order."""
    sources, _, states, *_ = saved
    past = states.index_select(1, order.previous)
    ahead_x, back_x = _unstack(torch.bmm(slopes.mT, sources))
    ahead_h, back_h = _unstack(torch.bmm(slopes[:, order.sizes[0] :].mT, past))
    ahead_b, back_b = _unstack(slopes.sum(1))
    return [ahead_x, ahead_h, ahead_b, ahead_b, back_x, back_h, back_b, back_b]


def _input_gradient(order: Schedule, weights: Sequence[Tensor], slopes: Tensor, shape: torch.Size) -> Tensor:
    """(B, T, E): every place collects what its two slots sent."""
    padded, per_slot = _with_zero_row(slopes, shape[2])
    torch.bmm(slopes, _stack(weights[0], weights[4]), out=per_slot)
    ahead, back = order.slots
    return padded.index_select(0, ahead).add_(padded.index_select(0, back)).view(shape)


def _run_back(
    gates: Tensor, states: Tensor, kept: Tensor, squashed: Tensor, inflow: Tensor, weights: Tensor, sizes: list[int]
) -> Tensor:
    """All steps backwards: (2, N, 4 H) gradients of the gates before their activation. Overwrites `inflow`.

    The local slopes of all gates are taken at once; a step then only multiplies them with what reaches it.
    """
    slopes, to_cell = _local_slopes(gates, states, kept, squashed)
    forget = gates.unflatten(2, (4, -1))[:, :, 2]
    outputs, others = slopes.unflatten(2, (4, -1))[:, :, 0], slopes.unflatten(2, (4, -1))[:, :, 1:]
    steps = _steps(sizes, [slopes, outputs, others, to_cell, forget, inflow])
    later: tuple[Tensor, Tensor, Tensor] | None = None
    for _, slope, output, other, cell, keep, flow in reversed(steps):
        if later is not None:
            rows = later[0].shape[1]
            flow[:, :rows].baddbmm_(later[0], weights)
        cell.mul_(flow)
        if later is not None:
            cell[:, :rows].addcmul_(later[1], later[2])
        other.mul_(cell.unsqueeze(2))
        output.mul_(flow)
        later = slope, cell, keep
    return slopes


def _local_slopes(gates: Tensor, states: Tensor, kept: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """(2, N, 4 H) `d state / d gate` of the output gate and `d cell / d gate` of the others; `d state / d cell`.

    A sigmoid has the slope `y (1 - y)` and tanh `1 - y^2`; each line is that times the gate's factor, multiplied out.
    """
    out, into, forget, new = gates.unflatten(2, (4, -1)).unbind(2)
    slopes = torch.empty_like(gates)
    d_out, d_into, d_forget, d_new = slopes.unflatten(2, (4, -1)).unbind(2)
    torch.addcmul(states, states, out, value=-1, out=d_out)
    added = into * new
    torch.addcmul(added, added, into, value=-1, out=d_into)
    torch.addcmul(kept, kept, forget, value=-1, out=d_forget)
    torch.addcmul(into, added, new, value=-1, out=d_new)
    return slopes, torch.addcmul(out, states, squashed, value=-1)


def _differentiable_backward(
    inputs: Tensor, mask: Tensor, weights: list[Tensor], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """The same gradients with a graph of their own, for gradients of gradients: by torch's kernels, once more."""
    wanted = [tensor for tensor in (inputs, *weights) if tensor.requires_grad]
    found = iter(torch.autograd.grad(torch_layer(inputs, mask, weights), wanted, gradient, create_graph=True))
    to_inputs, *to_weights = [next(found) if tensor.requires_grad else None for tensor in (inputs, *weights)]
    return to_inputs, None, None, *to_weights


def _stack(ahead: Tensor, back: Tensor) -> Tensor:
    """Weights of both directions as (2, 4 H, ...), the gates in this file's order."""
    both = torch.stack([ahead, back])
    return both.view(2, 4, -1, *ahead.shape[1:]).roll(1, 1).view_as(both)


def _unstack(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(2, 4 H, ...) to one tensor per direction, the gates in torch's order."""
    ahead, back = weights.unflatten(1, (4, -1)).roll(-1, 1).flatten(1, 2)
    return ahead, back


def _with_zero_row(like: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A (2 N + 1, size) tensor whose last row is zero (padding reads it) and a (2, N, size) view of the others."""
    padded = like.new_empty(2 * like.shape[1] + 1, size)
    padded[-1] = 0.0
    return padded, padded[:-1].unflatten(0, (2, -1))


def _steps(sizes: list[int], tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """For every step its number of rows and its part of each (2, N, ...) tensor."""
    return list(zip(sizes, *(tensor.split(sizes, 1) for tensor in tensors), strict=True))
