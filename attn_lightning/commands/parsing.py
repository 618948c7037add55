"""The parser of `fit`, `validate` and `test`: its help and its errors, which jsonargparse has its own ideas of."""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, _typehints
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from attn_lightning import data, methods  # noqa: F401  (their classes are found by short names, as ProbeSet is)
from attn_lightning.backbone.bottleneck import Compressor
from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.normalizers import Normalizer
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.scorers import Scorer
from attn_lightning.backbone.segments import FocusNetwork, SegmentClassifier
from attn_lightning.callbacks.probe_set import ProbeSet  # noqa: F401
from attn_lightning.commands.arguments import values_of
from attn_lightning.console import say
from attn_lightning.data.embeddings import Embeddings
from attn_lightning.errors import did_you_mean
from attn_lightning.methods.base import Method

_PARTS: tuple[tuple[str, type], ...] = (
    ("--model.backbone.help", Backbone),
    ("--model.backbone.encoder.help", Encoder),
    ("--model.backbone.scorer.help", Scorer),
    ("--model.backbone.normalizer.help", Normalizer),
    ("--model.backbone.focus.help", FocusNetwork),
    ("--model.backbone.classifier.help", SegmentClassifier),
    ("--data.embeddings.help", Embeddings),
)
"""The help options beside those of method and data, and the classes they are about."""

_MADE = {option.split(".")[-2]: part for option, part in _PARTS} | {"compressor": Compressor}
"""Options that are a way to make a part, by the last part of their name, and the class of what they make."""


_GROUPS = {
    "trainer": "trainer (how long and on what is trained; options of Lightning's Trainer)",
    "model": "model (the network, its loss and its optimizer)",
    "data": "data (what is learned; `--data.help IMDB` lists the options of one)",
    "method": "method (how it is trained; `--method.help AttentionIVAT` describes one and lists its options)",
    "run": "run (where it is kept and what is measured after the training)",
    **dict.fromkeys(("fit", "validate", "test"), "checkpoint"),
}
"""Titles of the groups of options; those of jsonargparse are the first lines of docstrings."""


