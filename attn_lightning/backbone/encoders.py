"""Encoders: what turns word vectors into one hidden state per token.

Every encoder keeps one promise that all measurements rest on: the state of a real token does not depend on padding,
neither on how much of it there is nor on what it holds, and the states at padding are exactly 0.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from attn_lightning.backbone.kernels import NO_KERNELS, cpu_recurrence_type, multiplies_bfloat16, recurrent_kernels
from attn_lightning.backbone.lstm import packed_lstm, padded_lstm
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import full_precision
from attn_lightning.types import DataSpec

_ON_CUDA = {"packed": packed_lstm, "padded": padded_lstm}


class Encoder(nn.Module):
    """Base of every encoder.

    Args:
        input_size: E, size of an embedding; the backbone gives it.

    Attributes:
        output_size: D, size of a hidden state.
        double_backward: set it to True before training if gradients of gradients go through the encoder;
            kernels that cannot do that are then avoided.
    """

    output_size: int
    warmup: float = 0.0
    """Share of the training in which the rates of `learning_rates` rise from 0; they fall to 0 in the rest."""
    reads_pairs: bool = False
    """Whether it finds words anywhere in a row, and can read two texts in one pass (`read_pair`)."""
    draws_nothing: bool = False
    """Whether a pass in training draws no random numbers, such as a dropout of its own."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.double_backward = False

    def bind(self, spec: DataSpec) -> nn.Module | None:
        """Take what the encoder must know of the data, before anything asks for `output_size`.

        Returns:
            What turns (B, T) word ids into its input, for an encoder that brings its own; None takes word vectors.
        """
        return None

    def resources(self) -> Mapping[str, str]:
        """What a checkpoint must keep beside the weights to build the encoder again, by name."""
        return {}

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of parameters with a learning rate of their own; all others have that of the model."""
        return []

    def word_costs(self) -> Tensor | None:
        """(V,) what each word of the vocabulary costs in a pass, where words differ; None where all cost the same."""
        return None

    def prepare(self, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]], folder: Path, texts: str) -> None:
        """Do once what every epoch would repeat, before training.

        Args:
            batches: (B, T) ids and (B, T) masks of all texts that will be read; where two texts are read together also
                the (B, T) mask of the second one, else None.
            folder: where results may be kept for later runs.
            texts: a name that no other texts have.
        """

    @property
    def can_share(self) -> bool:
        """Whether equal texts of a batch may share a pass of it; not where each of them has draws of its own."""
        return self.draws_nothing or not self.training

    def stays_in_float32(self, device_type: str) -> str | None:
        """Why it runs in float32 also under autocast on this kind of device; None where it follows autocast.

        Args:
            device_type: "cpu", "cuda", ...: `tensor.device.type`.
        """
        return None

    def scaled(self, embeddings: Tensor, factors: Tensor) -> Tensor:
        """(..., E) embeddings of which each is a share of itself, by (..., 1) factors; 0 takes the word away."""
        return embeddings * factors

    def perturbable(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Which numbers of (B, T, E) embeddings it reads as those of words: (B, T) bool for all of each, or (B, T, E).

        Noise elsewhere would have a length and no effect.
        """
        return mask

    def dropped(self, embeddings: Tensor, dropout: nn.Module) -> Tensor:
        """(B, T, E) embeddings of which dropout has taken entries; the very tensor where it takes none."""
        found: Tensor = dropout(embeddings)
        return found

    def read_pair(self, embeddings: Tensor, mask: Tensor, second: Tensor) -> Tensor:
        """(B, T, D) states of two texts that read each other; only where `reads_pairs`."""
        raise NotImplementedError

    def pair_attention(self, embeddings: Tensor, mask: Tensor, second: Tensor) -> Tensor | None:
        """(L, B, T, T) where each word of both texts looks in `read_pair`, as `token_attention` has it of one text."""
        raise NotImplementedError

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of a hidden state before it was flattened to D numbers; (D,) where it has no other."""
        return (self.output_size,)

    def values(self, hidden: Tensor) -> Tensor:
        """What attention averages: the hidden states themselves, or a function of each of them that is 0 at 0.

        Args:
            hidden: (..., D).

        Returns:
            The same shape.
        """
        return hidden

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            embeddings: (B, T, E); values at padding are ignored.
            mask: (B, T) bool, the real tokens first in every row and at least one of them.

        Returns:
            (B, T, D) hidden states, exactly 0 at padding.
        """
        raise NotImplementedError

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor | None:
        """Where each word looks in every layer of an encoder that has attention of its own; None where it has none.

        Args:
            embeddings: (B, T, E).
            mask: (B, T) bool.

        Returns:
            (L, B, T, T) of the L layers, heads averaged; rows of real words sum to 1, all else is 0.
        """
        return None


