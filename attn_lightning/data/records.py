"""Rows of any source, checked and brought into one form: text, label, words and their annotations."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from attn_lightning.data.formats import Row
from attn_lightning.data.labels import Labels
from attn_lightning.data.sources import Split, empty, take
from attn_lightning.errors import DataFormatError


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
        raise empty(split)


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
