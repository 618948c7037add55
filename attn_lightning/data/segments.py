"""Mosaics: examples that are a few segments (points, images), one of which, the foreground, decides the label.

A mosaic is stored as the places of its segments in a pool, so that 40,000 mosaics of nine images take three megabytes
beside the images, and a batch is put together when it is asked for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from attn_lightning.checks import check_numbers
from attn_lightning.data.batching import _SplitLoaders, batch_loader, row_index
from attn_lightning.data.buckets import Rows
from attn_lightning.data.sources import SPLITS, SplitName
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch, DataSpec


class SegmentPool(Protocol):
    """All segments that mosaics are made of.

    Attributes:
        classes: (P,) class of every segment, those of the background included.
        sha256: of the segments.
    """

    classes: Rows
    sha256: str

    def take(self, places: Rows) -> NDArray[np.float32]:
        """Segments at any shape of places, (..., *segment_shape), as the model sees them."""
        ...


class Points:
    """A pool of points in memory.

    Args:
        values: (P, ...) coordinates, kept as float32.
        classes: (P,).
    """

    def __init__(self, values: NDArray[np.floating[Any]], classes: Rows) -> None:
        self.values = np.ascontiguousarray(values, np.float32)
        self.classes = classes
        # In one byte order, so that the same data has the same name on every machine.
        self.sha256 = hashlib.sha256(self.values.astype("<f4").tobytes()).hexdigest()

    def take(self, places: Rows) -> NDArray[np.float32]:
        """The points at these places."""
        taken: NDArray[np.float32] = self.values[places]
        return taken


@dataclass(frozen=True)
class Mosaics:
    """What the mosaics of a split are made of.

    Attributes:
        places: (N, m) place in the pool of every segment.
        labels: (N,) class of the foreground segment, in [0, C).
        foreground: (N,) position z* of the foreground segment, in [0, m).
    """

    places: Rows
    labels: Rows
    foreground: Rows

    @property
    def foreground_places(self) -> Rows:
        """(N,) place in the pool of the foreground segment."""
        found: Rows = np.take_along_axis(self.places, self.foreground[:, None], 1)[:, 0]
        return found


def assemble(background: Rows, foreground: Rows, position: Rows) -> Rows:
    """(N, m) places of mosaics: the foreground at its position, the background around it in the order given.

    Args:
        background: (N, m - 1) places.
        foreground: (N,) places.
        position: (N,) in [0, m).
    """
    places = np.empty((len(position), background.shape[1] + 1), np.int64)
    is_foreground = np.arange(places.shape[1]) == position[:, None]
    places[is_foreground] = foreground
    # A mask is filled row by row, which keeps every mosaic's background in its own row.
    places[~is_foreground] = background.ravel()
    return places


class MosaicExamples(Dataset[Batch]):
    """One split as `Batch`es: an item is a list of rows, whose segments are taken from the pool at once.

    All mosaics have m segments, so nothing is padded; the rationale marks the foreground segment.

    Args:
        pool: where the segments are.
        mosaics: which of them every row has.
    """

    def __init__(self, pool: SegmentPool, mosaics: Mosaics) -> None:
        self.pool = pool
        self.mosaics = mosaics

    @property
    def lengths(self) -> Rows:
        """(N,) segments of every row."""
        count, num_segments = self.mosaics.places.shape
        return np.full(count, num_segments, np.int64)

    def __len__(self) -> int:
        return len(self.mosaics.places)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The rows as one batch, in the order given.

        Raises:
            ConfigurationError: Lightning replaced the sampler, so that single rows are asked for.
        """
        index = row_index(rows, "--data.train_mosaics")
        places = self.mosaics.places[index]
        return Batch(
            tokens=torch.from_numpy(self.pool.take(places)),
            mask=torch.ones(places.shape, dtype=torch.bool),
            labels=torch.from_numpy(self.mosaics.labels[index]),
            rows=torch.from_numpy(index),
            rationale=torch.from_numpy(np.arange(places.shape[1]) == self.mosaics.foreground[index, None]),
            has_rationale=torch.ones(len(index), dtype=torch.bool),
        )

    def sha256(self) -> str:
        """Of the segments, how they are put together, and the labels."""
        digest = hashlib.sha256(self.pool.sha256.encode())
        for part in (self.mosaics.places, self.mosaics.labels, self.mosaics.foreground):
            # Of one byte order and width, or the same data would have another digest on another machine.
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class MosaicOptions:
    """How many mosaics of how many segments; out of range is a `ConfigurationError`.

    Attributes:
        num_segments: m, at least 2.
        train_mosaics: of the training split, at least 1.
        validation_mosaics: of the validation split.
        test_mosaics: of the test split.
    """

    num_segments: int
    train_mosaics: int
    validation_mosaics: int
    test_mosaics: int

    def __post_init__(self) -> None:
        check_numbers(at_least=2, num_segments=self.num_segments)
        sizes = {f"{split}_mosaics": self.mosaics(split) for split in SPLITS}
        check_numbers(at_least=1, **sizes, advice="no split may be empty")

    def mosaics(self, split: SplitName) -> int:
        """Mosaics of a split."""
        count: int = getattr(self, f"{split}_mosaics")
        return count


