"""Where examples come from: a local folder, files of the user's own, the Hugging Face hub; all read row by row."""

import csv
import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from attn_lightning.errors import ConfigurationError, DataFormatError

logger = logging.getLogger(__name__)

Row = dict[str, Any]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
EXTENSIONS = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz")
WAYS_OUT = (
    "Put the files into a local folder, <root>/{name}/{file} and so on, and name the root with `--data.root` or "
    "ATTN_LIGHTNING_DATA. Or run on embedded data that needs no download: {embedded}."
)
HUB_TIMEOUT = 10.0
"""Seconds to find out whether the hub answers; its own client retries for half a minute and more."""


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        name: file or data set, for messages.
        unit: what `rows` counts: `line` of a text file or `row` of a table, both from 1.
        rows: a fresh iterator over (number, row).
    """

    name: str
    unit: str
    rows: Callable[[], Iterator[tuple[int, Row]]]

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
    """

    kind: str
    location: str
    revision: str
    splits: Mapping[str, Split]


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
        if paths:
            found[split] = paths[0]
    missing = [name for name in names if name not in found]
    if missing:
        raise ConfigurationError(
            f"Expected {folder} to hold {', '.join(missing)} as one of {', '.join(EXTENSIONS)}, but got "
            f"{sorted(path.name for path in folder.iterdir())}; add the files or name another root."
        )
    return from_files(found, kind="folder", location=str(folder))


