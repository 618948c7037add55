"""Encoded texts to padded batches: memory-mapped rows, buckets of similar length, shares for several processes."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from attn_lightning.data.rows import ArrowDataset, MappedRows, to_numpy
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch

POOL = 64
"""Batches that are sorted by length together in training: little padding, and still another mixture every epoch."""

TRAINING_TOKENS, EVALUATION_TOKENS = 2**17, 300_000
"""The most tokens of a batch, padding included, where nobody gave a budget.

At 20 KB a token, forward and backward together, the default model needs 2.6 GB for the first of them. No batch of the
data sets of this package reaches either number: the longest text of 2,809 words in training and 2,122 elsewhere, in
batches of 32 and of 128.
"""

Rows = NDArray[np.int64]


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


def length_batches(
    lengths: ArrayLike,
    batch_size: int | None = None,
    token_budget: int | None = None,
    second_lengths: ArrayLike | None = None,
) -> Iterator[Rows]:
    """Every row once, the longest first, in batches of similar length that keep to both bounds.

    Args:
        lengths: (N,) tokens of every row, each at least 1.
        batch_size: the most rows of a batch; None: no bound.
        token_budget: the most tokens of a batch, padding included, so that memory depends on it and not on the data. A
            longer row is a batch of its own. None: no bound.
        second_lengths: (N,) tokens of the second text of every row, which count too; None where there are none.

    Yields:
        Rows, as indices into `lengths`.
    """
    counts = np.asarray(lengths, np.int64)
    # The longest first: a batch that does not fit into memory fails at once and not at the end of an epoch.
    order = np.argsort(-counts, kind="stable")
    second = np.zeros_like(counts) if second_lengths is None else np.asarray(second_lengths, np.int64)
    for start, end in _runs(counts[order], second[order], batch_size or len(counts), token_budget):
        yield order[start:end]


def _runs(
    falling: Rows, second: Rows, most: int, token_budget: int | None, world_size: int = 1
) -> Iterator[tuple[int, int]]:
    """Start and end of runs of at most `most` rows, of which a process's share keeps to the budget.

    Rows of a run are padded to its first length, and the second texts behind them to the longest.
    """
    start = 0
    while start < len(falling):
        # All rows of a run are padded to its first, the longest, so that length decides how many fit.
        fitting = most if token_budget is None else token_budget // int(falling[start]) * world_size
        # At least one row per process, also where a single text is over the budget.
        end = min(start + min(most, max(fitting, world_size)), len(falling))
        if token_budget is not None and second[start:end].any():
            widths = falling[start] + np.maximum.accumulate(second[start:end])
            shares = np.arange(world_size, world_size + len(widths)) // world_size
            end = start + max(int((shares * widths <= token_budget).sum()), min(world_size, len(widths)))
        yield start, end
        start = end


class LengthBatches(DistributedSampler[list[int]]):
    """Lists of rows of similar length, every row exactly once per epoch over all processes together.

    With several processes each global batch of `world_size * batch_size` rows is dealt out to them, so that all have
    the same number of batches of the same length. It is a `DistributedSampler` so that Lightning leaves it in place.
    Training batches change from epoch to epoch and depend on `seed` and the epoch alone, so a resumed run goes on as
    the uninterrupted one would have. Cost: one sort per epoch.

    Args:
        lengths: (N,) tokens of every row.
        batch_size: rows of a batch per process.
        shuffle: a new order every epoch; otherwise sorted by length, the longest first.
        seed: of the shuffling.
        token_budget: the most tokens, padding included, of a batch per process; `batch_size` still holds.
        second_lengths: (N,) tokens of the second text of every row, which count in the budget; None for single texts.
        rank: this process.
        world_size: all processes.

    Raises:
        ConfigurationError: fewer rows than processes.
    """

    def __init__(
        self,
        lengths: Rows,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        token_budget: int | None = None,
        second_lengths: Rows | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(lengths) < world_size:
            raise ConfigurationError(
                f"Expected at least one row per process, but got {len(lengths)} rows for {world_size} processes; "
                "use fewer devices."
            )
        super().__init__(range(len(lengths)), world_size, rank, shuffle, seed)  # type: ignore[arg-type]
        self.lengths = lengths
        self.second_lengths = np.zeros_like(lengths) if second_lengths is None else second_lengths
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.world_size = world_size
        self._planned: tuple[int, list[Rows]] | None = None

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._plan():
            # Every world_size-th row of a sorted batch, so that all processes get the same lengths and none waits for
            # another.
            yield rows[self.rank :: self.world_size].tolist()

    def __len__(self) -> int:
        return len(self._plan())

    def _plan(self) -> list[Rows]:
        # The length is asked for several times per epoch.
        if self._planned is None or self._planned[0] != self.epoch:
            self._planned = (self.epoch, self._global_batches())
        return self._planned[1]

    def _global_batches(self) -> list[Rows]:
        size = self.batch_size * self.world_size
        if not self.shuffle:
            return self._cut(np.argsort(-self.lengths, kind="stable"), size)
        # Of seed and epoch alone, on every process alike; Lightning sets the epoch by `set_epoch`.
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        # Sorted within pools only: sorting all rows would put the same texts together in every epoch.
        pools = [order[start : start + POOL * size] for start in range(0, len(order), POOL * size)]
        batches = [batch for pool in pools for batch in self._cut(pool[np.argsort(-self.lengths[pool])], size)]
        if len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        # Shuffled again, or every pool would begin with its longest texts: a rhythm in length that the optimizer would
        # feel.
        return [batches[place] for place in generator.permutation(len(batches))]

    def _cut(self, rows: Rows, size: int) -> list[Rows]:
        """Rows, the longest first, in runs of at most `size` that keep to the budget."""
        runs = _runs(self.lengths[rows], self.second_lengths[rows], size, self.token_budget, self.world_size)
        batches = [rows[start:end] for start, end in runs]
        # Fewer rows than processes would leave one of them without a batch, and the others waiting for it.
        if len(batches) > 1 and len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches


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
    return DataLoader(
        examples,  # type: ignore[arg-type]
        # No collation by torch: an item of the dataset is a whole batch already.
        batch_size=None,
        sampler=LengthBatches(
            examples.lengths, batch_size, seed=shared + seed, second_lengths=second_lengths(examples), **options
        ),
        num_workers=num_workers,
        pin_memory=pinned,
        # Starting workers anew in every epoch takes longer than a small epoch.
        persistent_workers=num_workers > 0,
    )


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
