"""A table of results before anybody decides how it is shown: in a terminal or in a Markdown file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from attn_lightning.console import literal, printable


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: above it.
        header: names of the columns.
        rows: a cell per column; text from data is made safe where it is shown.
        texts: columns of words, on the left; all others are numbers, on the right.
        dim: columns that stand back: what others are compared with.
        note: below it, where its marks are explained; "" for none.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Collection[str] = ("metric", "range", "better")
    dim: Collection[str] = ()
    note: str = ""

    def terminal(self) -> Table:
        """The table for the terminal; a line that is too long is cut, so that a row stays one line."""
        title, note = (
            Text(printable(text), text_style) for text, text_style in ((self.title, "bold"), (self.note, ""))
        )
        shown = Table(title=title, title_justify="left", caption=note if self.note else None, caption_justify="left")
        for name in self.header:
            shown.add_column(
                name,
                justify="left" if name in self.texts else "right",
                style="dim" if name in self.dim else "",
                no_wrap=True,
            )
        for row in self.rows:
            shown.add_row(*map(literal, row))
        return shown

    def markdown(self) -> str:
        """The table as Markdown, its title as a heading."""
        sides = ("---" if name in self.texts else "---:" for name in self.header)
        lines = [_line(self.header), "|" + "|".join(sides) + "|", *map(_line, self.rows)]
        parts = [f"## {printable(self.title)}", "\n".join(lines), *([self.note] if self.note else [])]
        return "\n\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"
