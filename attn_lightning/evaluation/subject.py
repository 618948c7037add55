"""What every explainer and measurement is given: a trained model, examples, and what the model said of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.data.batching import second_lengths
from attn_lightning.data.buckets import LengthBatches, Rows
from attn_lightning.files import replacing
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import UNLABELED, Batch

FloatArray = NDArray[np.floating[Any]]

ProgressCallback = Callable[[int], None]
"""Called with the number of examples that were finished since the last call; moves the progress bar."""


def no_progress(finished: int) -> None:
    """For callers that show nothing."""


class Examples(Protocol):
    """A split in random access: an item is a list of rows, padded to one batch.

    `attn_lightning.data.batching.EncodedTexts` is one.
    """

    @property
    def lengths(self) -> Rows:
        """(N,) tokens of every row."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Sequence[int]) -> Batch: ...


@dataclass(frozen=True)
class Subject:
    """A trained model and the examples on which it is evaluated.

    Attributes:
        model: on `device`; to be differentiated inside `attn_lightning.backbone.importance.differentiable` only.
        examples: the evaluated split.
        num_classes: C.
        erased: what stands for a text whose every token was erased, and for a token that is replaced instead of
            deleted: the id of the unknown word for text, None for segments (zeros then).
        training: the training split, for the tests that fit a model of their own, without the texts whose labels were
            hidden from the model; None where there is none.
        batch_size: the most examples of a clean pass.
        token_budget: the most tokens, padding included, of any pass, so that memory depends on it and not on the data.
        seed: of everything that is drawn; two evaluations with the same seed are equal.
        device: where the model is.
        rationales: SHA-256 of the rationales of the examples; None where there are none.
    """

    model: Backbone
    examples: Examples
    num_classes: int
    erased: int | None = None
    training: Examples | None = None
    batch_size: int = 128
    token_budget: int = 2**16
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rationales: str | None = None

    def batches(self) -> Iterator[Batch]:
        """Every example once in padded batches on the device, the longest first; `Batch.rows` says which they are."""
        plan = LengthBatches(
            np.asarray(self.examples.lengths),
            self.batch_size,
            token_budget=self.token_budget,
            second_lengths=second_lengths(self.examples),
        )
        for rows in plan:
            batch = on_device(self.examples[rows], self.device)
            if batch.tokens.is_floating_point():
                # Segments are stored in float32; in a run of double precision the trainer converts them.
                batch = batch._replace(tokens=batch.tokens.to(self._dtype))
            yield batch

    @property
    def _dtype(self) -> torch.dtype:
        """Of the weights of the model."""
        kinds = (weight.dtype for weight in self.model.parameters() if weight.is_floating_point())
        return next(kinds, torch.float32)

    @cached_property
    def learned_from(self) -> "Split":
        """The training split with the attention `"model"` of the model, in eval mode.

        Kept: several families look at it, and the training split can be much longer than the evaluated one.
        """
        assert self.training is not None
        with torch.no_grad():
            return attention_of(self, self.training, {"model": self.model}, no_progress)

    def generator(self, *keys: int) -> torch.Generator:
        """A random generator on the CPU that depends on the seed and the keys alone, not on what ran before.

        Give the row of the example among the keys where draws must not depend on the batch.
        """
        # Spread over 63 bits by NumPy's mixing, because torch seeds that are close give similar streams.
        state = np.random.SeedSequence([self.seed, *keys]).generate_state(2, np.uint32)
        return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on the device."""
    return Batch(*(None if value is None else value.to(device, non_blocking=True) for value in batch))  # type: ignore[arg-type]


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of all weights, in hexadecimal, which tells a model from another where no file does."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(np.ascontiguousarray(to_array(value)).tobytes())
    return digest.hexdigest()


class Ragged:
    """One number per token of every example, as one flat array: no padding is stored, and a file can be mapped.

    Args:
        values: (sum of lengths,) flat, rows one after the other in the order of the split.
        lengths: (N,) tokens of every row.
    """

    def __init__(self, values: NDArray[Any], lengths: Rows) -> None:
        self.values = values
        self.lengths = np.asarray(lengths, np.int64)

    @classmethod
    def empty(cls, lengths: Rows) -> "Ragged":
        """Float32 NaN everywhere, to be filled by `put`."""
        # NaN, so that a row that nobody fills is no value.
        return cls(np.full(int(np.sum(lengths)), np.nan, np.float32), lengths)

    @classmethod
    def load(cls, path: Path, lengths: Rows) -> "Ragged":
        """Map a file that `save` wrote into memory."""
        # Mapped: ten explanations of a long split need no memory until a batch asks for its rows.
        return cls(np.load(path, mmap_mode="r"), lengths)

    def save(self, path: Path) -> None:
        """Write the values as `.npy`, in one step."""
        with replacing(path) as file:
            np.save(file, self.values)

    @cached_property
    def starts(self) -> Rows:
        """(N,) where every row begins in `values`."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)[:-1]])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self.values[self.starts[row] : self.starts[row] + self.lengths[row]]

    def put(self, rows: NDArray[Any], padded: NDArray[Any], mask: NDArray[np.bool_]) -> None:
        """Store a padded batch.

        Args:
            rows: (B,) rows of the split.
            padded: (B, T).
            mask: (B, T) bool; row i has its `lengths[rows[i]]` real tokens first.
        """
        for row, values, real in zip(rows.tolist(), padded, mask, strict=True):
            # `values[real]` and not the first n: a batch of pairs has columns behind its longest text.
            self.values[self.starts[row] : self.starts[row] + self.lengths[row]] = values[real]

    def pad(self, rows: Rows, width: int = 0) -> NDArray[Any]:
        """(B, T) of the rows in float32, zeros on the right, at least `width` columns: a batch of pairs has more."""
        rows = np.asarray(rows, np.int64)
        padded = np.zeros((len(rows), max(int(self.lengths[rows].max()), width)), np.float32)
        for line, row in zip(padded, rows.tolist(), strict=True):
            line[: self.lengths[row]] = self[row]
        return padded


