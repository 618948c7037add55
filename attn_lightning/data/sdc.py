"""Selective dependence classification with points: blobs, ellipses and the error modes, made on the spot.

Exactly one of the m segments of a mosaic, the foreground, carries the label; the others are background. The published
data are drawn here as their authors drew them, from NumPy's legacy generator, whose stream NumPy has promised never to
change; each mosaic has a seed of its own. No global generator is touched.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.buckets import Rows
from attn_lightning.data.legacy_random import LegacyIntegers
from attn_lightning.data.segments import (
    NUM_CLASSES,
    ClassOptions,
    MosaicExamples,
    MosaicOptions,
    Mosaics,
    Points,
    SegmentDataModule,
    assemble,
    seeds,
)
from attn_lightning.data.sources import GENERATED, SPLITS, SplitName

Kind = Literal["em1", "em2", "em3"]
FloatArray = NDArray[np.float64]

PUBLISHED_TRAIN = PUBLISHED_TEST = 3000
"""Mosaics of the published blobs and ellipses."""

SHARED_POINTS = (
    "As published, the mosaics of all splits are drawn from the same points; `overlap` counts those whose foreground "
    "point is the foreground of a training mosaic."
)

POINTS_SEED = 12
_VERSION = 1
"""Raised whenever the same options would give other mosaics."""

BLOB_MEANS = ((4, 6.5), (5.5, 6), (4.5, 4.5), (3, 3.5), (2.5, 5.5), (3.5, 8), (5.5, 8), (7, 6.5), (6.5, 4.5), (5, 3))
"""Of the ten blobs; the first three are foreground."""

BLOB_VARIANCE = 0.01

ELLIPSE_MEANS = (
    (3, 3, 3, 3, 0),
    (4, 4, 4, 4, 0),
    (10, 5, 5, 10, 0),
    (-10, -10, -10, -10, 0),
    (-21, 4, 4, -21, 0),
    (-10, 18, 18, -10, 0),
    (4, 20, 4, 20, 0),
    (4, -20, -20, 4, 0),
    (20, 20, 20, 20, 0),
    (20, -10, -10, 20, 0),
)
"""Of the ten ellipses; the first three are foreground."""

ELLIPSE_WIDE_AXES = (1, 0, 1, 1, 0, 1, 0, 0, 1, 1)
"""The coordinate whose variance is 16; all other entries of the covariance are 1."""

POINTS_PER_ELLIPSE = 500


def blob_points() -> tuple[FloatArray, Rows]:
    """The 5,000 points of the ten blobs, (5000, 2), and their classes, which are in random order."""
    classes: Rows = np.random.RandomState(POINTS_SEED).randint(0, NUM_CLASSES, 5000).astype(np.int64)
    # Seeded a second time, as the authors did: classes and points come from the same start of the stream.
    random = np.random.RandomState(POINTS_SEED)
    points = np.empty((len(classes), 2))
    for of_class, mean in enumerate(BLOB_MEANS):
        members = classes == of_class
        # All points of a class at once and in the order of the classes, as they were drawn.
        points[members] = random.multivariate_normal(mean, BLOB_VARIANCE * np.eye(2), int(members.sum()))
    return points, classes


def ellipse_points() -> tuple[FloatArray, Rows]:
    """The 5,000 points of the ten ellipses, (5000, 5), and their classes, 500 of each in their order."""
    random = np.random.RandomState(POINTS_SEED)
    points = []
    for mean, wide in zip(ELLIPSE_MEANS, ELLIPSE_WIDE_AXES, strict=True):
        covariance = np.ones((5, 5))
        covariance[wide, wide] = 16
        points.append(random.multivariate_normal(mean, covariance, POINTS_PER_ELLIPSE))
    return np.concatenate(points), np.repeat(np.arange(NUM_CLASSES), POINTS_PER_ELLIPSE)


def blob_mosaics(of_seeds: range, classes: Rows, options: ClassOptions) -> Mosaics:
    """One mosaic per seed: the class of the foreground, its position, then segment by segment class and point.

    Args:
        of_seeds: of the mosaics.
        classes: (P,) class of every point.
        options: m, k and the background classes.
    """
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    starts = np.cumsum(sizes) - sizes
    draws = LegacyIntegers(of_seeds)
    labels = draws.below(options.num_foreground_classes)
    foreground = draws.below(options.num_segments)
    places = np.empty((len(of_seeds), options.num_segments), np.int64)
    for segment in range(options.num_segments):
        is_background = foreground != segment
        # Below 1 nothing is drawn and the generator stays where it is, as in the authors' branch of the foreground.
        other = draws.below(np.where(is_background, options.num_background_classes, 1))
        of_class = np.where(is_background, options.num_foreground_classes + other, labels)
        # The authors' `choice(pool, size=1)` draws the same number as `randint`.
        places[:, segment] = order[starts[of_class] + draws.below(sizes[of_class])]
    return Mosaics(places, labels, foreground)


def uniform_mosaics(of_seeds: range, background: Rows, foreground: Rows, classes: Rows, num_segments: int) -> Mosaics:
    """One mosaic per seed: m - 1 background segments, the foreground segment, its position, all uniform.

    Args:
        of_seeds: of the mosaics.
        background: places in the pool from which background segments are drawn.
        foreground: places from which the foreground is drawn.
        classes: (P,) class of every segment of the pool; the label is that of the foreground.
        num_segments: m.
    """
    draws = LegacyIntegers(of_seeds)
    # In the order of the authors' draws: another order gives other mosaics for the same seed.
    others = np.stack([draws.below(len(background)) for _ in range(num_segments - 1)], 1)
    places = foreground[draws.below(len(foreground))]
    position = draws.below(num_segments)
    return Mosaics(assemble(background[others], places, position), classes[places], position)


class PointMosaics(SegmentDataModule, ABC):
    """What blobs and ellipses share: published points of ten classes and the mosaics of the seeds 0 to 5999.

    The seeds 0 to 2999 are the training mosaics and 3000 to 5999 those of the test. There was no validation split: ours
    has the seeds after those. Smaller splits are the beginning of the published ones.

    Args:
        num_segments: m, points of a mosaic, at least 2.
        num_foreground_classes: k, the classes 0 to k - 1 are foreground and the classes of the task, 2 to 9.
        background_share: share, above 0 and at most 1, of the other classes from which background points come: the
            first of them, rounded, at least one.
        train_mosaics: of the training split.
        validation_mosaics: of the validation split.
        test_mosaics: of the test split.
        batch_size: mosaics of a training batch, per process.
        eval_batch_size: mosaics of a validation, test or prediction batch, per process.
        num_workers: processes that make batches; 0 is fast enough.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        num_segments: int = 9,
        num_foreground_classes: int = 3,
        background_share: float = 1.0,
        train_mosaics: int = PUBLISHED_TRAIN,
        validation_mosaics: int = 500,
        test_mosaics: int = PUBLISHED_TEST,
        batch_size: int = 250,
        eval_batch_size: int = 512,
        num_workers: int = 0,
    ) -> None:
        self.options = ClassOptions(
            num_segments=num_segments,
            num_foreground_classes=num_foreground_classes,
            background_share=background_share,
            train_mosaics=train_mosaics,
            validation_mosaics=validation_mosaics,
            test_mosaics=test_mosaics,
        )
        names = tuple(f"{self.corpus.removesuffix('s')}_{label}" for label in range(num_foreground_classes))
        super().__init__(self.options, names, batch_size, eval_batch_size, num_workers)

    @abstractmethod
    def points(self) -> tuple[FloatArray, Rows]:
        """All points and their classes."""

    @abstractmethod
    def mosaics(self, of_seeds: range, classes: Rows) -> Mosaics:
        """One mosaic of these points per seed."""

    def make(self) -> dict[SplitName, MosaicExamples]:
        """All splits, of the same points."""
        pool = Points(*self.points())
        ranges = seeds(self.options, PUBLISHED_TRAIN, PUBLISHED_TEST)
        return {split: MosaicExamples(pool, self.mosaics(ranges[split], pool.classes)) for split in SPLITS}

    def source(self) -> dict[str, Any]:
        """Embedded; the revision stands for the options and the generator."""
        return _embedded(self.corpus, self.options)

    def notes(self) -> list[str]:
        """The splits share their points."""
        return [SHARED_POINTS]


