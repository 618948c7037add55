"""Every command of a study through the real parser, without training, and what it would run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attn_lightning import run_folder
from attn_lightning.data.revision import without_models
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.expansion import Cell
from attn_lightning.study.grouping import error_lines
from attn_lightning.study.logged import why_not_logged
from attn_lightning.study.state import Parse, Revisions, Wanted, comparable


def validate(
    cells: Sequence[Cell], root: Path, parse: Parse, revisions: Revisions, metrics: Sequence[str] = ()
) -> list[Wanted]:
    """Parse the command of every cell; cells that differ in the seed only are parsed once.

    A cell that begins from another run names a file of its seed, and one may have options that follow the seed: these
    are parsed for themselves.

    Args:
        cells: all cells of a study.
        root: `run.root`.
        parse: the parser of `fit`.
        revisions: gives what the files of the data are now.
        metrics: what the tables are to show; each has to be there in one cell at least.

    Returns:
        What is asked of every cell.

    Raises:
        ConfigurationError: commands that `fit` would refuse, all of them in one message; or a metric that no cell will
            have.
    """
    parsed: dict[tuple[Any, ...], Wanted] = {}
    runs: dict[tuple[Any, ...], dict[str, Any]] = {}
    errors: dict[str, str] = {}
    wanting: dict[str, list[str | None]] = {metric: [] for metric in metrics}
    for cell in cells:
        # Seeds differ in nothing that the parser could refuse, so one of them is parsed for all.
        common = _parsed_once(cell)
        if common in parsed or cell.name in errors:
            continue
        try:
            config = parse(cell.arguments(root))
            # Parts are added per cell below: only the first seed measures controls.
            # What it begins from is still to be made, or made again; `cell_state` looks at it when the time comes. All
            # else is there, the files of a pretrained encoder among it.
            made_here = [option.removeprefix("method.") for option in cell.base_files(root)]
            now = without_models(revisions(config), made_here)
            parsed[common], runs[common] = Wanted(comparable(config), {}, now), config["run"]
            for metric in metrics:
                wanting[metric].append(why_not_logged(metric, config))
        except ConfigurationError as error:
            errors[cell.name] = str(error)
    # All of them in one message: whoever mends a study of twenty methods wants to run this once.
    if errors:
        raise ConfigurationError(
            f"Expected commands that `fit` accepts, but got {len(errors)} it refuses:\n{error_lines(errors)}"
        )
    for metric, reasons in wanting.items():
        # A metric that some of the runs have is fine: the tables show a gap for the others.
        if reasons and all(reasons):
            raise ConfigurationError(f"Expected metrics that runs of the study have, but got {metric!r}: {reasons[0]}")
    return [_of_cell(parsed[_parsed_once(cell)], runs[_parsed_once(cell)], cell) for cell in cells]


def _of_cell(wanted: Wanted, run: Mapping[str, Any], cell: Cell) -> Wanted:
    """What is asked of a cell whose command was parsed for another seed, the first of which also measures controls."""
    own = {**run, **{option.removeprefix("run."): False for option in cell.switched_off}}
    return replace(wanted, config={**wanted.config, "seed_everything": cell.seed}, parts=run_folder.asked(own))


def _parsed_once(cell: Cell) -> tuple[str, tuple[tuple[str, str], ...], int | None]:
    """What cells have in common that one of them is parsed for."""
    return cell.name, cell.overrides, cell.seed if cell.bases else None
