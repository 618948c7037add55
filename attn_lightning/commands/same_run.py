"""Whether a run that exists is the one that a command asks for."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from attn_lightning import run_folder
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.published import origins
from attn_lightning.checkpoint.trust import check_configuration, classes_of
from attn_lightning.data.revision import Version, model_option, model_place, option_name, recorded_revisions, revisions
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.combined import flatten
from attn_lightning.methods.trained import model_origins
from attn_lightning.study.state import comparable

LONGER = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
"""What may be raised to train a finished run longer."""

DATA_FILES = "the files of the data"


class SameRun:
    """Compares runs with the configuration of a command.

    Args:
        config: gives that of the command, as plain values; called when a run is compared.
        parse: gives the configuration of a file with today's defaults.
        revisions: gives the revisions of the data of the command; called when a run has the same configuration.
    """

    def __init__(
        self,
        config: Callable[[], dict[str, Any]],
        parse: Callable[[Path], dict[str, Any]],
        revisions: Callable[[], dict[str, Version]],
    ) -> None:
        self._config, self._parse, self._revisions = config, parse, revisions

    @cached_property
    def _wanted(self) -> dict[str, Any]:
        return comparable(self._config())

    @cached_property
    def _now(self) -> dict[str, Version]:
        return self._revisions()

    def differences(self, folder: Path) -> list[str]:
        """Names of the options in which a run differs; all that decides about its results counts.

        Args:
            folder: its run folder.
        """
        path = run_folder.newest_config(folder)
        if path is None:
            return ["its configuration, which is missing"]
        differing = self._differing(path)
        # Last, as the files of the data take long to digest.
        return differing or self._changed_files(folder)

    def _changed_files(self, folder: Path) -> list[str]:
        found = recorded_revisions(run_folder.read_metrics(folder))
        changed = [place for place in found if not found[place].agrees(self._now.get(place, found[place]))]
        names = [model_option(place) for place in changed]
        return list(dict.fromkeys(DATA_FILES if name is None else f"the file of {option_name(name)}" for name in names))

    def _differing(self, path: Path) -> list[str]:
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            found = differing(comparable(config), self._wanted)
            # Of another seed for certain, and a configuration takes long to parse.
            if not found or "seed_everything" in found:
                return found
            # To parse a configuration imports the classes that it names.
            check_configuration(config, set(classes_of(self._wanted)))
            # Written by another version, it may lack options that are at their defaults.
            return differing(comparable(self._parse(path)), self._wanted)
        except (yaml.YAMLError, AttributeError, ConfigurationError, SystemExit):
            return ["its configuration, which cannot be read"]


def revisions_now(parser: ArgumentParser, options: Namespace) -> dict[str, Version]:
    """Revisions of the files of the data, and of the models that methods begin from, as they are now.

    Args:
        parser: of `fit`.
        options: parsed by it.

    Raises:
        ConfigurationError: the data cannot be found.
    """
    callbacks = Namespace(callbacks=options.trainer.callbacks)
    made = parser.instantiate(Namespace(data=options.data, method=options.method, trainer=callbacks))
    methods = flatten(callback for callback in (made.method, *(made.trainer.callbacks or [])) if callback is not None)
    models = model_origins(methods) | origins(encoder_names(options.model.as_dict()))
    found = {model_place(option): Version(origin["revision"]) for option, origin in models.items()}
    return {**revisions(made.data), **found}


def encoder_names(options: Any) -> Iterator[str]:
    """The `name` of every pretrained encoder among the options of a model. (To build one reads its weights.)"""
    if not isinstance(options, dict):
        return
    if str(options.get("class_path")).rsplit(".", 1)[-1] == Pretrained.__name__:
        yield str(options.get("init_args", {}).get("name"))
    for value in options.values():
        yield from encoder_names(value)


def differing(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the values in which two nested mappings differ, without `init_args`, as they are written."""
    found = []
    for key in sorted({*one, *other}):
        first, second = one.get(key), other.get(key)
        # As the option is called on the command line, where `init_args` is left out.
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            found += differing(first, second, name)
        elif first != second:
            found.append(name)
    return found
