"""Rows of any source, checked and brought into one form: text, label, words and their annotations."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from attn_lightning.data.formats import Row
from attn_lightning.data.labels import Labels
from attn_lightning.data.sources import Split, empty, take
from attn_lightning.data.text import valid_unicode
from attn_lightning.errors import DataFormatError

RATIONALE = "rationale"
_HIGHEST_MARK = 127
"""Other annotations are small numbers and stored as such."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a source are read.

    Attributes:
        text: the text; not needed where `tokens` is given.
        label: a class number or name.
        tokens: the text cut into words, or None.
        annotations: columns with one number per word, read where they exist; `rationale` may be null in a row.
        split_at_spaces: the text is words joined by spaces (already tokenised).
        question: the second text of a pair, or None.
        rationale_threshold: the least share, of annotators for example, at which a word belongs to the rationale.
    """

    text: str = "text"
    label: str = "label"
    tokens: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    split_at_spaces: bool = False
    question: str | None = None
    rationale_threshold: float = 0.5

    @property
    def gives_words(self) -> bool:
        """Whether the source says what the words are, so that nothing is cut here."""
        return self.tokens is not None or self.split_at_spaces


def records(split: Split, columns: Columns, labels: Labels, seen: Collection[int] | None = None) -> Iterator[Row]:
    """The checked rows of a split: `text`, `label`, `line`, `replaced`, and where they exist `tokens` and annotations.

    `replaced` says whether a character of the row was no Unicode (half a surrogate pair) and became U+FFFD.

    Args:
        split: of the source.
        columns: which of its columns are read.
        labels: its classes.
        seen: the classes of the training split; None where this is it.

    Raises:
        DataFormatError: a row is not what was declared or of a class that training never saw, or there is no row; names
            file and line.
    """
    # Of a split without rows, which the loop never enters.
    number = 0
    for number, row in split.rows():
        value = take(row, columns.label, split, number)
        # The label first: rows of classes that are not kept need no valid text.
        label = labels.index(value, split, number)
        if label is None:
            continue
        if seen is not None and label not in seen:
            raise DataFormatError(
                f"Expected a class that occurs in the training texts, but got {value!r} in {split.place(number)}, of "
                "which there is none; add some to them, or leave the row out."
            )
        record: Row = {"line": number, "label": label}
        words = words_of(row, columns, split, number)
        read = [text_of(row, columns.text, split, number)] if words is None else words
        # Arrow takes UTF-8 only; half a surrogate pair would end the preparation with an error about bytes.
        clean = [valid_unicode(piece) for piece in read]
        # Words with one space between them, as their offsets count.
        record |= {"text": " ".join(clean), "replaced": clean != read}
        if words is not None:
            record["tokens"] = clean
        if columns.question is not None:
            question = text_of(row, columns.question, split, number)
            record["question"] = valid_unicode(question)
            record["replaced"] |= record["question"] != question
        for name, column in columns.annotations:
            if column in row or name == RATIONALE:  # a JSON object may lack it, which is the same as null
                record[name] = _marks(row.get(column), name, column, words, columns.rationale_threshold, split, number)
        yield record
    if not number:
        raise empty(split)


def text_of(row: Row, column: str, split: Split, number: int) -> str:
    """The text of a row.

    Raises:
        DataFormatError: the column is missing or holds something else; names file and line.
    """
    text = take(row, column, split, number)
    if not isinstance(text, str):
        raise DataFormatError(
            f"Expected column {column!r} to hold text, but got {text!r:.80} in {split.place(number)}; correct the row "
            "or name another column."
        )
    return text


def words_of(row: Row, columns: Columns, split: Split, number: int) -> list[str] | None:
    """The words of a row where the source gives them, else None.

    Raises:
        DataFormatError: the column is missing or holds something else; names file and line.
    """
    if columns.tokens is None:
        # Not `split()`: a word of the treebank may hold a no-break space.
        return (
            [*filter(None, text_of(row, columns.text, split, number).split(" "))] if columns.split_at_spaces else None
        )
    words = _list(take(row, columns.tokens, split, number))
    if words is None or not all(isinstance(word, str) for word in words):
        raise DataFormatError(
            f"Expected column {columns.tokens!r} to hold a list of words, but got {row[columns.tokens]!r:.80} in "
            f"{split.place(number)}; correct the row."
        )
    return words


def _marks(
    value: Any, name: str, column: str, words: list[str] | None, threshold: float, split: Split, number: int
) -> list[int] | None:
    if value is None:
        return None
    listed = _list(value)
    try:
        marks = None if listed is None else [float(mark) for mark in listed]
    except (TypeError, ValueError, OverflowError):
        marks = None
    if marks is None or words is None or len(marks) != len(words):
        got = f"{value!r:.80}" if marks is None else f"{len(marks)} numbers"
        raise DataFormatError(
            f"Expected column {column!r} to hold one number for each of the {len(words or ())} words of the tokens "
            f"column, but got {got} in {split.place(number)}; correct the row."
        )
    highest = 1 if name == RATIONALE else _HIGHEST_MARK
    for mark in marks:
        # "Not inside" and not "outside", so that NaN is refused too.
        if not 0 <= mark <= highest or (name != RATIONALE and mark != int(mark)):
            raise DataFormatError(
                f"Expected column {column!r} to hold numbers from 0 to {highest}, but got {mark} in "
                f"{split.place(number)}; correct the row."
            )
    return [int(mark >= threshold) for mark in marks] if name == RATIONALE else [int(mark) for mark in marks]


def _list(value: Any) -> list[Any] | None:
    """A list; a CSV cell may write it as JSON or as words with spaces between them."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split()
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None
