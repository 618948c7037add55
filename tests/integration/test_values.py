"""Every option of every method, data set, source of word vectors and of the model, with values it cannot take."""

import inspect
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule

from attn_lightning.commands.run_options import RunOptions
from attn_lightning.commands.validation import shared_validator
from attn_lightning.data.embeddings import Embeddings
from attn_lightning.errors import AttnLightningError, ConfigurationError, own_cause
from attn_lightning.methods import AttentionAT
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule

REQUIRED: dict[str, dict[str, Any]] = {"TextFiles": {"train": "a.csv"}, "Scheduled": {"method": AttentionAT()}}
"""What a class cannot be made without."""

WRONG = ("{}", "[[]]", "{a: [1]}", "!!python/object:os.system", "1e400", "-.inf", ".nan")
"""Structures where a number or a word is meant, and numbers that are not finite."""


def subclasses(base: type) -> set[type]:
    direct = set(base.__subclasses__())
    found = direct.union(*map(subclasses, direct))
    ours = {cls for cls in found if cls.__module__.startswith("attn_lightning.")}
    return {cls for cls in ours if not cls.__name__.startswith("_") and not inspect.isabstract(cls)}


BY_SLOT = {
    "method": sorted(subclasses(Method), key=lambda cls: cls.__name__),
    "data": sorted(subclasses(LightningDataModule), key=lambda cls: cls.__name__),
    "data.embeddings": sorted(subclasses(Embeddings), key=lambda cls: cls.__name__),
    "model": [AttentionModule],
    "run": [RunOptions],
}
CLASSES = [cls for slot, classes in BY_SLOT.items() if slot != "run" for cls in classes]


def options(cls: Any) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "args", "kwargs")]


def numbers(cls: Any) -> Iterator[str]:
    hints = get_type_hints(cls.__init__)
    for name in options(cls):
        if hints.get(name) is float or float in get_args(hints.get(name)):
            yield name


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_numbers_that_are_not_finite_are_refused(cls: Any) -> None:
    for name in numbers(cls):
        for value in (math.inf, -math.inf, math.nan):
            with pytest.raises(AttnLightningError, match="Expected") as refused:
                cls(**{**REQUIRED.get(cls.__name__, {}), name: value})
            assert "\n" not in str(refused.value), name


def test_there_is_something_to_refuse() -> None:
    assert sum(len(list(numbers(cls))) for cls in CLASSES) > 40


def command(slot: str, cls: Any) -> list[str]:
    named = {"method": ["--data=Planted"], "data.embeddings": ["--data=Planted"]}.get(slot, [])
    if slot in ("method", "data", "data.embeddings"):
        return ["fit", *named, f"--{slot}={cls.__name__}"]
    return ["fit", "--data=Planted"]


def tried(classes: list[Any], values: Sequence[str], every: int) -> Iterator[tuple[Any, str, str]]:
    """Classes, options and values: a part of the values for each option, and other ones for the next.

    An option that an earlier class has by the same name and type is tried with one value.
    """
    # A parse takes 60 ms, and options of one type are handled alike: all of them together see every value.
    known = set()
    for cls in classes:
        hints = get_type_hints(cls.__init__)
        for number, name in enumerate(options(cls)):
            kind = name, str(hints.get(name))
            some = [values[number % len(values)]] if kind in known else values[number % every :: every]
            known.add(kind)
            yield from ((cls, name, value) for value in some)


def refusals(slot: str, classes: list[Any]) -> Iterator[str]:
    """What is said of wrong values of every option; an empty mapping may change nothing and pass."""
    for cls, name, value in tried(classes, WRONG, 2):
        try:
            shared_validator().parse([*command(slot, cls), f"--{slot}.{name}={value}"])
        except ConfigurationError as error:
            yield str(error)


@pytest.mark.slow
@pytest.mark.parametrize("slot", BY_SLOT)
def test_a_value_of_the_wrong_kind_is_one_line(slot: str) -> None:
    said = list(refusals(slot, BY_SLOT[slot]))
    assert len(said) > 10
    assert not [text for text in said if "\n" in text]


YAML = (
    "",
    "much",
    "-1",
    "[1, a]",
    "{a: [1]}",
    "{class_path: os.system}",
    ".inf",
    f"0x{'f' * 5000}",
    '"\\e[31m"',
    "1e3",
)
"""Values of every kind that a file can hold, some of which some options take."""

FEW = ("AttentionIVAT", "Scheduled", "Planted", "Blobs", "RandomEmbeddings", "PretrainedEmbeddings", "RunOptions")
"""Of every slot some, in every run of the tests."""


def in_a_file(slot: str, cls: Any, name: str, value: str) -> str:
    """YAML that gives one option of a class this value."""
    needed = {"TextFiles": "train: a.csv", "Scheduled": "method: AttentionAT"}.get(cls.__name__, "")
    own = f"{name}: {value}" if needed.startswith(f"{name}:") or not needed else f"{needed}, {name}: {value}"
    made = f"{{class_path: {cls.__name__}, init_args: {{{own}}}}}"
    planted = "data: Planted\n"
    return {
        "method": f"{planted}method: {made}",
        "data": f"data: {made}",
        "data.embeddings": f"data: {{class_path: Planted, init_args: {{embeddings: {made}}}}}",
    }.get(slot, f"{planted}{slot}: {{{own}}}")


def said_of_files(slot: str, classes: list[Any], every: int, folder: Path) -> Iterator[str]:
    """What is said of values in a file: by the parser, or by the class when it is made."""
    validator, path = shared_validator(), folder / "mine.yaml"
    for cls, name, value in tried(classes, YAML, every):
        path.write_text(in_a_file(slot, cls, name, value))
        try:
            config = validator.options(["fit", f"--config={path}"])
            part = slot.partition(".")[0]
            if part in ("method", "data"):
                validator.parser.instantiate(Namespace({part: config[part]}))
        except AttnLightningError as error:
            yield str(error)
        except ValueError as error:
            # As `fit` does it, where one that is nobody's is a traceback.
            yield str(own_cause(error) or f"\n{name} of {cls.__name__}: {value[:30]}: {error}")


@pytest.mark.parametrize(
    ("slot", "names"),
    [
        *((slot, FEW) for slot in BY_SLOT),
        *(pytest.param(slot, (), marks=pytest.mark.slow) for slot in BY_SLOT if slot != "run"),
    ],
)
def test_a_value_of_the_wrong_kind_in_a_file_is_one_line(slot: str, names: tuple[str, ...], tmp_path: Path) -> None:
    classes = [cls for cls in BY_SLOT[slot] if not names or cls.__name__ in names]
    said = list(said_of_files(slot, classes, 3 if names else 2, tmp_path))
    assert len(said) > 10 or (slot == "model" and names)
    assert not [text for text in said if "\n" in text]


def test_what_was_tried_in_vain_is_one_line(cli: Any) -> None:
    outcome = cli("fit", "--data=Planted", "--data.batch_size=[1]", "--data.unlabeled=[1]")
    assert outcome.code == 2
    first, second = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert "batch_size" in first or "unlabeled" in first
    assert second == "run with --help for all options"
