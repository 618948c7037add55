"""What every command shares of the terminal: untrusted text made safe, a width for logs, messages of the package."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

LOG_WIDTH = 160
"""Columns of a table where the output is a file, which has no width of its own."""


def printable(text: str) -> str:
    """Text from data made safe for a terminal: control characters (escape sequences among them) become a space."""
    return "".join(character if character.isprintable() else " " for character in text)


def literal(text: str) -> Text:
    """Such text for a table: rich would read a bracket in it as markup, and leave it out."""
    return Text(printable(text))


def spreadsheet_text(text: str) -> str:
    """Text from data made safe for a cell of a CSV file: one that a spreadsheet would run as a formula gets a quote."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown


def printable_lines(text: str) -> str:
    """A message of our own that quotes paths and arguments: as `printable`, but its lines stay."""
    return "\n".join(map(printable, text.split("\n")))


def duration(seconds: float) -> str:
    """A time as coarse as a guess of it is: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def say(text: str = "", error: bool = False) -> None:
    """Print what the package has to say, which may quote paths, arguments and texts; at once, also into a file.

    Args:
        text: one line or several.
        error: on the standard error.
    """
    # Flushed: a log file of a killed process would otherwise lack the last lines, which say why.
    print(printable_lines(text), file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def harmless_warnings() -> Iterator[None]:
    """Warnings of other packages in the block quote paths and values too: they lose their control characters."""
    # `formatwarning` and not `showwarning`: a catcher such as pytest's replaces the latter.
    original = warnings.formatwarning

    def harmless(*arguments: Any, **options: Any) -> str:
        return printable_lines(original(*arguments, **options))

    warnings.formatwarning = harmless
    try:
        yield
    finally:
        warnings.formatwarning = original


class _HarmlessRecord(logging.LogRecord):
    """A message of any package without control characters."""

    def getMessage(self) -> str:
        return printable_lines(super().getMessage())


@contextmanager
def harmless_messages() -> Iterator[None]:
    """The same for what any package logs."""
    original = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_HarmlessRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(original)


def stdout_console() -> Console:
    """A console on the standard output, as wide as the terminal, or `LOG_WIDTH` in a log file."""
    return Console(width=None if sys.stdout.isatty() else LOG_WIDTH)


def show_messages(level: int = logging.INFO) -> None:
    """Print what the package reports of long preparations and of data it had to change.

    Args:
        level: the least important messages that are shown.
    """
    package = logging.getLogger("attn_lightning")
    own = [handler for handler in package.handlers if isinstance(handler.formatter, _Printable)]
    # A program that runs several commands may give each an output of its own, and close that of the last one: no line
    # is printed twice, and none goes there.
    for handler in own:
        package.removeHandler(handler)
    if own or not package.handlers:
        shown = logging.StreamHandler(sys.stdout)
        shown.setFormatter(_Printable("%(message)s"))
        package.addHandler(shown)
        # The root logger would print it again where a library has set that up.
        package.propagate = False
    package.setLevel(level)


class _Printable(logging.Formatter):
    """Names of classes, files and words in a message come from data."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))
