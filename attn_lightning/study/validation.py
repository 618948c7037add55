"""Every command of a study through the real parser, without training, and what it would run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import Parse, comparable


def validate(cells: Sequence[Cell], root: Path, parse: Parse) -> list[dict[str, Any]]:
    """Parse the command of every cell; cells that differ in the seed only are parsed once.

    A cell that begins from another run names a file of its seed, and is parsed for itself.

    Args:
        cells: all cells of a study.
        root: `run.root`.
        parse: the parser of `fit`.

    Returns:
        The configuration of every cell, as `comparable` gives it.

    Raises:
        ConfigurationError: commands that `fit` would refuse, all of them in one message.
    """
    parsed: dict[str, dict[str, Any]] = {}
    errors: dict[str, str] = {}
    for cell in cells:
        name = _parsed_once(cell)
        if name in parsed or cell.name in errors:
            continue
        try:
            parsed[name] = comparable(parse(cell.arguments(root)))
        except ConfigurationError as error:
            errors[cell.name] = str(error)
    if errors:
        lines = "\n".join(f"  {name}: {message}" for name, message in errors.items())
        raise ConfigurationError(f"Expected commands that `fit` accepts, but got {len(errors)} it refuses:\n{lines}")
    return [{**parsed[_parsed_once(cell)], "seed_everything": cell.seed} for cell in cells]


def _parsed_once(cell: Cell) -> str:
    return str(cell) if cell.bases else cell.name
