"""Class names and numbers as a source writes them, and the indices they stand for."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from attn_lightning.data.sources import Split, empty, take
from attn_lightning.data.text import valid_unicode
from attn_lightning.errors import DataFormatError

_NUMBER = re.compile(r"([+-]?)(?=\.?\d)(\d*)(?:\.(\d*))?", re.ASCII)


class Labels:
    """Class names and numbers as the source writes them, to class indices: matched by what they say, never by place.

    A number is its value, however it is written: 1, 1.0, "1", "+1", "01", "1." and True are one class.

    Args:
        names: one per class; blanks around them do not count.
        kept: the classes to keep, in the order of their new index; None keeps all.
        numbered: whether the order of the names was declared, so that a number in the data stands for the class at that
            place; only if no class is itself a number.
        aliases: other names of the same classes, in the same order.

    Raises:
        DataFormatError: fewer than two classes, or two that are the same.
    """

    def __init__(
        self,
        names: Sequence[str],
        kept: Sequence[str] | None = None,
        numbered: bool = True,
        aliases: Sequence[str] = (),
    ) -> None:
        self.names = tuple(name.strip() for name in names)
        self._index = {canonical(name): place for place, name in enumerate(self.names)}
        if len(self.names) < 2 or len(self._index) < len(self.names) or not all(self.names):
            raise DataFormatError(
                f"Expected at least two different classes with names, but got {list(names)}; check the label column."
            )
        self.kept = tuple(kept or self.names)
        # Where a class is called "1", a 1 in the data is that name and not the second class.
        self.numbered = numbered and not any(map(_NUMBER.fullmatch, self.names))
        if self.numbered:
            self._index |= {str(place): place for place in range(len(names))}
        self._index |= {canonical(name): place for place, name in enumerate(aliases)}

    @classmethod
    def scan(cls, split: Split, column: str) -> "Labels":
        """The classes that occur in a split: numbers in order of their value, then names in alphabetical order."""
        seen: set[str] = set()
        for number, row in split.rows():
            seen.add(label_text(take(row, column, split, number), split, number))
            # Most likely the text was named as the label: thousands of classes would be found before anything fails.
            if len(seen) > 1000:
                raise DataFormatError(
                    f"Expected classes in column {column!r} of {split.name}, but got more than 1000 different values; "
                    "name another column."
                )
        if not seen:
            raise empty(split)
        numbers = [name for name in seen if _NUMBER.fullmatch(name)]
        # By value, since as text 10 comes before 9; as floats two long numbers could be equal. The order is found and
        # not declared, so that no number in the data is a place in it.
        return cls([*sorted(numbers, key=Decimal), *sorted(seen.difference(numbers))], numbered=False)

    def index(self, value: Any, split: Split, number: int) -> int | None:
        """The class index among the kept ones; None for a class that is not kept.

        Raises:
            DataFormatError: the label is missing or not one of the classes; names file and line.
        """
        found = self._index.get(label_text(value, split, number))
        if found is None:
            numbers = f" (or 0 to {len(self.names) - 1})" if self.numbered else ""
            raise DataFormatError(
                f"Expected a label out of {_listed(self.names)}{numbers}, but got {value!r:.80} in "
                f"{split.place(number)}; correct it, or declare all classes in `label_names`."
            )
        name = self.names[found]
        return self.kept.index(name) if name in self.kept else None


def _listed(names: Sequence[str]) -> str:
    """Names for a message of one line; there may be a thousand."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{', '.join(f'{name:.40}' for name in names[:20])}{more}"


def label_text(value: Any, split: Split, number: int) -> str:
    """A label as text in one form: see `Labels`.

    Raises:
        DataFormatError: there is none, or it is neither a number nor a name.
    """
    # Readers of tables make 1.0 of a 1 where a column has gaps, and JSON has true for it.
    if isinstance(value, bool | float) and math.isfinite(value) and value == int(value):
        value = int(value)
    is_label = isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    text = canonical(valid_unicode(str(value))) if is_label else ""
    # An empty cell of a table becomes "nan" where it went through a data frame.
    if not text or text.lower() == "nan":
        raise DataFormatError(
            f"Expected a class number or name as label, but got {value!r:.80} in {split.place(number)}; correct the "
            "row."
        )
    return text


def canonical(text: str) -> str:
    """A name without the blanks around it; a number as its value is written shortest."""
    number = _NUMBER.fullmatch(text.strip())
    if number is None:
        return text.strip()
    sign, whole, fraction = number[1].replace("+", ""), number[2].lstrip("0") or "0", (number[3] or "").rstrip("0")
    shortest = f"{whole}.{fraction}" if fraction else whole
    # -0 is 0.
    return shortest if shortest == "0" else sign + shortest
