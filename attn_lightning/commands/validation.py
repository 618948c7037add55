"""A `fit` command through the real parser, without training: what it would run."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import Namespace

from attn_lightning.commands.fit import AttentionCLI
from attn_lightning.commands.parsing import class_change_resets_arguments
from attn_lightning.errors import ConfigurationError


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
