"""Encoded texts to padded batches: memory-mapped rows, and the loaders that read them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.data.buckets import LengthBatches, Rows
from attn_lightning.data.rows import ArrowDataset, MappedRows, to_numpy
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch

TRAINING_TOKENS, EVALUATION_TOKENS = 2**17, 300_000
"""The most tokens of a batch, padding included, where nobody gave a budget.

At 20 KB a token, forward and backward together, the default model needs 2.6 GB for the first of them. No batch of the
data sets of this package reaches either number: the longest text of 2,809 words in training and 2,122 elsewhere, in
batches of 32 and of 128.
"""


def row_index(rows: Sequence[int], instead: str) -> Rows:
    """(B,) the rows of a batch.

    Args:
        rows: what the sampler asks for.
        instead: the option that makes the data smaller, for a user who has replaced the sampler.

    Raises:
        ConfigurationError: Lightning replaced the sampler, so that single rows are asked for.
    """
    if isinstance(rows, int):
        raise ConfigurationError(
            "Expected a list of rows, but got a single one, as with `--trainer.overfit_batches`; leave that option "
            f"out and use `{instead}`."
        )
    return np.asarray(rows, np.int64)


class RaggedColumn:
    """A list column of an Arrow table as NumPy views, without a copy: row `i` is `column[i]`.

    Args:
        dataset: memory-mapped, written by `datasets` (its rows are not reordered by an index).
        name: a column of lists of numbers.
    """

    def __init__(self, dataset: ArrowDataset | MappedRows, name: str) -> None:
        chunks = dataset.data.column(name).chunks
        bounds = [to_numpy(chunk.offsets) for chunk in chunks]
        # A sliced chunk's offsets refer to the unsliced values, which is what `values` gives.
        self._values = [to_numpy(chunk.values) for chunk in chunks]
        self._chunk = np.repeat(np.arange(len(chunks), dtype=np.int32), [len(chunk) for chunk in chunks])
        self._start = np.concatenate([bound[:-1] for bound in bounds]).astype(np.int64)
        self.lengths: Rows = np.concatenate([np.diff(bound) for bound in bounds]).astype(np.int64)

    def __getitem__(self, row: int) -> NDArray[Any]:
        start = self._start[row]
        values: NDArray[Any] = self._values[self._chunk[row]][start : start + self.lengths[row]]
        return values

    def sums(self, of_value: Rows) -> Rows:
        """(N,) sum of `of_value[v]` over the values v of every row; 1 for values beyond its end."""
        known = np.append(of_value, 1)
        totals = [np.concatenate([[0], np.cumsum(known[np.minimum(values, len(of_value))])]) for values in self._values]
        # One array over all chunks, so that a row is two places in it.
        before = np.cumsum([0, *map(len, totals)])[self._chunk] + self._start
        flat = np.concatenate(totals)
        sums: Rows = flat[before + self.lengths] - flat[before]
        return sums

    def pad(self, rows: Rows, dtype: type[np.generic]) -> NDArray[Any]:
        """(B, T) of the rows, zeros on the right."""
        padded = np.zeros((len(rows), int(self.lengths[rows].max())), dtype)
        for line, row in zip(padded, rows, strict=True):
            line[: self.lengths[row]] = self[row]
        return padded


class EncodedTexts(Dataset[Batch]):
    """One split as `Batch`es: an item is a list of rows, so that a batch is padded at once.

    Args:
        dataset: columns `ids`, `label`, and where the data has them `rationale`, `has_rationale`, and `shortcut` with
            the class + 1 of a shortcut word and 0 elsewhere.
    """

    def __init__(self, dataset: ArrowDataset | MappedRows) -> None:
        self.dataset = dataset

    def __getstate__(self) -> dict[str, Any]:
        # Views into mapped memory would be copied to every worker; each one opens the file itself.
        return {"dataset": self.dataset}

    @cached_property
    def _ids(self) -> RaggedColumn:
        return RaggedColumn(self.dataset, "ids")

    @cached_property
    def _word_marks(self) -> dict[str, RaggedColumn]:
        marked = [name for name in ("rationale", "shortcut") if name in self.dataset.column_names]
        return {name: RaggedColumn(self.dataset, name) for name in marked}

    @cached_property
    def _questions(self) -> RaggedColumn | None:
        return RaggedColumn(self.dataset, "question_ids") if "question_ids" in self.dataset.column_names else None

    @cached_property
    def _candidates(self) -> RaggedColumn | None:
        return RaggedColumn(self.dataset, "candidates") if "candidates" in self.dataset.column_names else None

    @cached_property
    def _labels(self) -> Rows:
        return self._column("label").astype(np.int64)

    @cached_property
    def _has_rationale(self) -> NDArray[np.bool_]:
        return self._column("has_rationale").astype(np.bool_)

    def _column(self, name: str) -> NDArray[Any]:
        return to_numpy(self.dataset.data.column(name))

    @property
    def lengths(self) -> Rows:
        """(N,) tokens of every row."""
        return self._ids.lengths

    @property
    def second_lengths(self) -> Rows | None:
        """(N,) tokens of the second text of every row; None where texts are single."""
        return None if self._questions is None else self._questions.lengths

    def costs(self, of_word: Rows) -> tuple[Rows, Rows | None]:
        """(N,) what the text of every row costs, and its second text, by what every word costs."""
        return self._ids.sums(of_word), None if self._questions is None else self._questions.sums(of_word)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The rows as one padded batch, in the order given.

        Raises:
            ConfigurationError: Lightning replaced the sampler, so that single rows are asked for.
        """
        index = row_index(rows, "--data.max_examples")
        lengths = self._ids.lengths[index]
        # Padded straight from mapped memory: a list of examples that is collated afterwards would copy every token
        # twice.
        marks = {name: torch.from_numpy(column.pad(index, np.bool_)) for name, column in self._word_marks.items()}
        if "shortcut" in marks:
            classes = self._word_marks["shortcut"].pad(index, np.int64).max(1) - 1
            marks["shortcut_class"] = torch.from_numpy(classes)
        if "rationale" in marks:
            marks["has_rationale"] = torch.from_numpy(self._has_rationale[index])
        batch = Batch(
            tokens=torch.from_numpy(self._ids.pad(index, np.int64)),
            mask=torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]),
            labels=torch.from_numpy(self._labels[index]),
            rows=torch.from_numpy(index),
            **marks,
        )
        if self._questions is None:
            return batch
        candidates = None if self._candidates is None else self._candidates.pad(index, np.int64)
        return with_second(batch, self._questions.pad(index, np.int64), candidates)