def from_files(paths: Mapping[str, Path], kind: str = "files", location: str | None = None) -> Source:
    """Files of any name, one per split.

    Raises:
        ConfigurationError: a file is missing or its extension is not one of `EXTENSIONS`.
    """
    for path in paths.values():
        if not path.is_file():
            raise ConfigurationError(f"Expected a file at {path}, but got none; correct the path.")
        if not path.name.endswith(EXTENSIONS):
            raise ConfigurationError(f"Expected {path.name} to end in {', '.join(EXTENSIONS)}; convert the file.")
    digest = hashlib.sha256()
    for split, path in sorted(paths.items()):
        with path.open("rb") as file:
            digest.update(f"{split}:{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    splits = {split: _file_split(path) for split, path in paths.items()}
    return Source(kind, location or ", ".join(map(str, paths.values())), digest.hexdigest(), splits)


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
            HfApi().dataset_info(hub.repository, revision=hub.revision, timeout=HUB_TIMEOUT)
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
        datasets.config.HF_HUB_OFFLINE = offline


def first_row(split: Split) -> Row:
    """The first row of a split, {} if it is empty."""
    return next(split.rows(), (0, {}))[1]


def parquet_label_names(path: Path, column: str) -> tuple[str, ...] | None:
    """The class names that `datasets` wrote into a Parquet file (`ClassLabel`); None for any other file."""
    if path.suffix != ".parquet":
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise DataFormatError(
            f"Expected a Parquet file, but got an error in {path} ({error}); write it again."
        ) from error
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = features.get(column, {}).get("names")
    return tuple(names) if names else None


def _file_split(path: Path) -> Split:
    readers = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    suffix = Path(path.name.removesuffix(".gz")).suffix
    return Split(path.name, "row" if suffix == ".parquet" else "line", lambda: readers[suffix](path))


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[str]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataFormatError(
            f"Expected {path} to be UTF-8, but got byte {error.object[error.start]:#04x} in line {number}; "
            "convert the file."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"Expected {path} to be a whole gzip file, but got an error after line {number} ({error}); "
            "copy or download it again."
        ) from error


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            try:
                row = json.loads(line, object_pairs_hook=_unique)
            except ValueError as error:
                raise DataFormatError(
                    f"Expected one JSON object per line, but got {error} in {path}, line {number}; correct the line."
                ) from error
            if not isinstance(row, dict):
                raise DataFormatError(
                    f"Expected one JSON object per line, but got {type(row).__name__} in {path}, line {number}; "
                    "correct the line."
                )
            yield number, row


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a key twice among {[key for key, _ in pairs]}")
    return row


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    # The default limit of 131,072 characters is less than a long document.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(_lines(path), strict=True)
    try:
        header = next(reader, None)
        if not header:
            return
        _check_unique(path, header)
        start = reader.line_num + 1
        for fields in reader:
            if fields:
                if len(fields) != len(header):
                    raise DataFormatError(
                        f"Expected {len(header)} fields as in the header, but got {len(fields)} in {path}, "
                        f"line {start}; quote fields that contain commas."
                    )
                yield start, dict(zip(header, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataFormatError(
            f"Expected a CSV file, but got {error} in {path}, line {reader.line_num}; correct the quoting."
        ) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 1
    try:
        with pq.ParquetFile(path) as file:
            _check_unique(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1000):
                yield from enumerate(batch.to_pylist(), start=number)
                number += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataFormatError(
            f"Expected a Parquet file, but got an error in {path} after row {number - 1} ({error}); write it again."
        ) from error


def _check_unique(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataFormatError(f"Expected every column once, but got {', '.join(twice)} twice in {path}; rename one.")


@dataclass(frozen=True)
class Columns:
    """Which columns of a source are read.

    Attributes:
        text: the text; not needed where `tokens` is given.
        label: a class number or name.
        tokens: the text cut into words, or None.
        annotations: columns with one number per word, read where they exist; `rationale` may be null in a row.
        split_at_spaces: the text is words joined by spaces (already tokenised).
    """

    text: str = "text"
    label: str = "label"
    tokens: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    split_at_spaces: bool = False


class Labels:
    """Class names and numbers as the source writes them, to class indices.

    Args:
        names: one per class; a number stands for the class at that place.
        kept: the classes to keep, in the order of their new index; None keeps all.
    """

    def __init__(self, names: Sequence[str], kept: Sequence[str] | None = None) -> None:
        if len(names) < 2 or len(set(names)) < len(names):
            raise DataFormatError(
                f"Expected at least two different classes, but got {list(names)}; check the label column."
            )
        self.names = tuple(names)
        self.kept = tuple(kept or names)
        self._index = {name: place for place, name in enumerate(names)}
        if not all(map(_is_whole, names)):
            self._index = {str(place): place for place in range(len(names))} | self._index

    @classmethod
    def scan(cls, split: Split, column: str) -> "Labels":
        """The classes that occur in a split: numbers in order of their value, else names in alphabetical order."""
        seen: set[str] = set()
        for number, row in split.rows():
            seen.add(label_text(take(row, column, split, number), split, number))
            if len(seen) > 1000:
                raise DataFormatError(
                    f"Expected classes in column {column!r} of {split.name}, but got more than 1000 different values; "
                    "name another column."
                )
        if not seen:
            raise _empty(split)
        return cls(sorted(seen, key=int) if all(map(_is_whole, seen)) else sorted(seen))

    def index(self, value: Any, split: Split, number: int) -> int | None:
        """The class index among the kept ones; None for a class that is not kept.

        Raises:
            DataFormatError: the label is missing, a fraction, or not one of the classes; names file and line.
        """
        found = self._index.get(label_text(value, split, number))
        if found is None:
            raise DataFormatError(
                f"Expected a label out of {', '.join(self.names)} (or 0 to {len(self.names) - 1}), but got {value!r} "
                f"in {split.place(number)}; correct it or declare the class in `label_names`."
            )
        name = self.names[found]
        return self.kept.index(name) if name in self.kept else None


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def label_text(value: Any, split: Split, number: int) -> str:
    """A label as text: 1, 1.0, True and "1" are the same class."""
    if (isinstance(value, float) and value.is_integer()) or isinstance(value, bool):
        value = int(value)
    text = str(value).strip() if isinstance(value, (str, int)) else ""
    if not text or text.lower() == "nan":
        raise DataFormatError(
            f"Expected a class number or name as label, but got {value!r} in {split.place(number)}; correct the row."
        )
    return text


def take(row: Row, column: str, split: Split, number: int) -> Any:
    """The value of a column; lists the columns there are where it is missing."""
    if column not in row:
        raise DataFormatError(
            f"Expected a column {column!r}, but got {', '.join(map(repr, row))} in {split.place(number)}; name the "
            "columns in the configuration."
        )
    return row[column]


def records(split: Split, columns: Columns, labels: Labels) -> Iterator[Row]:
    """The checked rows of a split: `text`, `label`, `line`, and where they exist `tokens` and the annotations.

    Raises:
        DataFormatError: a row is not what was declared, or there is none; names file and line.
    """
    number = 0
    for number, row in split.rows():
        label = labels.index(take(row, columns.label, split, number), split, number)
        if label is None:
            continue
        record: Row = {"line": number, "label": label}
        words = _words(row, columns, split, number)
        record["text"] = _text(row, columns, split, number) if words is None else " ".join(words)
        if words is not None:
            record["tokens"] = words
        for name, column in columns.annotations:
            if column in row:
                record[name] = _annotation(row[column], column, words, split, number)
        yield record
    if not number:
        raise _empty(split)


def _empty(split: Split) -> DataFormatError:
    return DataFormatError(f"Expected examples in {split.name}, but got an empty file; name another file.")


def _text(row: Row, columns: Columns, split: Split, number: int) -> str:
    text = take(row, columns.text, split, number)
    if not isinstance(text, str):
        raise DataFormatError(
            f"Expected column {columns.text!r} to hold text, but got {text!r} in {split.place(number)}; correct the "
            "row or name another column."
        )
    return text


def _words(row: Row, columns: Columns, split: Split, number: int) -> list[str] | None:
    if columns.tokens is None:
        # Not `split()`: a word of the treebank may hold a no-break space.
        return [*filter(None, _text(row, columns, split, number).split(" "))] if columns.split_at_spaces else None
    words = _list(take(row, columns.tokens, split, number))
    if words is None or not all(isinstance(word, str) for word in words):
        raise DataFormatError(
            f"Expected column {columns.tokens!r} to hold a list of words, but got {row[columns.tokens]!r:.80} in "
            f"{split.place(number)}; correct the row."
        )
    return words


def _annotation(value: Any, column: str, words: list[str] | None, split: Split, number: int) -> list[int] | None:
    if value is None:
        return None
    marks = _list(value)
    try:
        marks = None if marks is None else [int(mark) for mark in marks]
    except (TypeError, ValueError):
        marks = None
    if marks is None or words is None or len(marks) != len(words):
        got = f"{value!r:.80}" if marks is None else f"{len(marks)} numbers"
        raise DataFormatError(
            f"Expected column {column!r} to hold one number for each of the {len(words or ())} words of the tokens "
            f"column, but got {got} in {split.place(number)}; correct the row."
        )
    return marks


def _list(value: Any) -> list[Any] | None:
    """A list; a CSV cell may write it as JSON or as words with spaces between them."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split()
        except ValueError:
            return None
    return value if isinstance(value, list) else None
