"""What a person sees while an evaluation runs: a bar per part in a terminal, a line per part in a log file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from attn_lightning.evaluation.subject import ProgressCallback, no_progress


class Progress:
    """Progress of an evaluation.

    Args:
        console: where to write; None shows nothing.
        prefix: put before every line, `untrained model: ` for example.
        quiet: show bars and notes, but no line for a finished part.
    """

    def __init__(self, console: Console | None = None, prefix: str = "", quiet: bool = False) -> None:
        self._console = console
        self._prefix = prefix
        self._quiet = quiet

    def about(self, prefix: str) -> "Progress":
        """The same for another model."""
        return Progress(self._console, prefix, self._quiet)

    @contextmanager
    def part(self, name: str, total: int) -> Iterator[ProgressCallback]:
        """Show a part while the block runs; gives the function that moves its bar."""
        start = time.perf_counter()
        with self._bar(name, total) as advance:
            yield advance
        if not self._quiet:
            self._line(f"{name}: {time.perf_counter() - start:.1f} s")

    def kept(self, name: str) -> None:
        """Say that a part was finished by an earlier call."""
        if not self._quiet:
            self._line(f"{name}: kept from an earlier evaluation")

    def note(self, text: str) -> None:
        """Say something that a reader of the results must know."""
        self._line(f"note: {text}")

    def _line(self, text: str) -> None:
        if self._console is not None:
            # Escaped: names of options stand in square brackets, which rich would take for colours.
            self._console.print(escape(self._prefix + text), highlight=False, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[ProgressCallback]:
        # In a log file every state of the bar would be a line.
        if self._console is None or not self._console.is_terminal:
            yield no_progress
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        # Gone when the part is done: a line with its time takes its place.
        with Bar(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task(escape(self._prefix + name), total=total)
            yield lambda finished: bar.advance(task, finished)
