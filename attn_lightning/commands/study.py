"""`study`: from a file of methods, data and seeds to finished runs and a table."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from attn_lightning.commands.report import report_in_place
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import STUDIES, find_study, read_study
from attn_lightning.study.expansion import Cell, expand
from attn_lightning.study.publishing import read


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; run `study --help` for the options.")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m attn_lightning study",
        allow_abbrev=False,
        description="Run every cell of a study that is not finished, and show its tables. Safe to stop and to repeat: "
        "finished cells are skipped, interrupted ones go on from their last checkpoint, nothing is overwritten.",
    )
    parser.add_argument("study", help="a YAML file, or the name of one in experiments/studies")
    parser.add_argument("--jobs", type=int, help="cells at a time (default: one per core, at most 4)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="check every command and print them; run nothing")
    parser.add_argument("--table", action="store_true", help="only show the tables of what is finished; run nothing")
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FILE",
        help="put the overview, with command and version, into a Markdown file: between `<!-- study NAME -->` and "
        "`<!-- end -->`, or at its end where these are missing",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again; their folders are kept")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the page `report/report.html` with tables and figures into the folder of the study at the end",
    )
    options = parser.parse_args(arguments)
    if options.dry_run and options.publish:
        raise ConfigurationError("Expected `--publish` without `--dry-run`, which measures nothing; leave one out.")
    if options.jobs is not None and options.jobs < 1:
        raise ConfigurationError(f"Expected `--jobs` to be 1 or more, but got {options.jobs}; leave it out.")
    return options


def study_command(arguments: Sequence[str]) -> int:
    """Run `study`.

    Args:
        arguments: the options of the command.

    Returns:
        0 if every cell is complete (with `--dry-run`: if every command is valid), else 1.
    """
    options = _options(arguments)
    study = read_study(find_study(options.study))
    if options.publish is not None:
        read(options.publish, study.name)  # A mistake in the file should not wait until all cells have run.
    cells = expand(study)
    # This loads torch, which a mistake in the study file should not have to wait for.
    from attn_lightning.commands.validation import Validator
    from attn_lightning.study.running import StudyRun

    run = StudyRun(study, cells, options.root / study.name, *Validator().both)
    if options.dry_run:
        _print_commands(cells, run.root)
        return 0
    if not options.table:
        run.run(options.jobs, options.retry_failed)
    code = run.show(_command(options.study), options.publish)
    if options.report:
        report_in_place(run.root, figures=True)
    return code


def _command(study: str) -> str:
    """The shortest command that runs a study; `make` knows those in `experiments/studies`."""
    path = find_study(study)
    return f"make study STUDY={path.stem}" if path.parent == STUDIES else f"python -m attn_lightning study {study}"


def _print_commands(cells: Sequence[Cell], root: Path) -> None:
    for cell in cells:
        print(shlex.join(["python", "-m", "attn_lightning", *cell.arguments(root)]))
    print(f"# {len(cells)} commands, all accepted by `fit`")
