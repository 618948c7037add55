"""`compare`: two runs on the same documents, in the terminal and as a page with both side by side."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from attn_lightning.checks import check_numbers
from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.console import literal, say, stdout_console
from attn_lightning.report.comparison import Comparison, compare_runs, lines
from attn_lightning.report.run_data import only_run, read_run

_LONGEST_TEXT = 60


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "compare",
        description="Compare two runs that were tested on the same documents: McNemar's test and permutation tests "
        "over documents, the documents whose prediction flipped, and how far their attention agrees. It reads run "
        "folders alone. The tests say whether these two models differ on such documents, not whether two methods do: "
        "that takes several seeds and `study`. Of two runs of one configuration and seed it says what threads "
        "and kernels alone moved: `OMP_NUM_THREADS=1` before the one `fit` and 2 before the other measures it.",
    )
    parser.add_argument("first", type=Path, metavar="A", help="folder of a run")
    parser.add_argument("second", type=Path, metavar="B", help="folder of another one")
    parser.add_argument(
        "--output", type=Path, help="folder of a page with both side by side (default: no page, only the terminal)"
    )
    parser.add_argument("--flips", type=int, default=10, help="flipped documents to print at the most (default: 10)")
    options = parser.parse_args(arguments)
    check_numbers(at_least=0, advice="leave it out", **{"--flips": options.flips})
    return options


def compare_command(arguments: Sequence[str]) -> int:
    """Run `compare`.

    Args:
        arguments: its options.

    Returns:
        0; errors are exceptions.
    """
    options = _options(arguments)
    runs = [read_run(only_run(folder)) for folder in (options.first, options.second)]
    found = compare_runs(*runs)
    console = stdout_console()
    for letter, label in zip("AB", found.labels, strict=True):
        say(f"{letter}: {label}")
    for line in lines(found):
        say(line)
    for table in _tables(found, options.flips):
        console.print(table)
    if options.output is not None:
        # Tables for a paper and the page come with it, which the terminal alone should not wait for.
        from attn_lightning.report.page import ReportOptions, Sources, write_page

        page = write_page(Sources(runs=runs), options.output, ReportOptions(figures=False))
        say(f"report: {page}")
    return 0


def _tables(found: Comparison, flips: int) -> list[Table]:
    tests = _table("B minus A on the same documents", "compared", "A", "B", "difference", "95 % interval", "p", "test")
    for row in found.paired:
        interval = f"[{_signed(row.low)}, {_signed(row.high)}]"
        numbers = (f"{row.first:.4f}", f"{row.second:.4f}", _signed(row.difference), interval, f"{row.p:.2g}")
        tests.add_row(*map(literal, (row.name, *numbers, row.test)))
    alike = _table(
        "Agreement of the explanations of A and B", "explanation", "measure", "mean", "95 % interval", "texts"
    )
    for agreement in found.alike:
        if agreement.n:
            interval = f"[{agreement.low:.3f}, {agreement.high:.3f}]"
            name, better = agreement.measure.name, agreement.measure.span
            cells = (agreement.explanation, f"{name} ({better})", f"{agreement.mean:.3f}", interval, str(agreement.n))
            alike.add_row(*map(literal, cells))
    shown = found.flips[:flips]
    title = f"Documents that flipped ({len(shown)} of {len(found.flips):,}, the largest change first)"
    flipped = _table(title, "row", "label", "A", "B", "change", "text")
    for flip in shown:
        classes = (found.class_name(number) if number >= 0 else "-" for number in (flip.label, flip.first, flip.second))
        # The whole text is on the page; here a line each lets the eye compare.
        text = flip.text if len(flip.text) <= _LONGEST_TEXT else f"{flip.text[:_LONGEST_TEXT]}…"
        flipped.add_row(*map(literal, (str(flip.row), *classes, f"{flip.change:+.3f}", text)))
    return [table for table in (tests, alike, flipped) if table.row_count]


def _signed(value: float) -> str:
    # A difference of 0.00001 is not none: rounded to zero it would stand beside an interval without zero.
    return f"{value:+.4f}" if value == 0 or not abs(value) < 0.00005 else f"{value:+.1e}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table