@dataclass(frozen=True)
class ClassOptions(MosaicOptions):
    """The same where the segments are of ten classes.

    Attributes:
        num_foreground_classes: k, the classes 0 to k - 1 of the segments, at least 2 and less than all.
        background_share: share, above 0 and at most 1, of the other classes from which background segments come: the
            first of them, rounded, at least one.
    """

    num_foreground_classes: int
    background_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(at_least=2, below=NUM_CLASSES, num_foreground_classes=self.num_foreground_classes)
        check_numbers(above=0, at_most=1, background_share=self.background_share)

    @property
    def num_background_classes(self) -> int:
        """Classes from which background segments come, which follow the foreground's."""
        return max(1, round(self.background_share * (NUM_CLASSES - self.num_foreground_classes)))

    @property
    def first_unused_class(self) -> int:
        """Number of foreground and background classes together."""
        return self.num_foreground_classes + self.num_background_classes


NUM_CLASSES = 10
"""Classes of the segments in all published data sets but the error modes."""


def seeds(options: MosaicOptions, published_train: int, published_test: int) -> dict[SplitName, range]:
    """The seed of every mosaic: 0 and up for train, then test, as published, then validation.

    A smaller split is the beginning of the published one, and the others stay as they are.

    Args:
        options: sizes of the splits.
        published_train: training mosaics of the published protocol, after whose seeds those of the test begin.
        published_test: its test mosaics, after whose seeds those of the validation begin.

    Returns:
        Ranges that share no seed.
    """
    # Behind the larger of the two: more training mosaics than published must not run into those of the test.
    test = max(published_train, options.train_mosaics)
    validation = test + max(published_test, options.test_mosaics)
    starts: dict[SplitName, int] = {"train": 0, "validation": validation, "test": test}
    return {split: range(start, start + options.mosaics(split)) for split, start in starts.items()}


