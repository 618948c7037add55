"""Where examples come from: a local folder, files of the user's own, the Hugging Face hub; all read row by row."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attn_lightning.data.formats import EXTENSIONS, FileOptions, Row, class_names, is_delimited, rows_of
from attn_lightning.errors import ConfigurationError, DataFormatError

logger = logging.getLogger(__name__)

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
WAYS_OUT = (
    "Put the files into a local folder, <root>/{name}/{file} and so on, and name the root with `--data.root` or "
    "ATTN_LIGHTNING_DATA. Or run on embedded data that needs no download: {embedded}."
)
GENERATED = "embedded"
"""Kind of a source that a generator of this package makes, whose revision stands for its options."""

HUB_TIMEOUT = 10.0
"""Seconds to find out whether the hub answers; its own client retries for half a minute and more."""


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        name: file or data set, for messages.
        unit: what `rows` counts: `line` of a text file or `row` of a table, both from 1.
        rows: a fresh iterator over (number, row).
        class_names: by column, what `datasets` calls the classes in the file; their numbers are names in the rows.
        advice: what to do about a missing column.
    """

    name: str
    unit: str
    rows: Callable[[], Iterator[tuple[int, Row]]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    advice: str = "name the columns in the configuration"

    def place(self, number: int) -> str:
        """`train.csv, line 7`."""
        return f"{self.name}, {self.unit} {number}"


@dataclass(frozen=True)
class Source:
    """A data set as it was found.

    Attributes:
        kind: `folder`, `files`, `hub` or `embedded`.
        location: path or name.
        revision: commit on the hub; for files the SHA-256 of their content.
        splits: the splits that exist.
        read_as: how files are read where they do not say it themselves.
    """

    kind: str
    location: str
    revision: str
    splits: Mapping[str, Split]
    read_as: FileOptions = field(default_factory=FileOptions)


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, pinned.

    Attributes:
        repository: `owner/name`.
        revision: the commit; a branch name would let the data change under a result.
        file: what the first file of a local copy would be called, for messages.
        embedded: what to run instead, for messages.
    """

    repository: str
    revision: str
    file: str = "train.jsonl"
    embedded: str = "`make run EXP=ivat_planted`"


def find(name: str, root: Path | None, hub: Hub | None, names: Sequence[str]) -> Source:
    """The local folder if there is one, else the hub.

    Args:
        name: folder below `root`.
        root: folder of data sets, or None.
        hub: where else to look.
        names: splits that must be there.

    Raises:
        ConfigurationError: the root does not exist, or neither source has the data; names both ways out.
    """
    if root is not None and not root.is_dir():
        raise ConfigurationError(
            f"Expected `--data.root` (or ATTN_LIGHTNING_DATA) to be a folder, but got {root}; correct the path."
        )
    # A local copy wins over the hub: what a machine without network runs is what others see too.
    if root is not None and (root / name).is_dir():
        return from_folder(root / name, names)
    if root is not None:
        logger.warning("%s has no folder %s; trying the Hugging Face hub", root, name)
    return from_hub(hub, name, names)


def from_folder(folder: Path, names: Sequence[str]) -> Source:
    """The files `{train,validation,test}` of a folder, in the first format of `EXTENSIONS` that is there."""
    found: dict[str, Path] = {}
    for split in SPLITS:
        paths = [path for extension in EXTENSIONS if (path := folder / f"{split}{extension}").is_file()]
        # In the order of `EXTENSIONS`, so that of two copies it is always the same one that counts.
        if paths:
            found[split] = paths[0]
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigurationError(
            f"Expected {folder} to hold {', '.join(missing)} as one of {', '.join(EXTENSIONS)}, but got "
            f"{sorted(path.name for path in folder.iterdir())}; add the files or name another root."
        )
    return from_files(found, kind="folder", location=str(folder))


def from_files(
    paths: Mapping[str, Path], kind: str = "files", location: str | None = None, read_as: FileOptions | None = None
) -> Source:
    """Files of any name, one per split.

    Raises:
        ConfigurationError: a file is missing, its extension is not one of `EXTENSIONS`, or columns or a delimiter are
            given and no file has fields.
    """
    options = read_as or FileOptions()
    for path in paths.values():
        if not path.is_file():
            raise ConfigurationError(f"Expected a file at {path}, but got none; correct the path.")
        if not path.name.endswith(EXTENSIONS):
            raise ConfigurationError(f"Expected {path.name} to end in {', '.join(EXTENSIONS)}; convert the file.")
    digest = hashlib.sha256()
    # Sorted, so that the digest does not depend on the order in which files were named.
    for split, path in sorted(paths.items()):
        with path.open("rb") as file:
            # With the name, whose end decides how the content is read.
            digest.update(f"{split}:{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    if (options.columns or options.delimiter) and not any(is_delimited(path, options) for path in paths.values()):
        raise ConfigurationError(
            f"Expected a file with fields for `{options.prefix}columns` or `{options.prefix}delimiter`, but got "
            f"{', '.join(path.name for path in paths.values())}; leave the option out."
        )
    splits = {split: _file_split(path, options) for split, path in paths.items()}
    return Source(kind, location or ", ".join(map(str, paths.values())), digest.hexdigest(), splits, options)


def from_hub(hub: Hub | None, name: str, names: Sequence[str]) -> Source:
    """The pinned revision on the hub; nothing is downloaded before the rows are read.

    Raises:
        ConfigurationError: there is no such copy on the hub; names both ways out.
    """
    if hub is None:
        raise ConfigurationError(f"Expected a local copy of {name}, but got none. {_ways_out(name, None)}")
    loaded = _Download(hub, name)
    splits = {split: Split(f"{hub.repository} {split}", "row", loaded.reader(split)) for split in names}
    return Source("hub", hub.repository, hub.revision, splits)


def _ways_out(name: str, hub: Hub | None) -> str:
    described = hub or Hub
    return WAYS_OUT.format(name=name, file=described.file, embedded=described.embedded)


class _Download:
    """One `load_dataset` for all splits, when the first row is asked for."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub, self.name = hub, name
        self.dataset: Any = None

    def reader(self, split: str) -> Callable[[], Iterator[tuple[int, Row]]]:
        def rows() -> Iterator[tuple[int, Row]]:
            # Once for all splits, and only when a row is asked for: a prepared data set never gets here.
            if self.dataset is None:
                self.dataset = download(self.hub, self.name)
            return enumerate(self.dataset[split], start=1)

        return rows


def download(hub: Hub, name: str) -> Any:
    """`datasets.load_dataset` at the pinned revision; a hub that does not answer is noticed within seconds.

    Raises:
        ConfigurationError: the hub cannot be reached and no earlier download is there; names both ways out.
    """
    import datasets  # a second to import; reading local files does not need it
    from huggingface_hub import HfApi

    logger.info("loading %s at %s from the Hugging Face hub", hub.repository, hub.revision)
    offline = datasets.config.HF_HUB_OFFLINE
    silence = None
    try:
        if not offline:
            # A question with a time limit first: `load_dataset` itself retries for half a minute and more where there
            # is no network.
            HfApi().dataset_info(hub.repository, revision=hub.revision, timeout=HUB_TIMEOUT)
    # Whatever came in the way, an earlier download may still be there.
    except Exception as error:
        silence = error
        logger.warning("the hub does not answer (%s); looking for an earlier download", error)
        datasets.config.HF_HUB_OFFLINE = True
    try:
        return datasets.load_dataset(hub.repository, revision=hub.revision)
    except Exception as error:
        raise ConfigurationError(
            f"Expected a local copy of {name} or the hub's {hub.repository}, but got neither "
            f"({type(silence or error).__name__}: {silence or error}). {_ways_out(name, hub)}"
        ) from error
    finally:
        # It holds for the whole process, and another data set may be reachable.
        datasets.config.HF_HUB_OFFLINE = offline


def first_row(split: Split) -> Row:
    """The first row of a split, {} if it is empty."""
    return next(split.rows(), (0, {}))[1]


def _file_split(path: Path, options: FileOptions) -> Split:
    advice = Split.advice
    if is_delimited(path, options) and not options.columns:
        advice += (
            f", or give them with `{options.prefix}columns` if the first line of the file is no header, or the "
            f"delimiter with `{options.prefix}delimiter`"
        )
    unit = "row" if path.suffix in (".parquet", ".json") else "line"
    return Split(path.name, unit, lambda: rows_of(path, options), class_names(path), advice)


def take(row: Row, column: str, split: Split, number: int) -> Any:
    """The value of a column; lists the columns there are where it is missing."""
    if column not in row:
        raise DataFormatError(
            f"Expected a column {column!r}, but got {', '.join(f'{name!r:.60}' for name in row)} in "
            f"{split.place(number)}; {split.advice}."
        )
    return row[column]


def empty(split: Split) -> DataFormatError:
    """The error of a split without rows."""
    return DataFormatError(f"Expected examples in {split.name}, but got an empty file; name another file.")
