"""The orthogonal LSTM: each hidden state is orthogonal to the sum of those before it, so that no two say the same."""

import torch
from torch import Tensor, nn

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.checks import check_numbers
from attn_lightning.numerics import full_precision


class OrthogonalLSTM(Encoder):
    """Bidirectional LSTM whose states are each made orthogonal to the sum of the earlier ones.

    Per direction, with the usual gates of (x_t, h_{t-1}):

        c_t = f_t * c_{t-1} + i_t * tanh(g_t)
        u_t = o_t * tanh(c_t),  m_t = sum_{k < t} h_k
        h_t = u_t - (u_t . m_t) / (m_t . m_t) m_t

    The recurrence goes on with the projected `h_t`; initial states are zero, so `h_1 = u_1`. The mean of the earlier
    states in place of their sum gives the same projection.

    Source: Mohankumar et al. 2020, https://arxiv.org/abs/2004.14243 (the orthogonal LSTM). Own choice: each direction
    is made orthogonal on its own, and the second one reads every text backwards from its last real token.

    Cost: a Python loop over the tokens of the longest text in the batch, both directions and all rows in one step;
    some ten small tensor operations per step, so several times a plain LSTM. Always in float32 at least, also under
    autocast, because a projection in half precision leaves states that are not orthogonal. Can be differentiated
    twice.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: states per direction, so that D is twice that.

    Attributes:
        lstm: the `torch.nn.LSTM` that owns the weights, as in `BiLSTM`; only its parameters are used.
    """

    draws_nothing = True

    def __init__(self, input_size: int, hidden_size: int = 128) -> None:
        super().__init__(input_size)
        check_numbers(self, at_least=1, hidden_size=hidden_size)
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True, bidirectional=True)
        self.output_size = 2 * hidden_size

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        padding = ~mask.unsqueeze(-1)
        with full_precision(embeddings.device.type):
            inputs = embeddings.to(next(self.lstm.parameters()).dtype).masked_fill(padding, 0.0)
            # Each text is turned round within its own length: turned with its padding, a state would begin with zeros
            # to read.
            order = reversed_order(mask)
            rows = torch.arange(len(mask), device=mask.device).unsqueeze(1)
            ahead, back = self._run(torch.stack([inputs, inputs[rows, order]]))
            return torch.cat([ahead, back[rows, order]], dim=-1).masked_fill(padding, 0.0)

    def stays_in_float32(self, device_type: str) -> str | None:
        """See `Encoder.stays_in_float32`: everywhere."""
        return "a projection in half precision would leave states that are not orthogonal"

    def _run(self, inputs: Tensor) -> Tensor:
        """Both directions: (2, B, T, E) inputs, the second one reversed, to (2, B, T, H) states in the same order."""
        to_input, to_state, bias = self._weights()
        # The part of the gates that needs no earlier state, for all steps in one product.
        gates = torch.einsum("dbte,dge->dtbg", inputs, to_input) + bias[:, None, None]
        state = cell = total = gates.new_zeros(2, inputs.shape[1], self.lstm.hidden_size)
        states = []
        for gate in gates.unbind(1):
            proposed, cell = lstm_cell(torch.baddbmm(gate, state, to_state.mT), cell)
            state = reject(proposed, total)
            total = total + state
            states.append(state)
        return torch.stack(states, dim=2)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """(2, 4 H, E), (2, 4 H, H) and (2, 4 H): the parameters of both directions side by side."""
        w, names = self.lstm, ("", "_reverse")
        to_input, to_state, bias_input, bias_state = (
            torch.stack([getattr(w, f"{kind}_l0{name}") for name in names])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return to_input, to_state, bias_input + bias_state


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: (..., 4 H) gates before their activations, in torch's order, and (..., H) the cell.

    Returns:
        (..., H) the state `o * tanh(c)` and (..., H) the new cell.
    """
    into, forget, new, out = gates.chunk(4, dim=-1)
    cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def reject(vectors: Tensor, direction: Tensor) -> Tensor:
    """`u - (u . m) / (m . m) m`: what of `u` is orthogonal to `m`; `u` itself where `m` is zero.

    Args:
        vectors: (..., H) `u`.
        direction: (..., H) `m`.

    Returns:
        (..., H), with finite gradients also at `m = 0`.
    """
    squared = direction.square().sum(-1, keepdim=True)
    share = (vectors * direction).sum(-1, keepdim=True) / torch.where(squared > 0, squared, 1.0)
    return vectors - share * direction


def reversed_order(mask: Tensor) -> Tensor:
    """(B, T) int64: the places of each row with its real tokens reversed and padding left where it is."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - places, places)