def with_second(batch: Batch, second: NDArray[np.int64], candidates: NDArray[np.int64] | None = None) -> Batch:
    """The batch with a second text behind every first one, outside the mask: padding for all but the model.

    Args:
        batch: padded to its longest text.
        second: (B, S) ids, 0 at padding.
        candidates: (B, C) a word for every class that can be the answer and 0 for the others, which stands behind both;
            None where any class can be.
    """
    # In the row of tokens and not beside it: what erases, perturbs or cuts a batch carries it along unseen.
    second = second if candidates is None else np.concatenate([second, candidates], 1)
    columns = second.shape[1]
    tokens = torch.cat([batch.tokens, torch.from_numpy(second)], 1)
    marks = {name: getattr(batch, name) for name in ("mask", "rationale", "shortcut")}
    longer = {name: F.pad(mark, (0, columns)) for name, mark in marks.items() if mark is not None}
    return batch._replace(tokens=tokens, **longer)


class Lengths(Protocol):
    """Examples that know how long each of them is."""

    @property
    def lengths(self) -> Rows:
        """(N,) tokens of every row."""
        ...


def batch_loader(
    examples: Lengths, batch_size: int, *, trainer: Trainer | None, num_workers: int = 0, seed: int = 0, **options: Any
) -> DataLoader[Batch]:
    """Batches of a split in the order of `LengthBatches`, shared among the processes of the trainer.

    Where the encoder of the trainer's model pays for pieces of words, these count and not the words, for batches of
    similar length as for the budget.

    Args:
        examples: a map-style dataset whose item is a list of rows.
        batch_size: rows of a batch per process.
        trainer: of the data module; None outside one.
        num_workers: processes that make batches.
        seed: added to the seed of the run, for loaders that must not shuffle alike.
        **options: of `LengthBatches`.
    """
    # The seed that Lightning has set; without one that of torch, which may differ between processes, hence the
    # broadcast.
    shared = int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed())
    # From page-locked memory a batch goes to the device while the device still works on the one before.
    pinned = trainer is not None and trainer.strategy.root_device.type == "cuda"
    if trainer is not None:
        shared = int(trainer.strategy.broadcast(shared))
        options |= {"rank": trainer.global_rank, "world_size": trainer.world_size}
    lengths, second = examples.lengths, second_lengths(examples)
    if isinstance(examples, EncodedTexts) and (costs := _word_costs(trainer)) is not None:
        lengths, second = examples.costs(costs)
    return _LateLoader(
        examples,  # type: ignore[arg-type]
        # No collation by torch: an item of the dataset is a whole batch already.
        batch_size=None,
        sampler=LengthBatches(lengths, batch_size, seed=shared + seed, second_lengths=second, **options),
        num_workers=num_workers,
        pin_memory=pinned,
        # Starting workers anew in every epoch takes longer than a small epoch.
        persistent_workers=num_workers > 0,
    )


class _LateLoader(DataLoader[Batch]):
    """Asks its sampler for rows when the first batch is wanted, and not before.

    A trainer that resumes makes its iterator before it tells the sampler which epoch it is, and loaders with workers
    ask at once: the resumed epoch would have the batches of the first one.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # DataLoader promises its own kind of iterator
        yield from super().__iter__()


def _word_costs(trainer: Trainer | None) -> Rows | None:
    """See `Encoder.word_costs`; None without a model of ours."""
    encoder = getattr(getattr(getattr(trainer, "lightning_module", None), "backbone", None), "encoder", None)
    costs = encoder.word_costs() if isinstance(encoder, Encoder) else None
    return None if costs is None else costs.cpu().numpy().astype(np.int64)


def second_lengths(examples: Lengths) -> Rows | None:
    """(N,) tokens of the second text of every example; None where there are none."""
    found: Rows | None = getattr(examples, "second_lengths", None)
    return found


class _SplitLoaders(LightningDataModule, ABC):
    """The loaders that read every row of a split once, the same for texts and mosaics.

    Attributes:
        eval_batch_size: rows of a batch, per process.
    """

    eval_batch_size: int

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation row once, sorted by length."""
        return self._loader("validation", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test row once, sorted by length; `Batch.rows` puts results back in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test rows."""
        return self.test_dataloader()

    @abstractmethod
    def _loader(self, split: str, batch_size: int) -> DataLoader[Batch]:
        """Batches of a split."""
