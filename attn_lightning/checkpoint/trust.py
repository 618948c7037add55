"""Whose classes a checkpoint, and the configuration beside it, may name: ours, and those that the user trusts.

A class that is named is imported and run. A checkpoint that came from somewhere else could so run any module that lies
in the current folder; therefore other classes are only taken when the command line names them too.
"""

import importlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from attn_lightning.errors import ConfigurationError

INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
"""What Lightning's `load_from_checkpoint` calls to build a module from descriptions of classes."""

_PACKAGE = "attn_lightning"
_TRAINER = "lightning.pytorch."
"""Callbacks, loggers and strategies of the trainer, which a configuration may name besides."""

_PARAMETERS = ("hyper_parameters", "hparams", "module_arguments")
"""Where Lightning reads the arguments of a module; the last two are of its older versions."""

_FILES = ("base_checkpoint", "teacher_checkpoint")
"""Options of methods that are paths: `best.ckpt` looks like a class."""

_SETS = ("embeddings", "unlabeled")
"""Options of data that are classes; the others hold paths and names of columns, and `train.csv` looks like a class."""


def trusted_classes(values: Iterable[str]) -> set[str]:
    """The classes that `--trust` names.

    Args:
        values: of the option, each one class or a list such as `a.B,c.D` or `[a.B, c.D]`.
    """
    return {name.strip(" []'\"") for value in values for name in value.split(",")} - {""}


def check_checkpoint(checkpoint: Mapping[str, Any], trusted: Collection[str] | None = ()) -> None:
    """Refuse a checkpoint whose model would be built by foreign code.

    Args:
        checkpoint: as `read_checkpoint` gives it.
        trusted: classes that the user named; None for a program in Python, which knows what it has imported itself.

    Raises:
        ConfigurationError: it names a class that is neither of this package nor trusted.
    """
    names: set[str] = set()
    for key in _PARAMETERS:
        parameters = checkpoint.get(key, {})
        if isinstance(parameters, Mapping):
            # Not by `class_path` alone: jsonargparse imports a plain string too where a class or function is expected.
            names.update(_importable({name: value for name, value in parameters.items() if name != "_instantiator"}))
            if parameters.get("_instantiator", INSTANTIATOR) != INSTANTIATOR:
                names.add(str(parameters["_instantiator"]))
    if trusted is None:
        names -= {name for name in names if _is_imported(name)}
    _refuse(names, trusted or (), "the checkpoint")


def check_configuration(config: Any, trusted: Collection[str] = ()) -> None:
    """The same for a configuration that lies in a run folder.

    Args:
        config: of `fit`, as plain values; anything else names nothing.
        trusted: classes that the user named.

    Raises:
        ConfigurationError: it names a class that is neither of this package, nor of Lightning's trainer, nor trusted.
    """
    named = set(classes_of(config))
    of_trainer = _importable(config.get("trainer")) if isinstance(config, Mapping) else ()
    # Only in the section of the trainer: elsewhere a class of Lightning is as foreign as any.
    named -= {name for name in of_trainer if name.startswith(_TRAINER)}
    _refuse(named, trusted, "the configuration beside it")


def classes_of(config: Any) -> Iterator[str]:
    """Every class that a configuration of `fit` names with its module; short names are of this package.

    Args:
        config: plain values.
    """
    if isinstance(config, Mapping):
        for key in ("model", "method", "trainer"):
            yield from _importable(config.get(key))
        yield from _of_data(config.get("data"))


def _importable(value: Any) -> Iterator[str]:
    """Every string that could be imported: `class_path` is not the only place where a class may stand."""
    if isinstance(value, str):
        parts = value.split(".")
        # What has no dot cannot be imported as a class; what is no identifier cannot be imported at all.
        if len(parts) > 1 and all(part.isidentifier() for part in parts):
            yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            if key not in _FILES:
                yield from _importable(entry)
    elif isinstance(value, list | tuple | set):
        for entry in value:
            yield from _importable(entry)


def _of_data(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _importable(value)
    elif isinstance(value, Mapping):
        yield from _importable(value.get("class_path"))
        arguments = value.get("init_args")
        if isinstance(arguments, Mapping):
            for name in _SETS:
                yield from _of_data(arguments.get(name))


def _refuse(names: Iterable[str], trusted: Collection[str], where: str) -> None:
    foreign = sorted(name for name in names if name not in trusted and not _is_ours(name))
    if foreign:
        raise ConfigurationError(
            f"Expected classes of this package, but {where} names {', '.join(foreign)}, which would be imported and "
            f"run; if you know it, add `--trust {','.join(foreign)}`."
        )


def _is_ours(name: str) -> bool:
    """Whether it is a class of this package, and no other thing that can be called."""
    module, _, attribute = name.rpartition(".")
    # To import `__main__` is to run the program.
    if module.split(".")[0] != _PACKAGE or "__main__" in module:
        return False
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return False
    # A module of ours also holds what it has imported: `attn_lightning.files.Path` is not ours.
    return isinstance(found, type) and found.__module__.split(".")[0] == _PACKAGE


def _is_imported(name: str) -> bool:
    """Whether this program has loaded the class itself, so that it would run nothing new."""
    module, _, attribute = name.rpartition(".")
    return isinstance(getattr(sys.modules.get(module), attribute, None), type)
