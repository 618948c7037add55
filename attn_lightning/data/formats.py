"""The rows of a file: CSV, JSON, Parquet, lines `LABEL text`; read one after the other, in any encoding."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from attn_lightning.errors import ConfigurationError, DataFormatError, one_line

Row = dict[str, Any]
Rows = Iterator[tuple[int, Row]]

DELIMITERS = (",", ";", "\t", "|")
FASTTEXT_LABEL = "__label__"
_SAMPLE = 20
"""Lines from which the delimiter of a file is found."""

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The longer ones first: that of UTF-32 begins with that of UTF-16."""


_SIGNATURES = {
    b"\x1f\x8b": "a gzip file; let its name end in `.gz`",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save it as CSV",
    b"PAR1\x15": "a Parquet file; let its name end in `.parquet`",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; save it as CSV",
}
"""What files that hold no text begin with. Any encoding of one byte would read them, and train on what comes out."""


@dataclass(frozen=True)
class FileOptions:
    """How text files are written, where they do not say it themselves.

    Attributes:
        delimiter: between the fields of a line; None finds `,`, `;`, TAB or `|` in the first lines.
        encoding: None reads UTF-8, or what the byte order mark says.
        columns: names of the columns where the first line holds none; None reads them from it.
        prefix: of the options on the command line, for messages.

    Raises:
        ConfigurationError: the delimiter is not one character, the encoding is unknown, a column has no name or the
            name of another.
    """

    delimiter: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] | None = None
    prefix: str = "--data."

    def __post_init__(self) -> None:
        if self.delimiter in ("\\t", "tab", "TAB"):
            object.__setattr__(
                self, "delimiter", "\t"
            )  # how a TAB is written where a shell or YAML keeps the backslash
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n" '):
            raise ConfigurationError(
                f"Expected `{self.prefix}delimiter` to be one character such as `;` or a TAB, but got "
                f"{self.delimiter!r}; leave it out to have it found."
            )
        try:
            # As it is used: "base64", for example, is a codec too, but decodes to no text.
            io.TextIOWrapper(io.BytesIO(), self.encoding)
        except (LookupError, ValueError) as error:
            raise ConfigurationError(
                f"Expected `{self.prefix}encoding` to name an encoding such as utf-8 or latin-1, but got "
                f"{self.encoding!r}; correct it."
            ) from error
        if self.columns is not None and (not all(self.columns) or len(set(self.columns)) < len(self.columns)):
            raise ConfigurationError(
                f"Expected `{self.prefix}columns` to be different names, but got {list(self.columns)}; give one for "
                "every field of a line."
            )

    def given(self) -> dict[str, Any]:
        """The options that are not left to be found."""
        return {name: value for name, value in asdict(self).items() if value is not None and name != "prefix"}


def rows_of(path: Path, options: FileOptions) -> Rows:
    """(Number of the line or row, row) of a file, by the end of its name.

    Raises:
        DataFormatError: the file is damaged or not what its name says; names the file and the line.
    """
    suffix = _suffix(path)
    if suffix in LINES and options.delimiter is None and options.columns is None:
        return _labeled_lines(path, options)
    return READERS[suffix](path, options)


def is_delimited(path: Path, options: FileOptions) -> bool:
    """Whether the file is read as fields between delimiters."""
    suffix = _suffix(path)
    return suffix in DELIMITED or (suffix in LINES and (options.delimiter or options.columns) is not None)


