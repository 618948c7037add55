"""Results of benchmarks as tables, as JSON, and beside those of an earlier run."""

import json
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

Results = dict[str, dict[str, float]]
"""By table and row; a row's name ends with its unit where it has one."""


def add_options(parser: ArgumentParser) -> None:
    """`--json` and `--compare`."""
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--compare", type=Path, help="file of an earlier run, whose numbers are shown beside these")


def earlier(options: Namespace) -> Results:
    """What `--compare` names; read before anything is measured, so that a wrong name is told at once."""
    found: Results = json.loads(options.compare.read_text()) if options.compare else {}
    return found


def show(results: Results, before: Results) -> None:
    """One table for each."""
    console = Console()
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for name, values in results.items():
        old = before.get(name, {})
        table = Table("", name, *(["earlier", "ratio"] if old else []))
        for row, value in values.items():
            beside = [f"{old[row]:.2f}", f"{value / old[row]:.2f}"] if old.get(row) else []
            table.add_row(row, f"{value:.2f}", *beside)
        console.print(table)


def write(results: Results, options: Namespace) -> None:
    """The file of `--json`."""
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def run(measure: Callable[[int], Results], description: str | None, rounds: int) -> None:
    """The command of a file that has one thing to measure: prints its tables, and writes them as JSON if asked to.

    Args:
        measure: takes the number of rounds.
        description: of the command.
        rounds: by default.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    add_options(parser)
    options = parser.parse_args()
    before = earlier(options)
    results = measure(options.rounds)
    show(results, before)
    write(results, options)
