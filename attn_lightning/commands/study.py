"""`study`: from a file of methods, data and seeds to finished runs and a table."""

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attn_lightning.commands.bars import no_bars_in_logs
from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.commands.report import report_in_place
from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.configuration import Study, study_of
from attn_lightning.study.engines.choice import add_engine_options, make_engine
from attn_lightning.study.expansion import Cell, expand, find_cell
from attn_lightning.study.named import STUDIES, named_study
from attn_lightning.study.own import Asked, study_contents, write_study
from attn_lightning.study.publishing import read

if TYPE_CHECKING:
    from attn_lightning.study.cell_run import Planned


_DATA_HELP = (
    "names of experiments/data, YAML files like those there, or data files: .csv, .tsv, .jsonl or .parquet with the "
    "columns text and label, or a folder with train, test and, if wanted, validation. Other columns: --option "
    "data.text_column=NAME"
)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "study",
        description="Run every cell of a study that is not finished, and show its tables. Safe to stop and to repeat: "
        "finished cells are skipped, interrupted ones go on from their last checkpoint, nothing is overwritten.",
    )
    parser.add_argument(
        "study",
        nargs="?",
        help="a YAML file, or the name of one in experiments/studies; experiments/studies/template.yaml explains all "
        "keys. Without it --methods and --data say what is run",
    )
    own = parser.add_argument_group("a study without a file", "It is written to ROOT/NAME/NAME.yaml.")
    own.add_argument("--methods", metavar="A,B", help="names of experiments/method; the first is the baseline")
    own.add_argument("--data", metavar="FILE,...", help=_DATA_HELP)
    own.add_argument("--seeds", metavar="N", help="how many, or seeds between commas (default: 5)")
    own.add_argument("--metrics", metavar="A,B", help="such as accuracy,evaluation/agreement/gradient/kendall")
    own.add_argument("--baseline", metavar="A", help="the method that the others are compared with")
    own.add_argument(
        "--option", action="append", metavar="OPTION=VALUE", help="of `fit`, for all cells; may be given several times"
    )
    own.add_argument("--name", help="of the study (default: study- and the data)")
    parser.add_argument(
        "--cell",
        metavar="CELL",
        help="do what is left of this one alone and show no table: METHOD_DATA/seed_0",
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check every command up to its first step and print them all; run nothing",
    )
    parser.add_argument("--table", action="store_true", help="only show the tables of what is finished; run nothing")
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FILE",
        help="put the overview, with command and version, into a Markdown file: between `<!-- study NAME -->` and "
        "`<!-- end -->`, or at its end where these are missing",
    )
    parser.add_argument(
        "--archive",
        type=Path,
        metavar="FILE.jsonl.gz",
        help="take finished cells from this file where they have no run folder, and put all finished ones into it at "
        "the end: numbers and configurations, no models; so a study goes on in another clone or on another machine",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again; their folders are kept")
    parser.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write the page `report/report.html` with tables and figures into the folder of the study at the end",
    )
    add_engine_options(parser, "cells")
    options = parser.parse_args(arguments)
    _check_own(options)
    for name in ("publish", "archive"):
        if options.dry_run and getattr(options, name):
            raise ConfigurationError(f"Expected `--{name}` without `--dry-run`, which measures nothing; leave one out.")
    others = [name for name in ("dry_run", "table", "publish", "archive") if getattr(options, name)]
    if options.cell is not None and others:
        # argparse made underscores of the dashes; the message shows what was typed.
        name = others[0].replace("_", "-")
        raise ConfigurationError(f"Expected `--cell` alone, but got `--{name}` with it, which is about all of them.")
    return options