class SegmentDataModule(_SplitLoaders):
    """Mosaics from options to batches; a data set says what its segments are.

    After `setup` it has `manifest`, `label_names`, `spec`, `examples(split)` and the data loaders. Training batches
    change from epoch to epoch and depend on the seed and the epoch alone, so a resumed run goes on as it would have.

    Args:
        options: sizes of the splits and whatever else decides the mosaics.
        label_names: one per class of the foreground.
        batch_size: mosaics of a training batch, per process.
        eval_batch_size: mosaics of a validation, test or prediction batch, per process.
        num_workers: processes that make batches.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    corpus: str = "mosaics"
    segment_shape: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        options: MosaicOptions,
        label_names: tuple[str, ...],
        batch_size: int,
        eval_batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        check_numbers(at_least=1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_numbers(at_least=0, num_workers=num_workers)
        self.mosaic_options = options
        self.label_names = label_names
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self._splits: dict[SplitName, MosaicExamples] = {}
        self._manifest: dict[str, Any] = {}

    # What a data set says of itself.

    def make(self) -> dict[SplitName, MosaicExamples]:
        """All splits; the segments are prepared."""
        raise NotImplementedError

    def source(self) -> dict[str, Any]:
        """`kind`, `location` and `revision` of the segments."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Sentences for the manifest: what a reader of a result must know about the data."""
        return []

    # Lightning's second step, and what the others read after it.

    def setup(self, stage: str | None = None) -> None:
        """Put the mosaics together, once.

        Raises:
            ConfigurationError: there are too few training mosaics for all classes.
        """
        if not self._splits:
            splits = self.make()
            self._manifest = self._describe(splits)
            # Last: where the description fails, the module is as before `setup`.
            self._splits = splits

    @property
    def spec(self) -> DataSpec:
        """What a backbone must know."""
        return DataSpec(
            num_classes=len(self.label_names),
            vocabulary_size=0,
            embedding_size=int(np.prod(self.segment_shape)),
            label_names=self.label_names,
            segment_shape=self.segment_shape,
        )

    @property
    def manifest(self) -> dict[str, Any]:
        """Where the data came from and what was made of it; JSON."""
        self._ready()
        return self._manifest

    def examples(self, split: str) -> MosaicExamples:
        """A split in random access.

        Raises:
            ConfigurationError: there is no such split, or `setup` was not called.
        """
        splits: dict[Any, MosaicExamples] = self._ready()
        if split not in splits:
            raise ConfigurationError(f"Expected a split out of {', '.join(SPLITS)}, but got {split!r}; name another.")
        return splits[split]

    def annotations(self, split: str) -> frozenset[str]:
        """Which marks of segments the batches of a split carry: the foreground is the rationale."""
        return frozenset({"rationale"})

    def train_dataloader(self) -> DataLoader[Batch]:
        """Every training mosaic once, in an order that changes every epoch."""
        return self._loader("train", self.batch_size, shuffle=True)

    def _loader(self, split: str, batch_size: int, **options: Any) -> DataLoader[Batch]:
        examples = self.examples(split)
        return batch_loader(examples, batch_size, trainer=self.trainer, num_workers=self.num_workers, **options)

    def _ready(self) -> dict[SplitName, MosaicExamples]:
        if not self._splits:
            raise ConfigurationError(
                "Expected prepared data, but got a data module before `setup`; call `prepare_data()` and `setup()`."
            )
        return self._splits

    def _describe(self, splits: dict[SplitName, MosaicExamples]) -> dict[str, Any]:
        train = splits["train"]
        contents: dict[str, Any] = {}
        for name, examples in splits.items():
            counts = np.bincount(examples.mosaics.labels, minlength=len(self.label_names))
            if name == "train" and not counts.all():
                missing = self.label_names[int(counts.argmin())]
                raise ConfigurationError(
                    f"Expected training mosaics of every class, but got none of {missing} among {len(examples)}; raise "
                    "`train_mosaics`."
                )
            contents[name] = {
                "rows": len(examples),
                "classes": dict(zip(self.label_names, counts.tolist(), strict=True)),
                "sha256": examples.sha256(),
            }
            if name != "train":
                contents[name]["overlap"] = _overlap(examples, train)
        return {
            "name": self.corpus,
            "source": self.source(),
            "protocol": getattr(self, "protocol", None),
            "options": asdict(self.mosaic_options),
            "label_names": list(self.label_names),
            "notes": self.notes(),
            "splits": contents,
        }


def _overlap(examples: MosaicExamples, train: MosaicExamples) -> int:
    """How many rows have a foreground segment that is the foreground of a training mosaic too."""
    # The same place in another pool is another segment.
    if examples.pool is not train.pool:
        return 0
    return int(np.isin(examples.mosaics.foreground_places, train.mosaics.foreground_places).sum())