class Blobs(PointMosaics):
    """Mosaics of nine points in the plane out of ten blobs; the one from blobs 0 to 2 decides the label.

    Bit for bit the published data: 5,000 points from `multivariate_normal(mean, 0.01 I)` after `seed(12)`, and the
    mosaics of the seeds 0 to 2999 (train) and 3000 to 5999 (test). There was no validation split: ours has the seeds
    after those.
    """

    corpus = "blobs"
    segment_shape: ClassVar[tuple[int, ...]] = (2,)

    def points(self) -> tuple[FloatArray, Rows]:
        """See `blob_points`."""
        return blob_points()

    def mosaics(self, of_seeds: range, classes: Rows) -> Mosaics:
        """See `blob_mosaics`."""
        return blob_mosaics(of_seeds, classes, self.options)


class Ellipses(PointMosaics):
    """Mosaics of nine points in five dimensions out of ten ellipses; the one from ellipses 0 to 2 decides the label.

    Bit for bit the published data: 500 points per class from `multivariate_normal` after `seed(12)`, and the mosaics of
    the seeds 0 to 2999 (train) and 3000 to 5999 (test). There was no validation split: ours has the seeds after those.
    """

    corpus = "ellipses"
    segment_shape: ClassVar[tuple[int, ...]] = (5,)

    def points(self) -> tuple[FloatArray, Rows]:
        """See `ellipse_points`."""
        return ellipse_points()

    def mosaics(self, of_seeds: range, classes: Rows) -> Mosaics:
        """See `uniform_mosaics`; the points are in the order of their classes."""
        first, unused = self.options.num_foreground_classes, self.options.first_unused_class
        background = np.flatnonzero((classes >= first) & (classes < unused))
        return uniform_mosaics(
            of_seeds, background, np.flatnonzero(classes < first), classes, self.options.num_segments
        )


