"""One direction of an LSTM whose weights are constants: only the gradient at its input is computed.

Explanations and attacks differentiate with respect to word vectors, again and again. The backward pass of torch's
kernels on a CPU computes the gradients of all weights beside it, a third of its work, and throws them away.

Legend: B texts, T steps, E inputs, H states. Gates stand in the order output, input, forget, new.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FEWEST_TEXTS = 32
"""Texts below which the steps are too small for Python between them; torch's own kernels are faster (measured)."""


class InputGradientLSTM(torch.autograd.Function):
    """Equal to one direction of `torch.lstm` from a start of zeros; differentiable once, in its input alone.

    Graves and Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042, with `g` the gates before and
    `o, i, f, n` after their functions:

        c_t = f_t c_{t-1} + i_t n_t        h_t = o_t tanh c_t

        dc_t = dh_t o_t (1 - tanh^2 c_t) + dc_{t+1} f_{t+1}        dx_t = W' dg_t
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """(B, T, H) states.

        Args:
            ctx: where autograd keeps what `backward` needs.
            inputs: (B, T, E).
            weights: of the input (4H, E), of the states (4H, H), and the two biases, in torch's order.
        """
        size = weights[1].shape[1]
        # The three gates that take a sigmoid lie side by side then, and one call serves them all.
        to_input, to_state, bias = (each.roll(size, 0) for each in (*weights[:2], weights[2] + weights[3]))
        rows, steps, _ = inputs.shape
        # By steps, so that what one step reads and writes lies together.
        flat = inputs.transpose(0, 1).flatten(0, 1)
        gates = torch.addmm(bias, flat, to_input.T).view(steps, rows, 4 * size)
        cells, bounded, states = (gates.new_empty(steps, rows, size) for _ in range(3))
        for step, (gate, cell, tanh, state) in enumerate(zip(gates, cells, bounded, states, strict=True)):
            if step:
                gate.addmm_(states[step - 1], to_state.T)
            gate[:, : 3 * size].sigmoid_()
            out, into, forget, new = gate.chunk(4, 1)
            torch.mul(into, new.tanh_(), out=cell)
            if step:
                cell.addcmul_(forget, cells[step - 1])
            torch.mul(out, torch.tanh(cell, out=tanh), out=state)
        ctx.save_for_backward(gates, cells, bounded, to_input, to_state)
        return states.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(B, T, E) gradient at the input, from the (B, T, H) gradient at the states."""
        gates, cells, bounded, to_input, to_state = ctx.saved_tensors
        steps, rows, size = cells.shape
        out, into, forget, new = gates.chunk(4, 2)
        # How every gate acts on the cell (the first: on the state), for all steps at once.
        slopes = gates.view(steps, rows, 4, size)
        slopes = slopes - slopes * slopes
        slopes[:, :, 0] *= bounded
        slopes[:, :, 1] *= new
        slopes[1:, :, 2] *= cells[:-1]
        slopes[0, :, 2] = 0.0
        torch.addcmul(into, into * new, new, value=-1, out=slopes[:, :, 3])
        on_cell = out * (1 - bounded * bounded)
        gradient = gradient.transpose(0, 1)
        at_state, later = gradient[-1], torch.zeros_like(cells[0])
        for step in range(steps - 1, -1, -1):
            at_cell = later.addcmul_(at_state, on_cell[step])
            slopes[step, :, 0] *= at_state
            slopes[step, :, 1:] *= at_cell.unsqueeze(1)
            if step:
                at_state = torch.addmm(gradient[step - 1], slopes[step].flatten(1), to_state)
                later = at_cell.mul_(forget[step])
        found = slopes.view(steps * rows, 4 * size) @ to_input
        return found.view(steps, rows, -1).transpose(0, 1), None
