"""Class names and numbers as a source writes them, and the indices they stand for."""

from collections.abc import Sequence
from typing import Any

from attn_lightning.data.sources import Split, empty, take
from attn_lightning.errors import DataFormatError


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
            raise empty(split)
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