def class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """The class names that `datasets` wrote into a Parquet file (`ClassLabel`), by column; none in any other file."""
    if path.suffix != ".parquet":
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        named = {column: feature["names"] for column, feature in features.items() if "names" in feature}
        return {column: tuple(map(str, names)) for column, names in named.items()}
    except (pa.ArrowException, OSError) as error:
        raise DataFormatError(
            f"Expected a Parquet file, but got an error in {path} ({one_line(error)}); write it again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # the key is there but is not what `datasets` writes


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _encoding(path: Path, options: FileOptions) -> str:
    with _open(path) as file:
        start = file.read(1000)
    if kind := next((kind for mark, kind in _SIGNATURES.items() if start.startswith(mark)), None):
        raise DataFormatError(f"Expected {path} to hold text, but got {kind}.")
    if options.encoding is None:
        found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
        # UTF-16 without a mark is valid UTF-8 too: every second character is then a NUL, which nobody sees.
        if found is None and 5 * start.count(0) > len(start) > 0:
            raise DataFormatError(
                f"Expected {path} to be UTF-8, but got {start.count(0)} zero bytes in its first {len(start)}; name its "
                f"encoding with `{options.prefix}encoding`, most likely utf-16-le or utf-16-be."
            )
        return found or "utf-8-sig"
    # A byte order mark is no part of the first column's name.
    return "utf-8-sig" if codecs.lookup(options.encoding).name == "utf-8" else options.encoding


def _lines(path: Path, options: FileOptions) -> Iterator[str]:
    """Lines with their ends, which may be of Unix, Windows or an old Macintosh."""
    number = 0
    try:
        with io.TextIOWrapper(_open(path), _encoding(path, options), newline="") as file:
            for line in file:
                number += 1
                yield line
    except UnicodeError as error:
        where, what = number + 1, str(error)
        if isinstance(error, UnicodeDecodeError):
            # The error counts from the start of a block; all complete lines before it were given already.
            before = error.object[: error.start].decode(error.encoding, "ignore")
            where, what = number + 1 + len(re.findall(r"\r\n|\r|\n", before)), f"byte {error.object[error.start]:#04x}"
        raise DataFormatError(
            f"Expected {path} to be {(options.encoding or 'UTF-8')}, but got {what} in line {where}; convert the file "
            f"or name its encoding with `{options.prefix}encoding`, latin-1 for example."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"Expected {path} to be a whole gzip file, but got an error after line {number} ({one_line(error)}); "
            "copy or download it again."
        ) from error


def _json_lines(path: Path, options: FileOptions) -> Rows:
    for number, line in enumerate(_lines(path, options), start=1):
        if line.strip():
            try:
                # Python keeps the last of two equal keys in silence, and half of a row would be gone.
                row = json.loads(line, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                raise _not_an_object(error, path, f"line {number}") from error
            if not isinstance(row, dict):
                raise _not_an_object(type(row).__name__, path, f"line {number}")
            yield number, row


def _not_an_object(found: object, path: Path, where: str) -> DataFormatError:
    return DataFormatError(f"Expected one JSON object per line, but got {found} in {path}, {where}; correct the line.")


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a key twice among {[key for key, _ in pairs]}")
    return row


def _json_rows(path: Path, options: FileOptions) -> Rows:
    """One document: a list of objects, or HateXplain's object of posts; many files of that name hold JSON Lines."""
    text = "".join(_lines(path, options))
    try:
        content = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        # What Python's parser says behind the first of several documents.
        if "Extra data" in str(error):
            yield from _json_lines(path, options)
            return
        raise DataFormatError(
            f"Expected {path} to be a JSON document or JSON Lines, but got {one_line(error)}; correct the file."
        ) from error
    if isinstance(content, dict) and content and all(map(_is_post, content.values())):
        yield from _posts(path, content)
    elif isinstance(content, list):
        for number, row in enumerate(content, start=1):
            if not isinstance(row, dict):
                raise _not_an_object(type(row).__name__, path, f"row {number}")
            yield number, row
    elif isinstance(content, dict) and not any(isinstance(value, dict) for value in content.values()):
        yield 1, content
    else:
        found = f"an object with {', '.join(map(repr, islice(content, 3)))}" if isinstance(content, dict) else text[:40]
        raise DataFormatError(
            f"Expected {path} to hold a list of objects, JSON Lines or HateXplain's posts, but got {found}; write one "
            "object per line."
        )


def _is_post(value: Any) -> bool:
    return isinstance(value, dict) and {"post_tokens", "annotators", "rationales"} <= set(value)


def _posts(path: Path, posts: dict[str, Row]) -> Rows:
    """Posts as HateXplain publishes them: the label of most annotators, the share of them that marked each word.

    Posts on which no two annotators agree have no label and are left out, as in the publication.
    """
    for number, (name, post) in enumerate(posts.items(), start=1):
        try:
            labels = [annotator["label"] for annotator in post["annotators"]]
            marks = [[float(mark) for mark in marked] for marked in post["rationales"]]
            rationale = [sum(column) / len(marks) for column in zip(*marks, strict=True)] if marks else None
            tokens = [str(token) for token in post["post_tokens"]]
            # A tie falls to any of them here, and is left out below, as nobody has more than half.
            label = max(set(labels), key=labels.count)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise DataFormatError(
                f"Expected a post with `post_tokens`, labels of annotators and rationales of equal length, but got "
                f"{type(error).__name__}: {one_line(error)} in {path}, post {name!r}; correct it."
            ) from error
        if labels.count(label) > len(labels) / 2:
            yield number, {**post, "tokens": tokens, "text": " ".join(tokens), "label": label, "rationale": rationale}


def _labeled_lines(path: Path, options: FileOptions) -> Rows:
    """Lines of a label and a text, as TREC's (`LOC:city Where is ...`) and fastText's (`__label__good A fine ...`)."""
    for number, line in enumerate(_lines(path, options), start=1):
        label, _, text = line.strip().replace("\t", " ", 1).partition(" ")
        before_tab = line.strip().partition("\t")[0]
        found = None
        if label and not text:
            found = "one word"
        elif f" {FASTTEXT_LABEL}" in f" {text}":
            found = "two labels" if label.startswith(FASTTEXT_LABEL) else "a label behind the text"
        elif "\t" in line.strip() and " " in before_tab:
            found = "a TAB after several words"
        if found:
            raise DataFormatError(
                f"Expected `LABEL text`, but got {found} in {path}, line {number}; correct the line, or give "
                f"`{options.prefix}columns` and `{options.prefix}delimiter` to read the file as a table."
            )
        if label:
            yield number, {"label": label.removeprefix(FASTTEXT_LABEL), "text": text.strip()}


def _csv_rows(path: Path, options: FileOptions) -> Rows:
    # The default limit of 131,072 characters is less than a long document.
    csv.field_size_limit(2**31 - 1)
    delimiter = options.delimiter or _delimiter(list(islice(_lines(path, options), _SAMPLE)), options.columns)
    # Strict: otherwise a quote that is never closed swallows the rest of the file as one field.
    reader = csv.reader(_lines(path, options), delimiter=delimiter, strict=True)
    header = list(options.columns or ())
    try:
        start = 1
        for fields in reader:
            if fields and not header:
                header = [name.strip() for name in fields]
                hint = f", or give `{options.prefix}columns` if the first line is no header"
                _check_unique(path, [name for name in header if name], hint)
            elif fields:
                if options.columns and [name.strip().lower() for name in fields] == list(map(str.lower, header)):
                    raise DataFormatError(
                        f"Expected examples, but got the names of `{options.prefix}columns` in {path}, line {start}; "
                        "leave that option out, as the file has a header of its own."
                    )
                if len(fields) != len(header):
                    named = f"`{options.prefix}columns`" if options.columns else "the header"
                    raise DataFormatError(
                        f"Expected {len(header)} fields as in {named}, but got {len(fields)} in {path}, line {start}, "
                        f"with the delimiter {delimiter!r}; quote fields that contain it, or give another one with "
                        f"`{options.prefix}delimiter`."
                    )
                # A column without a name is the running number that some programs write.
                # Named by the line where it starts, as a quoted field may hold line breaks.
                yield start, {name: field for name, field in zip(header, fields, strict=True) if name}
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataFormatError(
            f"Expected a CSV file, but got {one_line(error)} in {path}, line {reader.line_num}; correct the quoting."
        ) from error


def _delimiter(lines: list[str], columns: Sequence[str] | None) -> str:
    """The delimiter with which most lines have the fields of the first one, the most fields among equals."""

    def rating(delimiter: str) -> tuple[bool, int, int]:
        try:
            records = [fields for fields in csv.reader(lines, delimiter=delimiter) if fields]
        except csv.Error:
            return False, 0, 0
        width = len(records[0]) if records else 0
        as_named = width == len(columns) if columns else width > 1
        return as_named, sum(len(fields) == width for fields in records) if width > 1 else 0, width

    # The first of equals, hence the order of `DELIMITERS`: the comma before the rare ones.
    return max(DELIMITERS, key=rating)


def _parquet_rows(path: Path, _options: FileOptions) -> Rows:
    number, named = 0, class_names(path)
    try:
        with pq.ParquetFile(path) as file:
            # Rows as dictionaries would keep one of two columns of a name, and nobody would know which.
            _check_unique(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    for column in named.keys() & row.keys():
                        row[column] = _class_name(row[column], named[column], path, number)
                    yield number, row
    # A damaged footer can ask for more memory than there is.
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, OverflowError, MemoryError) as error:
        raise DataFormatError(
            f"Expected a Parquet file, but got an error in {path} after row {number} ({one_line(error)}); write it "
            "again."
        ) from error


def _class_name(value: Any, names: Sequence[str], path: Path, number: int) -> str | None:
    """Every file numbers its classes in an order of its own, so a number means the name that this file gives it."""
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise DataFormatError(
            f"Expected a class out of 0 to {len(names) - 1} ({', '.join(names)}), but got {value!r} in {path}, row "
            f"{number}; write the file again."
        )
    return names[value]


def _check_unique(path: Path, names: Sequence[str], hint: str = "") -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DataFormatError(
            f"Expected every column once, but got {', '.join(twice)} twice in {path}; rename one{hint}."
        )


DELIMITED = (".csv", ".tsv")
LINES = (".txt", ".label", ".train", ".valid", ".test")
READERS: dict[str, Callable[[Path, FileOptions], Rows]] = {
    ".jsonl": _json_lines,
    ".parquet": _parquet_rows,
    **dict.fromkeys((*DELIMITED, *LINES), _csv_rows),
    ".json": _json_rows,
}
"""By the end of the name, without `.gz`, in the order in which a folder is searched."""

EXTENSIONS = tuple(end for suffix in READERS for end in (suffix, f"{suffix}.gz") if end != ".parquet.gz")
