"""Mosaics of CIFAR-10 images: decoded once into a memory-mapped cache, put together when a batch is asked for."""

import hashlib
import io
import json
import logging
import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.buckets import Rows
from attn_lightning.data.cache import MANIFEST, build_aside, default_cache, is_whole
from attn_lightning.data.formats import Row
from attn_lightning.data.labels import Labels
from attn_lightning.data.sdc import uniform_mosaics
from attn_lightning.data.segments import (
    ClassOptions,
    MosaicExamples,
    SegmentDataModule,
    seeds,
)
from attn_lightning.data.sources import SPLITS, Hub, Source, Split, SplitName, find, take
from attn_lightning.errors import ConfigurationError, DataFormatError, one_line

logger = logging.getLogger(__name__)

Protocol = Literal["disjoint", "released"]
ImageSplit = Literal["train", "test"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
PUBLISHED_TRAIN, PUBLISHED_TEST = 30_000, 10_000
"""Mosaics of the published protocol."""

FORMAT = 1
"""Part of the cache key: raised whenever the same files would be decoded to something else."""

VALIDATION_SHARE = 0.1
"""Of the training images of every class, where validation mosaics have images of their own."""


class Images:
    """A pool of decoded images, mapped into memory: (P, 3, 32, 32) uint8.

    Args:
        path: of the file, the images one after the other.
        classes: (P,).
        sha256: of labels and images.
    """

    def __init__(self, path: Path, classes: Rows, sha256: str) -> None:
        self.path = path
        self.classes = classes
        self.sha256 = sha256

    def __getstate__(self) -> dict[str, Any]:
        # A map would be copied to every worker that is started afresh; each one opens the file itself.
        return {name: value for name, value in vars(self).items() if name != "pixels"}

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(P, 3, 32, 32) of 0 to 255, channels first."""
        return np.memmap(self.path, np.uint8, "r", shape=(len(self.classes), *SHAPE))

    def take(self, places: Rows) -> NDArray[np.float32]:
        """(..., 3, 32, 32) in [-1, 1]: `(pixel / 255 - 0.5) / 0.5`, as the authors' code has it."""
        taken: NDArray[np.float32] = np.asarray(self.pixels[places]).astype(np.float32)
        # In place and in the order of the authors' transform, so that pixels are theirs to the last bit.
        taken /= 255
        taken -= 0.5
        taken /= 0.5
        return taken


@dataclass(frozen=True)
class CifarOptions(ClassOptions):
    """Options of `CifarMosaics`.

    Attributes:
        protocol: `disjoint` or `released`.
        images_per_class: the number of training images of every class, the first; None uses all.
    """

    protocol: Protocol
    images_per_class: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(choices=get_args(Protocol), protocol=self.protocol)
        check_numbers(at_least=2, images_per_class=self.images_per_class)


class CifarMosaics(SegmentDataModule):
    """Mosaics of nine CIFAR-10 images; the one plane, car or bird among images of other classes is the label.

    Mosaic i of `seed(i)`: eight background images, the foreground image and its position, all uniform; 30,000 seeds for
    train, the next 10,000 for test, those after for validation, of which the published protocol has none. Smaller
    splits are the beginning of these. Images are numbered in the order of their file; the authors shuffled theirs
    without a seed, so the published mosaics themselves cannot be had again.

    `released` makes all mosaics from the training images, as the authors did: 86.6 % of the test foregrounds are then
    foregrounds of training mosaics. `disjoint`, the default, makes test mosaics from the test images and validation
    mosaics from the last tenth of the training images of every class, which no training mosaic uses.

    The images come from `<root>/cifar10/{train,test}.parquet` with the hub's columns `img` and `label`, else from
    `uoft-cs/cifar10` on the hub. They are decoded once into a cache of 3 KB each and mapped from there; a batch is put
    together from nine places per mosaic, so memory holds neither images nor mosaics.

    Args:
        root: folder of data sets; None takes the environment variable ATTN_LIGHTNING_DATA, and without it the hub.
        cache: folder of the prepared data; None takes ATTN_LIGHTNING_CACHE, else the user's cache folder.
        protocol: `disjoint` or `released`.
        num_segments: m, images of a mosaic, at least 2.
        num_foreground_classes: k, the first k classes are foreground and the classes of the task, 2 to 9.
        background_share: share, above 0 and at most 1, of the other classes from which background images come: the
            first of them, rounded, at least one.
        images_per_class: the number of training images of every class, the first; None uses all.
        train_mosaics: of the training split.
        validation_mosaics: of the validation split.
        test_mosaics: of the test split.
        batch_size: mosaics of a training batch, per process.
        eval_batch_size: mosaics of a validation, test or prediction batch, per process.
        num_workers: processes that make batches.

    Raises:
        ConfigurationError: an option is out of its range, or the images are nowhere to be found.
        DataFormatError: a row is not an image of CIFAR-10's kind, or a class has too few; names file and row.
    """

    corpus = "cifar10"
    segment_shape: ClassVar[tuple[int, ...]] = SHAPE

    def __init__(
        self,
        root: Path | None = None,
        cache: Path | None = None,
        protocol: Protocol = "disjoint",
        num_segments: int = 9,
        num_foreground_classes: int = 3,
        background_share: float = 1.0,
        images_per_class: int | None = None,
        train_mosaics: int = PUBLISHED_TRAIN,
        validation_mosaics: int = 1000,
        test_mosaics: int = PUBLISHED_TEST,
        batch_size: int = 250,
        eval_batch_size: int = 250,
        num_workers: int = 0,
    ) -> None:
        self.options = CifarOptions(
            num_segments=num_segments,
            num_foreground_classes=num_foreground_classes,
            background_share=background_share,
            train_mosaics=train_mosaics,
            validation_mosaics=validation_mosaics,
            test_mosaics=test_mosaics,
            protocol=protocol,
            images_per_class=images_per_class,
        )
        super().__init__(self.options, CLASSES[:num_foreground_classes], batch_size, eval_batch_size, num_workers)
        environment = os.environ.get("ATTN_LIGHTNING_DATA")
        self.root = root or (Path(environment) if environment else None)
        self.cache = cache or default_cache()
        self.protocol = protocol

    @cached_property
    def found(self) -> Source:
        """The source of the images, looked for once."""
        hub = Hub(
            "uoft-cs/cifar10",
            "0b2714987fa478483af9968de7c934580d0bb9a2",
            file="train.parquet",
            embedded="`--data Blobs`",
        )
        return find("cifar10", self.root, hub, get_args(ImageSplit))

    def prepare_data(self) -> None:
        """Decode the images into the cache, on one process; instant if they are there."""
        if not is_whole(self._folder):
            build_aside(self._folder, partial(decode_images, self.found))

    def make(self) -> dict[SplitName, MosaicExamples]:
        """All splits, the images mapped into memory."""
        if not is_whole(self._folder):
            raise ConfigurationError(
                f"Expected prepared data in {self._folder}, but got none; call `prepare_data()` first (the Trainer "
                "does)."
            )
        images = {split: open_images(self._folder, split) for split in get_args(ImageSplit)}
        ranges = seeds(self.options, PUBLISHED_TRAIN, PUBLISHED_TEST)
        return {split: self._examples(split, ranges[split], images) for split in SPLITS}

    def source(self) -> dict[str, Any]:
        """Where the images came from."""
        return {key: getattr(self.found, key) for key in ("kind", "location", "revision")}

    def notes(self) -> list[str]:
        """Which images the splits share."""
        if self.protocol == "disjoint":
            return ["No image is in the mosaics of two splits."]
        return [
            "As released, the mosaics of all splits are made of the training images; `overlap` counts those whose "
            "foreground image is the foreground of a training mosaic."
        ]

    @cached_property
    def _folder(self) -> Path:
        # Without the options: mosaics of every protocol and size are made of the same decoded images.
        content = json.dumps([FORMAT, self.found.kind, self.found.revision])
        return self.cache / f"cifar10-images-{hashlib.sha256(content.encode()).hexdigest()[:20]}"

    def _examples(self, split: SplitName, of_seeds: range, images: dict[ImageSplit, Images]) -> MosaicExamples:
        from_test = self.protocol == "disjoint" and split == "test"
        pool = images["test" if from_test else "train"]
        rows = np.arange(len(pool.classes)) if from_test else training_rows(split, pool.classes, self.options)
        classes, first, unused = (
            pool.classes[rows],
            self.options.num_foreground_classes,
            self.options.first_unused_class,
        )
        # Places in the whole pool and not among the chosen rows: the mosaics' classes are looked up there.
        background, foreground = rows[(classes >= first) & (classes < unused)], rows[classes < first]
        mosaics = uniform_mosaics(of_seeds, background, foreground, pool.classes, self.options.num_segments)
        return MosaicExamples(pool, mosaics)


def training_rows(split: SplitName, classes: Rows, options: CifarOptions) -> Rows:
    """The training images that mosaics of a split are made of, in the order of their file.

    Args:
        split: of the mosaics.
        classes: (P,) of the training images; every class has two or more.
        options: with `disjoint`, the last tenth of every class (rounded, at least one image) is for validation alone.
    """
    chosen = []
    for of_class in range(len(CLASSES)):
        rows = np.flatnonzero(classes == of_class)[: options.images_per_class]
        if options.protocol == "disjoint":
            # The last ones of every class, without a draw: validation images are the same in every run.
            held_out = max(1, round(VALIDATION_SHARE * len(rows)))
            rows = rows[-held_out:] if split == "validation" else rows[:-held_out]
        chosen.append(rows)
    return np.sort(np.concatenate(chosen))


def decode_images(source: Source, folder: Path) -> None:
    """Write the images of both splits as plain bytes, with their classes and a manifest; one image in memory at a time.

    Args:
        source: of the images.
        folder: an empty one.

    Raises:
        DataFormatError: a row is not an image of CIFAR-10's kind, or a class has fewer than two images.
    """
    contents = {}
    for name in get_args(ImageSplit):
        split, digest, classes = source.splits[name], hashlib.sha256(), []
        logger.info("cifar10: decoding the %s images", name)
        with (folder / f"{name}.uint8").open("wb") as file:
            for number, row in split.rows():
                classes.append(_label(row, split, number))
                pixels = decode(take(row, "img", split, number), split, number).tobytes()
                file.write(pixels)
                # The class too: the same images under other labels are other data.
                digest.update(bytes([classes[-1]]) + pixels)
        counts = np.bincount(np.array(classes, np.int64), minlength=len(CLASSES)).tolist()
        # The disjoint protocol needs an image of every class for training and another for validation.
        if min(counts) < 2:
            raise DataFormatError(
                f"Expected at least two images of every class in {split.name}, but got "
                f"{dict(zip(CLASSES, counts, strict=True))}; use a larger copy of CIFAR-10."
            )
        np.save(folder / f"{name}.npy", np.array(classes, np.int64))
        contents[name] = {"rows": len(classes), "classes": counts, "sha256": digest.hexdigest()}
    # Last, when every other file has its full size: `is_whole` compares with these.
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    (folder / MANIFEST).write_text(json.dumps({"splits": contents, "files": sizes}, indent=1), "utf-8")


def open_images(folder: Path, split: ImageSplit) -> Images:
    """The images that `decode_images` wrote, mapped into memory."""
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    return Images(folder / f"{split}.uint8", np.load(folder / f"{split}.npy"), manifest["splits"][split]["sha256"])


def decode(value: Any, split: Split, number: int) -> NDArray[np.uint8]:
    """(3, 32, 32) pixels of a cell of the hub's schema: encoded `bytes`, or the image as `datasets` decodes it.

    Raises:
        DataFormatError: it is neither, damaged, or of another size; names file and row.
    """
    try:
        image = value if isinstance(value, Image.Image) else Image.open(io.BytesIO(value["bytes"]))
        # Copies that were saved with a palette or in grey decode to one channel.
        pixels = np.asarray(image.convert("RGB"))
    # Pillow reports the broken header of a PNG as a SyntaxError.
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError, KeyError) as error:
        raise DataFormatError(
            f"Expected column 'img' to hold an encoded image, but got {type(error).__name__}: {one_line(error)} in "
            f"{split.place(number)}; write the file again in the schema of the hub."
        ) from error
    if pixels.shape != (SHAPE[1], SHAPE[2], SHAPE[0]):
        raise DataFormatError(
            f"Expected images of 32 x 32 pixels, but got {pixels.shape[1]} x {pixels.shape[0]} in "
            f"{split.place(number)}; give CIFAR-10's own."
        )
    return pixels.transpose(2, 0, 1)


def _label(row: Row, split: Split, number: int) -> int:
    label = Labels(CLASSES).index(take(row, "label", split, number), split, number)
    assert label is not None, "all classes are kept"
    return label
