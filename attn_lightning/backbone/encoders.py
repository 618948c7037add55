"""Encoders: what turns word vectors into one hidden state per token.

Every encoder keeps one promise that all measurements rest on: the state of a real token does not depend on padding,
neither on how much of it there is nor on what it holds, and the states at padding are exactly 0.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attn_lightning.errors import ConfigurationError


class Encoder(nn.Module):
    """Base of every encoder.

    Args:
        input_size: E, size of an embedding; the backbone gives it.

    Attributes:
        output_size: D, size of a hidden state.
        double_backward: set it to True before training if gradients of gradients go through the encoder
            (`Differentiates.EMBEDDINGS_TWICE`); kernels that cannot do that are then avoided.
    """

    output_size: int

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.double_backward = False

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            embeddings: (B, T, E); values at padding are ignored.
            mask: (B, T) bool, the real tokens first in every row and at least one of them.

        Returns:
            (B, T, D) hidden states, exactly 0 at padding.
        """
        raise NotImplementedError


class BiLSTM(Encoder):
    """Bidirectional LSTM, equal to torch's on packed sequences, without the cost of packing on a CPU.

    On a CPU each direction is one LSTM over the padded batch. The forward one meets padding only after the last real
    token; the backward one reads every sequence reversed within its own length, so it does too. On CUDA the packed
    sequences go to cuDNN, which is fast there.

    Cost: on 2 CPU cores several times less than packed sequences, whose backward pass grows with the square of the
    length (https://github.com/pytorch/pytorch/issues/149194); `tests/benchmarks/bench_encoder.py` prints the ratio.

    Source: Graves and Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: states per direction, so that D is twice that.
        num_layers: layers on top of each other, at least 1.

    Attributes:
        lstm: the `torch.nn.LSTM` that owns the weights; `load_state_dict` of a trained one works.
    """

    def __init__(self, input_size: int, hidden_size: int = 128, num_layers: int = 1) -> None:
        super().__init__(input_size)
        _check_positive(hidden_size=hidden_size, num_layers=num_layers)
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True, bidirectional=True)
        self.output_size = 2 * hidden_size

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        if embeddings.is_cuda:
            with self._kernels(embeddings):
                return packed_lstm(self.lstm, embeddings, mask)
        return two_way_lstm(self.lstm, embeddings, mask)

    def _kernels(self, embeddings: Tensor) -> AbstractContextManager[None]:
        """CuDNN off where its LSTM has no backward pass: in eval mode, and for gradients of gradients."""
        explains = not self.training and torch.is_grad_enabled() and embeddings.requires_grad
        if self.double_backward or explains:
            return torch.backends.cudnn.flags(enabled=False)  # type: ignore[no-untyped-call, no-any-return]
        return nullcontext()


def packed_lstm(lstm: nn.LSTM, embeddings: Tensor, mask: Tensor) -> Tensor:
    """Torch's own bidirectional LSTM on packed sequences.

    Args:
        lstm: bidirectional and batch first.
        embeddings: (B, T, E).
        mask: (B, T) bool, real tokens first.

    Returns:
        (B, T, 2 * hidden_size), 0 at padding.
    """
    packed = pack_padded_sequence(embeddings, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=mask.shape[1])
    return states


def two_way_lstm(lstm: nn.LSTM, embeddings: Tensor, mask: Tensor) -> Tensor:
    """The same function as `packed_lstm`, computed as two unidirectional LSTMs over the padded batch per layer.

    Args:
        lstm: bidirectional and batch first.
        embeddings: (B, T, E).
        mask: (B, T) bool, real tokens first.

    Returns:
        (B, T, 2 * hidden_size), 0 at padding.
    """
    order = reversal(mask)
    states, weights = embeddings, lstm._flat_weights
    for layer in range(lstm.num_layers):
        ahead, back = weights[8 * layer : 8 * layer + 4], weights[8 * layer + 4 : 8 * layer + 8]
        backward = reorder(_one_way(reorder(states, order), back, lstm), order)
        states = torch.cat([_one_way(states, ahead, lstm), backward], dim=-1)
    return states.masked_fill(~mask.unsqueeze(-1), 0.0)


def _one_way(inputs: Tensor, weights: list[Tensor], lstm: nn.LSTM) -> Tensor:
    """(B, T, E) to (B, T, hidden_size): one direction of one layer, by torch's fused kernel."""
    start = inputs.new_zeros(1, inputs.shape[0], lstm.hidden_size)
    return torch.lstm(inputs, (start, start), weights, True, 1, 0.0, lstm.training, False, True)[0]


def reversal(mask: Tensor) -> Tensor:
    """(B, T) int64 positions that reverse every row within its own length and leave padding where it is."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - positions, positions)


def reorder(states: Tensor, order: Tensor) -> Tensor:
    """(B, T, D) states with row `i` taken in the order `order[i]`; `order` is (B, T)."""
    return states[torch.arange(order.shape[0], device=order.device).unsqueeze(1), order]


class CNN(Encoder):
    """Convolutions of several widths over the tokens, side by side: `h_t = ReLU([K_1 * x; ...; K_m * x]_t + b)`.

    The text is framed by zeros ("same" padding), and padding is set to zero first, so both look the same to a filter.

    Source: the CNN encoder of Jain and Wallace 2019, https://aclanthology.org/N19-1357.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        kernel_sizes: widths of the filters in tokens; odd, so that a filter has a middle.
        filters: filters per width, so that D is `len(kernel_sizes) * filters`.
    """

    def __init__(self, input_size: int, kernel_sizes: tuple[int, ...] = (1, 3, 5, 7), filters: int = 32) -> None:
        super().__init__(input_size)
        _check_positive(filters=filters)
        _check_kernel_sizes(kernel_sizes)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(input_size, filters, size, padding=size // 2) for size in kernel_sizes
        )
        self.output_size = len(kernel_sizes) * filters

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        padding = ~mask.unsqueeze(-1)
        channels = embeddings.masked_fill(padding, 0.0).transpose(1, 2)
        states = torch.cat([convolution(channels) for convolution in self.convolutions], dim=1)
        return states.relu().transpose(1, 2).masked_fill(padding, 0.0)


class Average(Encoder):
    """One layer per token without any context, `h_t = tanh(W x_t + b)`, so that attention takes an average of words.

    Source: the "average" encoder of Jain and Wallace 2019, https://aclanthology.org/N19-1357.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: D.
    """

    def __init__(self, input_size: int, hidden_size: int = 256) -> None:
        super().__init__(input_size)
        _check_positive(hidden_size=hidden_size)
        self.projection = nn.Linear(input_size, hidden_size)
        self.output_size = hidden_size

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return torch.tanh(self.projection(embeddings)).masked_fill(~mask.unsqueeze(-1), 0.0)


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ConfigurationError(f"Expected `{name}` of the encoder to be 1 or more, but got {size}.")


def _check_kernel_sizes(sizes: Iterable[int]) -> None:
    sizes = list(sizes)
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise ConfigurationError(
            f"Expected `kernel_sizes` to be odd numbers of 1 or more, but got {sizes}; use for example [1, 3, 5, 7]."
        )
