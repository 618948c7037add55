"""A `fit` command through the real parser, without training: what it would run."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from attn_lightning.commands.arguments import prepared
from attn_lightning.commands.fit import AttentionCLI
from attn_lightning.commands.parsing import class_change_resets_arguments
from attn_lightning.errors import ConfigurationError


class _ParserOnly(AttentionCLI):
    """The parsers of the command line: parses and builds nothing, seeds nothing, leaves no folder."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(subcommand=None)

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...


class Validator:
    """Parses `fit` commands with one parser for all of them, which takes a fraction of the time of the command."""

    def __init__(self) -> None:
        # That of `fit` itself: the one above it, which only chooses the command, would check everything once more.
        self._parser = _ParserOnly([])._parser("fit")

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The configuration of a command, with every default filled in.

        Raises:
            ConfigurationError: the command line would refuse it.
        """
        _, *options = prepared(arguments)
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), class_change_resets_arguments():
                config = self._parser.parse_args(options)
        except SystemExit:
            message = errors.getvalue().removeprefix("error: ").split("\nrun with --help")[0].strip()
            raise ConfigurationError(message) from None
        contents: dict[str, Any] = yaml.safe_load(self._parser.dump(config, skip_unset=False, skip_validation=True))
        return contents