class BiLSTM(Encoder):
    """Bidirectional LSTM, equal to torch's on packed sequences, without the cost of packing on a CPU.

    Under autocast (`--trainer.precision=bf16-mixed`) inputs, weights and states are bfloat16 on a CPU that has
    instructions for it, while weights are kept and learned in float32; on another CPU, and for gradients of gradients,
    all stays float32. On CUDA sequences go to cuDNN, or around it where cuDNN has no backward pass: in eval mode and
    for gradients of gradients.

    Cost: one pass over the tokens, on a CPU over padding too; several times less there than packed sequences, whose
    backward pass grows with the square of the length. `python tests/benchmarks/bench_encoder.py` prints the ratio.

    Source: Graves and Schmidhuber 2005, https://doi.org/10.1016/j.neunet.2005.06.042.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: states per direction, so that D is twice that.
        num_layers: layers on top of each other, at least 1.
        on_cuda: packed, which computes no padding but waits for the device to learn the lengths; or padded, as on a
            CPU. Same states; which is faster depends on device and lengths.

    Attributes:
        lstm: the `torch.nn.LSTM` that owns the weights; `load_state_dict` of a trained one works.
    """

    draws_nothing = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 128,
        num_layers: int = 1,
        on_cuda: Literal["packed", "padded"] = "packed",
    ) -> None:
        super().__init__(input_size)
        check_numbers(self, at_least=1, hidden_size=hidden_size, num_layers=num_layers)
        check_choice(self, choices=_ON_CUDA, on_cuda=on_cuda)
        self.on_cuda = on_cuda
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True, bidirectional=True)
        self.output_size = 2 * hidden_size

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        if embeddings.is_cuda:
            with recurrent_kernels(self, embeddings, twice=self.double_backward):
                return _ON_CUDA[self.on_cuda](self.lstm, embeddings, mask)
        # A gradient of a gradient divides rounding by a small step, which bfloat16 with its 8 bits does not survive.
        kept = next(self.lstm.parameters()).dtype
        used = kept if self.double_backward else cpu_recurrence_type(kept)
        with full_precision(embeddings.device.type):
            return padded_lstm(self.lstm, embeddings.to(used), mask, twice=self.double_backward)

    def stays_in_float32(self, device_type: str) -> str | None:
        """See `Encoder.stays_in_float32`."""
        if device_type != "cpu":
            return None
        if self.double_backward:
            return "a method takes gradients of gradients through it"
        return None if multiplies_bfloat16() else NO_KERNELS


class CNN(Encoder):
    """Convolutions of several widths over the tokens, side by side: `h_t = ReLU([K_1 * x; ...; K_m * x]_t + b)`.

    The text is framed by zeros ("same" padding), and padding is set to zero first, so both look the same to a filter.

    Source: the CNN encoder of Jain and Wallace 2019, https://aclanthology.org/N19-1357.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        kernel_sizes: widths of the filters in tokens; odd, so that a filter has a middle.
        filters: filters per width, so that D is `len(kernel_sizes) * filters`.
    """

    draws_nothing = True

    def __init__(self, input_size: int, kernel_sizes: tuple[int, ...] = (1, 3, 5, 7), filters: int = 32) -> None:
        super().__init__(input_size)
        check_numbers(self, at_least=1, filters=filters)
        _check_kernel_sizes(kernel_sizes)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(input_size, filters, size, padding=size // 2) for size in kernel_sizes
        )
        self.output_size = len(kernel_sizes) * filters

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        padding = ~mask.unsqueeze(-1)
        # Zeros before the convolution: a filter at the last word reaches into padding.
        channels = embeddings.masked_fill(padding, 0.0).transpose(1, 2)
        states = torch.cat([convolution(channels) for convolution in self.convolutions], dim=1)
        # And after it: a filter near the end of the text gives padding a state that is not 0.
        return states.relu().transpose(1, 2).masked_fill(padding, 0.0)


class Average(Encoder):
    """One layer per token without any context, `h_t = tanh(W x_t + b)`, so that attention takes an average of words.

    Source: the "average" encoder of Jain and Wallace 2019, https://aclanthology.org/N19-1357.

    Args:
        input_size: E, size of an embedding; the backbone gives it.
        hidden_size: D.
    """

    draws_nothing = True

    def __init__(self, input_size: int, hidden_size: int = 256) -> None:
        super().__init__(input_size)
        check_numbers(self, at_least=1, hidden_size=hidden_size)
        self.projection = nn.Linear(input_size, hidden_size)
        self.output_size = hidden_size

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """See `Encoder.forward`."""
        return torch.tanh(self.projection(embeddings)).masked_fill(~mask.unsqueeze(-1), 0.0)


def _check_kernel_sizes(sizes: Iterable[int]) -> None:
    sizes = list(sizes)
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise ConfigurationError(
            f"Expected `kernel_sizes` to be odd numbers of 1 or more, but got {sizes}; use for example [1, 3, 5, 7]."
        )
