"""What a person sees while a study runs: a live bar in a terminal, a line per event in a log file."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from attn_lightning.console import duration, printable_lines


class Display:
    """Progress of a study.

    Args:
        total: number of cells.
        done: number of cells that were finished before.
        console: where to write; the standard output by default.
    """

    def __init__(self, total: int, done: int, console: Console | None = None) -> None:
        # A log file has no width of its own, and rich would break its lines after 80 characters.
        width = None if sys.stdout.isatty() else 10_000
        self.console = console or Console(width=width, soft_wrap=True, highlight=False)
        self.total, self.done = total, done
        self._bar: Progress | None = None
        self._began, self._before = time.monotonic(), done

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            # Without rich's own time left: cells that were finished before would make it far too short.
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=self.total, completed=self.done)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def left(self) -> str:
        """How long the rest will take if it goes on as it went so far; empty at the beginning and at the end."""
        # Of the cells that ended in this call: those that were there before took no time now.
        ended, rest = self.done - self._before, self.total - self.done
        if not ended or rest <= 0:
            return ""
        return f"about {duration((time.monotonic() - self._began) / ended * rest)} left"

    def line(self, text: str) -> None:
        """Show an event."""
        # Names of cells hold options, and a bracket in one would be read as a colour.
        self.console.print(escape(printable_lines(text)))

    def finished(self, text: str) -> None:
        """Show that a cell has ended and how long the others will take."""
        self.done += 1
        self.line("; ".join(filter(None, (f"[{self.done}/{self.total}] {text}", self.left))))

    def tick(self, running: Sequence[str]) -> None:
        """Redraw the bar, where there is one."""
        if self._bar is not None:
            # Waiting for bases, for cells of another process, or for a place in a queue.
            shown = ", ".join(running) or "waiting"
            self._bar.update(
                self._task, completed=self.done, description=escape(": ".join(filter(None, (self.left, shown))))
            )
