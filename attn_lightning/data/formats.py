"""The rows of a file: CSV, JSON Lines and Parquet, read one after the other and never held in memory together."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from attn_lightning.errors import DataFormatError

Row = dict[str, Any]


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


READERS = {".jsonl": _json_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}
"""By the end of the name, without `.gz`; every reader gives (number of the line or row, row)."""

EXTENSIONS = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz")
"""In the order in which a folder is searched."""