@dataclass(frozen=True)
class Boxes:
    """Where the points of an error mode are; every box is (low x, low y, high x, high y).

    Attributes:
        foreground: one box per class.
        background: the box of all background points.
    """

    foreground: tuple[tuple[float, float, float, float], ...]
    background: tuple[float, float, float, float]


BOXES: dict[Kind, Boxes] = {
    "em1": Boxes(((5, 2, 6, 4), (5, -5, 6, -3), (8, -2, 9, 0)), (1, -1, 2, 5)),
    "em2": Boxes(((5, 2, 6, 4), (5, -5, 6, -3), (-3, -2, -2, 0)), (1, -8, 2, 5)),
    "em3": Boxes(tuple((1.5, low, 1.6, low + 0.1) for low in (7, 5, 3, 1, -1, -3)), (2.1, 2.0, 2.2, 2.1)),
}


@dataclass(frozen=True)
class ErrorModeOptions(MosaicOptions):
    """Options of `ErrorMode`.

    Attributes:
        kind: which boxes.
        seed: of all points.
    """

    kind: Kind
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(choices=get_args(Kind), kind=self.kind)
        check_numbers(at_least=0, seed=self.seed)


def error_mode_examples(split: SplitName, options: ErrorModeOptions) -> MosaicExamples:
    """A split of an error mode: uniform labels and positions, every point uniform in its box.

    Each split has its own random stream, and a smaller split is the beginning of a larger one. Only uniform doubles are
    drawn, because NumPy may change how its newer generators use the stream for anything else.
    """
    boxes = BOXES[options.kind]
    count, m = options.mosaics(split), options.num_segments
    # One row of draws per mosaic: a smaller split is the beginning of a larger one.
    drawn = np.random.default_rng([options.seed, SPLITS.index(split)]).random((count, 2 + 2 * m))
    labels = (drawn[:, 0] * len(boxes.foreground)).astype(np.int64)
    position = (drawn[:, 1] * m).astype(np.int64)
    is_foreground = np.arange(m) == position[:, None]
    # The background is the class after the last of the foreground.
    classes = np.where(is_foreground, labels[:, None], len(boxes.foreground))
    corners = np.array([*boxes.foreground, boxes.background])[classes]
    low, high = corners[..., :2], corners[..., 2:]
    points = low + drawn[:, 2:].reshape(count, m, 2) * (high - low)
    places = np.arange(count * m).reshape(count, m)
    return MosaicExamples(Points(points.reshape(-1, 2), classes.ravel()), Mosaics(places, labels, position))


class ErrorMode(SegmentDataModule):
    """Toy mosaics on which attention goes wrong in one of three ways while the accuracy may stay high.

    Points in the plane, uniform in boxes: one box per class for the foreground, one for the background. The boxes are
    the published ones; the points are our own draw.

    Args:
        kind: `em1`, `em2` (three classes each) or `em3` (six classes).
        num_segments: m, points of a mosaic, at least 2.
        train_mosaics: of the training split.
        validation_mosaics: of the validation split.
        test_mosaics: of the test split.
        seed: of all points; independent of the seed of the training.
        batch_size: mosaics of a training batch, per process.
        eval_batch_size: mosaics of a validation, test or prediction batch, per process.
        num_workers: processes that make batches; 0 is fast enough.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    segment_shape: ClassVar[tuple[int, ...]] = (2,)

    def __init__(
        self,
        kind: Kind = "em1",
        num_segments: int = 9,
        train_mosaics: int = 3000,
        validation_mosaics: int = 500,
        test_mosaics: int = 1000,
        seed: int = 0,
        batch_size: int = 250,
        eval_batch_size: int = 512,
        num_workers: int = 0,
    ) -> None:
        self.options = ErrorModeOptions(
            kind=kind,
            num_segments=num_segments,
            train_mosaics=train_mosaics,
            validation_mosaics=validation_mosaics,
            test_mosaics=test_mosaics,
            seed=seed,
        )
        names = tuple(f"box_{label}" for label in range(len(BOXES[kind].foreground)))
        super().__init__(self.options, names, batch_size, eval_batch_size, num_workers)
        self.corpus = kind

    def make(self) -> dict[SplitName, MosaicExamples]:
        """All splits, each with points of its own."""
        return {split: error_mode_examples(split, self.options) for split in SPLITS}

    def source(self) -> dict[str, Any]:
        """Embedded; the revision stands for the options and the generator."""
        return _embedded(self.corpus, self.options)


def _embedded(location: str, options: MosaicOptions) -> dict[str, Any]:
    content = json.dumps([_VERSION, location, asdict(options)], sort_keys=True)
    return {"kind": GENERATED, "location": location, "revision": hashlib.sha256(content.encode()).hexdigest()}