@dataclass(frozen=True)
class Split:
    """The attention of models on a split.

    Attributes:
        examples: the texts.
        labels: (N,) int64.
        weights: one distribution over the tokens of every text by the name of the guide.
        largest_id: the highest word id, -1 for data that is not words.
    """

    examples: Examples
    labels: Rows
    weights: Mapping[str, Ragged]
    largest_id: int


def attention_of(
    subject: Subject, examples: Examples, models: Mapping[str, Backbone], advance: ProgressCallback
) -> Split:
    """The attention of some models on a split, by one pass of each; 4 bytes per token and model are kept.

    Args:
        subject: batch size, token budget and device.
        examples: the split.
        models: in eval mode.
        advance: told of every finished example.
    """
    weights = {name: Ragged.empty(examples.lengths) for name in models}
    labels = np.full(len(examples), UNLABELED, np.int64)
    largest_id = -1
    for batch in replace(subject, examples=examples).batches():
        rows, mask = to_array(batch.rows), to_array(batch.mask)
        labels[rows] = to_array(batch.labels)
        if not batch.tokens.is_floating_point():
            largest_id = max(largest_id, int(batch.tokens.max()))
        for name, model in models.items():
            weights[name].put(rows, to_array(model(batch.tokens, batch.mask).attention), mask)
        advance(len(rows))
    return Split(examples, labels, weights, largest_id)


@dataclass(frozen=True)
class Explained:
    """What is known of the examples before a family of measurements runs.

    Attributes:
        probabilities: (N, C) float64 of the clean pass, in the order of the split.
        labels: (N,) int64, `UNLABELED` (-1) where there is none.
        explanations: by the name of the explainer, one number per token, higher where the token matters more.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    explanations: Mapping[str, Ragged]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) the class of the highest probability, the first of equals."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(1)
        return predicted