def study_command(arguments: Sequence[str]) -> int:
    """Run `study`.

    Args:
        arguments: the options of the command.

    Returns:
        0 if every cell is complete (with `--dry-run`: if every command is valid; with `--cell`: if that one is), 75 if
        another process is at work on the one cell that was asked for, else 1.
    """
    options = _options(arguments)
    no_bars_in_logs()
    study = _study(options)
    if options.publish is not None:
        read(options.publish, study.name)  # A mistake in the file should not wait until all cells have run.
    cells = expand(study)
    root = options.root / study.name
    if options.cell is not None:
        return _run_one(find_cell(cells, options.cell), root, options.retry_failed)
    runs = not options.dry_run and not options.table
    engine = make_engine(options, root, len(cells)) if runs else None
    # This loads torch, which a mistake in the study file should not have to wait for.
    from attn_lightning.commands.validation import shared_validator
    from attn_lightning.study.running import StudyRun

    run = StudyRun(study, cells, root, *shared_validator().both)
    if options.dry_run:
        from attn_lightning.commands.rehearsal import Rehearsal, rehearse

        validator = shared_validator()
        rehearse(cells, run.root, Rehearsal(validator.parser), validator.options)
        _print_commands(cells, run.root)
        return 0
    if options.archive is not None:
        run.take_from(options.archive)
    try:
        if engine is not None:
            # On a cluster the data may lie on the nodes alone.
            unready = partial(_unready, run.root) if options.on == "local" else None
            run.run(engine, lambda planned: _cell_command(options, planned), options.retry_failed, unready)
    finally:
        # After Ctrl-C too: what is finished is not to be lost with the machine.
        if options.archive is not None:
            run.keep_in(options.archive)
    code = run.show(_command(options.study), options.publish)
    if options.report:
        report_in_place(run.root, figures=True)
    return code


_OF_OWN = ("methods", "data", "seeds", "metrics", "baseline", "option", "name")


def _check_own(options: argparse.Namespace) -> None:
    given = [f"--{name}" for name in _OF_OWN if getattr(options, name)]
    if options.study is not None and given:
        raise ConfigurationError(
            f"Expected a study or the options of one without a file, but got {options.study} and {', '.join(given)}; "
            "leave one out, or change the file."
        )
    if options.study is None and not (options.methods and options.data):
        raise ConfigurationError(
            "Expected a study, or `--methods` and `--data` (with `--seeds`, `--metrics`, `--baseline`, `--option`, "
            "`--name`), but got neither; run `study --help` for the options."
        )


def _study(options: argparse.Namespace) -> Study:
    """The study that was asked for; one without a file gets its file, which the processes of its cells read."""
    if options.study is not None:
        return named_study(options.study)
    asked = Asked(
        methods=options.methods,
        data=options.data,
        seeds=options.seeds or "5",
        metrics=options.metrics,
        baseline=options.baseline,
        options=options.option or (),
        name=options.name,
    )
    path, contents = study_contents(asked, options.root)
    study = study_of(path, contents)
    options.study = str(path)
    if options.metrics is None and "metrics" in contents:
        say("the data has no test split: the tables are about the texts kept back for validation, a tenth of it")
    if not options.dry_run:
        # What cannot be a study must not leave a file of one.
        expand(study)
        write_study(path, contents)
    return study


def _run_one(cell: Cell, root: Path, retry_failed: bool) -> int:
    """The cell command, which every engine runs."""
    from attn_lightning.commands.fit import training_command
    from attn_lightning.commands.validation import shared_validator
    from attn_lightning.numerics import flush_denormals
    from attn_lightning.study.cell_run import Planned, run_cell
    from attn_lightning.study.validation import validate

    # As `fit` does at its start: a cell must compute what the same command would by itself.
    flush_denormals()
    validator = shared_validator()
    (wanted,) = validate([cell], root, *validator.both)
    return run_cell(Planned(cell, wanted, retry_failed), root, validator.parse, training_command)


def _unready(root: Path, cells: Sequence[Cell]) -> dict[Cell, str]:
    from attn_lightning.commands.preparation import Preparation, cells_without_data
    from attn_lightning.commands.validation import shared_validator

    validator = shared_validator()
    return cells_without_data(cells, root, Preparation(validator.parser), validator.options)


def _cell_command(options: argparse.Namespace, planned: "Planned") -> list[str]:
    command = ["study", options.study, "--cell", str(planned.cell), "--root", str(options.root)]
    # Per cell and not for all: one that fails now is not to be tried again by the same call.
    return [*command, *(["--retry-failed"] if planned.retry else [])]


def _command(study: str) -> str:
    """The shortest command that runs a study; `make` knows those in `experiments/studies`."""
    path = Path(study)
    # `make` looks in that folder alone; any other file needs the whole command.
    known = path.parent == STUDIES or not (path.suffix or path.parent != Path())
    return f"make study STUDY={path.stem}" if known else f"python -m attn_lightning study {study}"


def _print_commands(cells: Sequence[Cell], root: Path) -> None:
    for cell in cells:
        say(shlex.join(["python", "-m", "attn_lightning", *cell.arguments(root)]))
    say(f"# {len(cells)} commands, all accepted by `fit`")
