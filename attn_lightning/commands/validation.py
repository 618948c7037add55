"""A `fit` command through the real parser, without training: what it would run."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from attn_lightning.commands.arguments import prepared
from attn_lightning.commands.fit import AttentionCLI
from attn_lightning.commands.letters import keep_words_for_letters
from attn_lightning.commands.parsing import class_change_resets_arguments
from attn_lightning.commands.same_run import encoder_names, revisions_now
from attn_lightning.data.revision import Version
from attn_lightning.errors import AttnLightningError, ConfigurationError, own_cause
from attn_lightning.study.state import Parse, Revisions


class _ParserOnly(AttentionCLI):
    """The parsers of the command line: parses and builds nothing, seeds nothing, leaves no folder."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(subcommand=None)
        # Lightning writes the configuration down when it makes a class of data or model. There is none here, and
        # without this it would fail on its absence.
        self.config_dump: dict[str, Any] = {}

    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...


@cache
def shared_validator() -> "Validator":
    """The validator of this process, which takes a second to build."""
    return Validator()


class Validator:
    """Parses `fit` commands with one parser for all of them, which takes a fraction of the time of the command.

    Attributes:
        parser: of `fit`.
    """

    def __init__(self) -> None:
        # That of `fit` itself: the one above it, which only chooses the command, would check everything once more.
        self.parser = _ParserOnly([])._parser("fit")
        self._options: dict[str, Namespace] = {}
        self._revisions: dict[str, dict[str, Version]] = {}

    @property
    def both(self) -> tuple[Parse, Revisions]:
        """What a study needs of it."""
        return self.parse, self.revisions

    def revisions(self, config: Mapping[str, Any]) -> dict[str, Version]:
        """What the files that a parsed configuration rests on are now; nothing if those of the data are not there."""
        key = _key(config)
        if key not in self._revisions:
            try:
                self._revisions[key] = revisions_now(self.parser, self._options[key])
            except (AttnLightningError, OSError):
                self._revisions[key] = {}
            except ValueError as error:
                if own_cause(error) is None:  # nothing that is wrong with the data
                    raise
                self._revisions[key] = {}
        return self._revisions[key]

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The configuration of a command, with every default filled in.

        Raises:
            ConfigurationError: the command line would refuse it.
        """
        config = self.options(arguments)
        contents: dict[str, Any] = yaml.safe_load(self.parser.dump(config, skip_unset=False, skip_validation=True))
        self._options[_key(contents)] = config
        return contents

    def options(self, arguments: Sequence[str]) -> Namespace:
        """The same as the parser has it, from which classes can be made.

        Raises:
            ConfigurationError: the command line would refuse it.
        """
        _, *options = prepared(arguments)
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), class_change_resets_arguments():
                config: Namespace = self.parser.parse_args(options)
        except SystemExit:
            message = errors.getvalue().removeprefix("error: ").split("\nrun with --help")[0].strip()
            raise ConfigurationError(message) from None
        # As `fit` does, or its run would be one of another configuration than what was asked for.
        keep_words_for_letters(config)
        return config


def _key(config: Mapping[str, Any]) -> str:
    # Only what names files: the cells of a study share it, and their files are read once.
    encoders = list(encoder_names(config["model"]))
    parts = [config["data"], config.get("method"), config["trainer"].get("callbacks"), encoders]
    return json.dumps(parts, sort_keys=True, default=str)
