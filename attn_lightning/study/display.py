"""What a person sees while a study runs: a live bar in a terminal, a line per event in a log file."""

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


def seconds_left(
    waiting: Sequence[str], running: Sequence[tuple[str, float]], durations: Mapping[str, Sequence[float]], jobs: int
) -> float | None:
    """Time until the last cell is done, from what finished cells took.

    Args:
        waiting: data of every cell that has not started.
        running: data of every running cell and the seconds it has run.
        durations: seconds of finished cells by data; a kind of data without any takes the mean of all.
        jobs: cells that run at a time.

    Returns:
        Seconds, or None while nothing has finished.
    """
    every = [value for values in durations.values() for value in values]
    if not every:
        return None

    def expected(data: str) -> float:
        values = durations.get(data) or every
        return sum(values) / len(values)

    left = [max(0.0, expected(data) - elapsed) for data, elapsed in running]
    total = sum(map(expected, waiting)) + sum(left)
    return max([total / jobs, *left])


def duration(seconds: float | None) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h 20 min`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


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

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
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

    def line(self, text: str) -> None:
        """Show an event."""
        self.console.print(escape(text))

    def finished(self, text: str, left: float | None) -> None:
        """Show that a cell has ended and how long the others will take."""
        self.done += 1
        rest = "" if self.done >= self.total else f"; about {duration(left)} left"
        self.line(f"[{self.done}/{self.total}] {text}{rest}")

    def tick(self, running: Sequence[str], left: float | None) -> None:
        """Redraw the bar, where there is one."""
        if self._bar is not None:
            shown = ", ".join(running) or "waiting"
            self._bar.update(self._task, completed=self.done, description=escape(f"{duration(left)} left: {shown}"))
