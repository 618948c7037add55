"""Every command of a study through the real parser, without training, and what it would run."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from attn_lightning.arguments import class_change_resets_arguments
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import comparable
from attn_lightning.training import AttentionCLI


class _ParserOnly(AttentionCLI):
    """The command line of `fit` up to its configuration: builds nothing, seeds nothing, leaves no folder."""

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


class Validator:
    """Parses `fit` commands with one parser for all of them."""

    def __init__(self) -> None:
        self._cli: AttentionCLI | None = None

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The configuration of a command, with every default filled in.

        Raises:
            ConfigurationError: the command line would refuse it.
        """
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), class_change_resets_arguments():
                return self._plain(self._parsed(list(arguments)))
        except SystemExit:
            message = errors.getvalue().removeprefix("error: ").split("\nrun with --help")[0].strip()
            raise ConfigurationError(message) from None

    def _parsed(self, arguments: list[str]) -> Namespace:
        if self._cli is None:
            self._cli = _ParserOnly(arguments)
            first: Namespace = self._cli.config
            return first
        parsed: Namespace = self._cli.parser.parse_args(arguments)
        return parsed

    def _plain(self, config: Namespace) -> dict[str, Any]:
        assert self._cli is not None
        written = self._cli._parser("fit").dump(config.fit, skip_unset=False)
        contents: dict[str, Any] = yaml.safe_load(written)
        return contents


def validate(cells: Sequence[Cell], root: Path, validator: Validator) -> list[dict[str, Any]]:
    """Parse the command of every cell; cells that differ in the seed only are parsed once.

    A cell that begins from another run names a file of its seed, and is parsed for itself.

    Args:
        cells: all cells of a study.
        root: `run.root`.
        validator: the parser.

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
            parsed[name] = comparable(validator.parse(cell.arguments(root)))
        except ConfigurationError as error:
            errors[cell.name] = str(error)
    if errors:
        lines = "\n".join(f"  {name}: {message}" for name, message in errors.items())
        raise ConfigurationError(f"Expected commands that `fit` accepts, but got {len(errors)} it refuses:\n{lines}")
    return [{**parsed[_parsed_once(cell)], "seed_everything": cell.seed} for cell in cells]


def _parsed_once(cell: Cell) -> str:
    return str(cell) if cell.bases else cell.name