class OneLineErrorParser(LightningArgumentParser):
    """Prints the error, the nearest option and how to get help, without pages of usage before it."""

    commands: Mapping[str, ArgumentParser] = {}
    instantiators: Sequence[tuple[Any, type, bool]] = ()

    def add_subcommands(self, *arguments: Any, **options: Any) -> Any:
        """As jsonargparse does, and keep the parsers of the commands for the hints of errors."""
        action = super().add_subcommands(*arguments, **options)
        self.commands = action.choices
        return action

    # The next three take calls of Lightning 2.6 by names that jsonargparse 4.49 deprecated and 5 will not have.

    def add_instantiator(self, instantiator: Any, class_type: type, subclasses: bool = True) -> None:
        """Keep a function that makes the objects of a class, for `instantiate_classes`."""
        self.instantiators = [*self.instantiators, (instantiator, class_type, subclasses)]

    def instantiate_classes(self, cfg: Namespace) -> Namespace:
        """`instantiate`, with the functions of `add_instantiator`."""
        made: Namespace = self.instantiate(cfg, instantiators=self.instantiators)
        return made

    def dump(self, cfg: Namespace, *arguments: Any, skip_none: bool = True, **options: Any) -> str:
        """As jsonargparse does; its `skip_unset` was once called `skip_none`."""
        # What is written down was checked when it was parsed; to check it again takes a fifth of the start of a run.
        text: str = super().dump(cfg, *arguments, **{"skip_unset": skip_none, "skip_validation": True, **options})
        return text

    def name_groups(self, usage: str, description: str) -> None:
        """Give the help of a command its head and every group of options a title that says what it is for."""
        self.usage = f"python -m attn_lightning {usage} [--OPTION=VALUE ...]"
        self.description = description
        for name, group in (self.groups or {}).items():
            group.title = _GROUPS[name]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with code 2."""
        shown = _unknown_class(message) or message + _nearest_of_unrecognized(message, self)
        # jsonargparse gives every type that was tried a line of its own.
        shown = " ".join(shown.split())
        say(f"error: {shown}\nrun with --help for all options", error=True)
        raise SystemExit(2)

    def validate(self, namespace: Namespace, *arguments: Any, **options: Any) -> None:
        """As jsonargparse does, but an unknown option comes with the nearest known one.

        The arguments of a class are checked by a parser of their own, the only one that knows what they can be.

        Raises:
            KeyError: there is an unknown option.
        """
        check_parts(namespace)
        # jsonargparse lets an empty value pass for everything, and `weight:` would end in the arithmetic of a step.
        # Where required values need not be there, what has to be given is empty, and that is right.
        strict = options if options.get("skip_required") else {**options, "skip_unset": False}
        try:
            try:
                super().validate(namespace, *arguments, **strict)
            except (KeyError, TypeError):
                # What it says without the empty values is clearer: that something is required, for example. Only now,
                # since classes within classes are checked by it too, and twice for each would be many times.
                super().validate(namespace, *arguments, **options)
                raise
        except KeyError as error:
            unknown = re.search(r"option '([\w.]+)'", str(error), re.IGNORECASE)
            # The error passes through the parsers of all classes above it, each of which would add a hint.
            if unknown and not hasattr(error, "has_hint"):
                error.args = (str(error.args[0]) + _nearest_option(unknown[1], self),)
                error.has_hint = True  # type: ignore[attr-defined]
            raise


def check_parts(config: Namespace) -> None:
    """Refuse functions in the place of classes before anything calls them.

    jsonargparse takes `class_path: os.system` for every option that is a way to make a part, and would run it.

    Args:
        config: what was parsed, or a part of it.

    Raises:
        TypeError: something else is named than a class of such parts.
    """
    for name, path in config.items():
        slot, _, key = name.rpartition(".")
        base = _MADE.get(slot.rpartition(".")[2])
        if key == "class_path" and base is not None and isinstance(path, str) and not _is_class_of(path, base):
            # The parser shows this kind of error as one line, as that of a value of a wrong type.
            raise TypeError(
                f"Expected `{slot}` to be a class of {base.__name__}, but got {path}, which is none; name a class with "
                "its module, `my_module.MyClass`."
            )


def _is_class_of(path: str, base: type) -> bool:
    module, _, attribute = path.rpartition(".")
    # What cannot be imported cannot be run either; the parser itself says what is wrong with such a name.
    with suppress(ImportError, ValueError):
        named = getattr(importlib.import_module(module), attribute, None)
        return isinstance(named, type) and issubclass(named, base)
    return True


def _options_of(parser: ArgumentParser) -> set[str]:
    """Names of what a parser and its commands accept, without those of classes that could be chosen."""
    defaults = parser.get_defaults(skip_validation=True).keys()
    # The command line names a class by the option itself; `class_path` stands in files only.
    names = {name.removesuffix(".class_path") for name in defaults if "init_args" not in name}
    return names.union(*map(_options_of, getattr(parser, "commands", {}).values()))


def _nearest_of_unrecognized(message: str, parser: ArgumentParser) -> str:
    """The nearest option for the first of those that argparse did not recognize; empty for another error."""
    unknown = re.match(r"unrecognized arguments: --([\w.]+)", message)
    return _nearest_option(unknown[1], parser) if unknown else ""


def _nearest_option(unknown: str, parser: ArgumentParser) -> str:
    hint = did_you_mean(unknown, _options_of(parser), most=1)
    return f".{hint}" if hint else ""


def _unknown_class(message: str) -> str | None:
    """jsonargparse says "expected a dot import path" where a class name was misspelled: say which ones there are."""
    found = re.search(r'key "([\w.]+)".*Expected a dot import path string: (\w+)', message, re.DOTALL)
    slots: dict[str, tuple[str, type]] = {"method": ("--method", Method), "data": ("--data", LightningDataModule)}
    for help_option, part in _PARTS:
        option = help_option.removesuffix(".help")
        slots[option.rsplit(".", 1)[-1]] = (option, part)  # jsonargparse names no more than the last part of most keys
    if found is None or found[1].rsplit(".", 1)[-1] not in slots:
        return None
    option, base = slots[found[1].rsplit(".", 1)[-1]]
    # Abstract ones cannot be chosen, and would be offered as the nearest name.
    names = sorted(known.__name__ for known in _subclasses(base) if not inspect.isabstract(known))
    return (
        f"Expected `{option}` to be a class, but there is no {found[2]!r}.{did_you_mean(found[2], names, most=1)} "
        f"Known: {', '.join(names)}; one of your own is named with its module, `my_module.MyClass`."
    )


def _subclasses(base: type) -> set[type]:
    direct: set[type] = set(base.__subclasses__())
    below = direct.union(*map(_subclasses, direct))
    # Those of tests and of Lightning are loaded as well, and are not what was meant.
    return {known for known in below if known.__module__.startswith("attn_lightning")}


def print_cards(arguments: Sequence[str]) -> None:
    """Print the whole docstring of X before `--method.help X` lists its arguments; jsonargparse shows one line."""
    for option, base in (("--method.help", Method), ("--data.help", LightningDataModule), *_PARTS):
        for name in values_of(arguments, option):
            for known in _subclasses(base):
                if name in (known.__name__, f"{known.__module__}.{known.__name__}"):
                    card = (inspect.getdoc(known) or "").split("\nArgs:")[0]
                    print(f"{known.__name__}: {card}\n")


@contextmanager
def class_change_resets_arguments() -> Iterator[None]:
    """Let a change of class start from the new class's own defaults.

    jsonargparse keeps arguments of the same name when another `class_path` is chosen: after
    `--method EntropyPenalty` over a configuration of another method, the `weight` of that one would be kept.
    """
    # The one private name of jsonargparse that is replaced: neither its settings nor a method of the parser say what is
    # kept (jsonargparse 4.53, `adapt_class_type` calls this function of its module).
    original: Any = _typehints.discard_init_args_on_class_path_change

    def discard_all(parser_or_action: Any, previous: Any, value: Any) -> None:
        # Of the same class everything stays: options may be given in a file and on the command line.
        if previous and "init_args" in previous and previous["class_path"] != value["class_path"]:
            previous.init_args = Namespace()
        original(parser_or_action, previous, value)

    _typehints.discard_init_args_on_class_path_change = discard_all
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = original
