"""Which rows make a batch: rows of similar length, within a budget of tokens, in shares for several processes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DistributedSampler

from attn_lightning.errors import ConfigurationError

POOL = 64
"""Batches that are sorted by length together in training: little padding, and still another mixture every epoch."""

Rows = NDArray[np.int64]


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
    the uninterrupted one would have. Every epoch has as many batches as the first one, also where a budget of tokens
    decides how many rows fit, because a trainer asks for their number once. Cost: one sort per epoch.

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
        self._count: int | None = None

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
        if self._count is None:
            self._count = len(self._whole(self._pools(np.random.default_rng([self.seed, 0]), size), size))
        # Of seed and epoch alone, on every process alike; Lightning sets the epoch by `set_epoch`.
        generator = np.random.default_rng([self.seed, self.epoch])
        batches = self._of_count(self._pools(generator, size), size, self._count)
        # Shuffled again, or every pool would begin with its longest texts: a rhythm in length that the optimizer would
        # feel.
        return [batches[place] for place in generator.permutation(len(batches))]

    def _pools(self, generator: np.random.Generator, size: int) -> list[Rows]:
        """Rows in random order, in parts that are sorted by length each."""
        order = generator.permutation(len(self.lengths))
        # Sorted within pools only: sorting all rows would put the same texts together in every epoch.
        return [order[start : start + POOL * size] for start in range(0, len(order), POOL * size)]

    def _whole(self, pools: list[Rows], size: int) -> list[Rows]:
        """The batches of all pools, none of fewer rows than processes."""
        # Stable: NumPy's fastest order of equal lengths is another one on other CPUs, and so would the batches be.
        orders = (np.argsort(-self.lengths[pool], kind="stable") for pool in pools)
        batches = [batch for pool, order in zip(pools, orders, strict=True) for batch in self._cut(pool[order], size)]
        if len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches

    def _of_count(self, pools: list[Rows], size: int, count: int) -> list[Rows]:
        """The same, made to be so many.

        An epoch of more batches than the trainer knows would lose the last ones, and after fewer of them the trainer
        waits in vain for the one after which it validates.
        """
        batches = self._whole(pools, size)
        # A larger pool leaves fewer batches that are not full; all rows in one leave the fewest that there can be.
        while len(batches) > count and len(pools) > 1:
            pools = [*pools[:-2], np.concatenate(pools[-2:])]
            batches = self._whole(pools, size)
        while len(batches) < count:
            place = int(np.argmax([len(batch) for batch in batches]))
            half = len(batches[place]) // 2 // self.world_size * self.world_size
            if not half:
                break
            batches[place : place + 1] = [batches[place][:half], batches[place][half:]]
        return batches

    def _cut(self, rows: Rows, size: int) -> list[Rows]:
        """Rows, the longest first, in runs of at most `size` that keep to the budget."""
        runs = _runs(self.lengths[rows], self.second_lengths[rows], size, self.token_budget, self.world_size)
        batches = [rows[start:end] for start, end in runs]
        # Fewer rows than processes would leave one of them without a batch, and the others waiting for it.
        if len(batches) > 1 and len(batches[-1]) < self.world_size:
            batches[-2:] = [np.concatenate(batches[-2:])]
        return batches
