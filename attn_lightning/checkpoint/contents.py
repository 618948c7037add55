"""What a checkpoint carries beside the weights."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attn_lightning import __version__
from attn_lightning.checkpoint.trust import INSTANTIATOR
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import SAME_DATA, DataSpec

FORMAT = 1
"""Raised when older checkpoints can no longer be read, or newer ones not by older code."""

KEY = "attn_lightning"
"""Where this package's entry is in a checkpoint of Lightning."""


def add_checkpoint_contents(
    checkpoint: dict[str, Any], spec: DataSpec, tokenizer: str | None, class_weights: list[float] | None
) -> None:
    """Add our entry to a Lightning checkpoint: all that `predict` needs on raw text."""
    checkpoint[KEY] = {
        "format": FORMAT,
        "version": __version__,
        "num_classes": spec.num_classes,
        "vocabulary_size": spec.vocabulary_size,
        "embedding_size": spec.embedding_size,
        "label_names": list(spec.label_names),
        "segment_shape": list(spec.segment_shape),
        "num_default_tokens": spec.num_default_tokens,
        "has_question": spec.has_question,
        "has_candidates": spec.has_candidates,
        "open_vocabulary": bool(spec.vocabulary),
        "resources": dict(spec.resources),
        "tokenizer": tokenizer,
        "class_weights": class_weights,
    }


def check_same_data(ours: DataSpec, theirs: DataSpec) -> None:
    """Refuse data of another kind than that of a checkpoint.

    Args:
        ours: of the checkpoint.
        theirs: of the data.

    Raises:
        ConfigurationError: naming the first of `SAME_DATA` in which they differ, or the same classes in another order.
    """
    for name in SAME_DATA:
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigurationError(
                f"Expected data with `{name}` = {getattr(ours, name)}, as the checkpoint was trained on, but got "
                f"{getattr(theirs, name)}; use the data (and its options) of that run."
            )
    check_order(ours.label_names, theirs.label_names)


def check_order(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Refuse the classes of a checkpoint in another order; other names may be other words for the same ones.

    Args:
        ours: names of the classes of the checkpoint, by number.
        theirs: those of the data.

    Raises:
        ConfigurationError: naming both.
    """
    if list(ours) != list(theirs) and sorted(ours) == sorted(theirs):
        raise ConfigurationError(
            f"Expected data with the classes {', '.join(ours)} in this order, as the checkpoint was trained on, but "
            f"got {', '.join(theirs)}, so that its predictions would be taken for other classes; use the "
            "`data.label_names` of that run."
        )


def checkpoint_contents(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What this package put into a checkpoint.

    Raises:
        ConfigurationError: a checkpoint of another program or of a newer version of this one.
    """
    stored = checkpoint.get(KEY)
    if not isinstance(stored, dict) or "format" not in stored:
        raise ConfigurationError(
            "Expected a checkpoint of attn_lightning, but got one without its entry; use a file under "
            "`checkpoints/` of a run folder."
        )
    if stored["format"] != FORMAT:
        raise ConfigurationError(
            f"Expected a checkpoint of format {FORMAT}, but got format {stored['format']}, written by "
            f"version {stored.get('version')}; this is version {__version__}: use the version that wrote it."
        )
    for name, (expected, fits) in _ENTRIES.items():
        if name not in stored and name in _LATER:
            continue
        if name not in stored or not fits(stored[name]):
            raise _edited(name, expected, stored.get(name, "nothing"))
    # Each is right by itself at this point; a wrong number of them would be an index error far from here.
    for name in ("label_names", "class_weights"):
        if stored.get(name) is not None and len(stored[name]) != stored["num_classes"]:
            raise _edited(name, f"{stored['num_classes']} entries, one per class", stored[name])
    return stored


def _count(value: Any, least: int) -> bool:
    # `type`, as True is an int to `isinstance`; the bound keeps a forged size from asking for all memory.
    return type(value) is int and least <= value < 2**31


_LATER = ("num_default_tokens",)
"""Entries that older checkpoints do not have."""

_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_classes": ("a number of 2 and more", lambda value: _count(value, 2)),
    "vocabulary_size": ("a number of 0 and more", lambda value: _count(value, 0)),
    "embedding_size": ("a number of 1 and more", lambda value: _count(value, 1)),
    "label_names": ("a list of names", lambda value: _list_of(value, lambda name: isinstance(name, str))),
    "segment_shape": ("a list of numbers", lambda value: _list_of(value, lambda size: _count(size, 1))),
    "num_default_tokens": ("a number of 0 and more", lambda value: _count(value, 0)),
    "tokenizer": ("a text or null", lambda value: value is None or isinstance(value, str)),
    "class_weights": ("finite numbers or null", lambda value: value is None or _list_of(value, _finite)),
}
"""What `checkpoint_contents` promises of every entry, so that nobody below it finds out by an exception."""


_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){1,3}([a-z+.]\w*)*$")
_PARTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "pytorch-lightning_version": ("a version", lambda value: isinstance(value, str) and bool(_VERSION.match(value))),
    "state_dict": ("weights by their names", lambda value: isinstance(value, dict) and _are_weights(value)),
    "hyper_parameters": ("options by their names", lambda value: value is None or _has_names(value)),
}


def _has_names(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _are_weights(value: dict[Any, Any]) -> bool:
    dense = all(not isinstance(part, Tensor) or part.layout == torch.strided for part in value.values())
    return _has_names(value) and dense


def _list_of(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, value))


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _edited(name: str, expected: str, value: Any) -> ConfigurationError:
    return ConfigurationError(
        f"Expected `{name}` of the checkpoint to be {expected}, but got {repr(value)[:80]}; the file was edited, use "
        "another one."
    )


def check_layout(checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint of another program, or one whose other parts Lightning could not read: it takes any.

    Raises:
        ConfigurationError: naming the part.
    """
    checkpoint_contents(checkpoint)
    for name, (expected, fits) in _PARTS.items():
        if not fits(checkpoint.get(name)):
            raise _edited(name, expected, checkpoint.get(name, "nothing"))


def check_finite(weights: Mapping[str, Any]) -> None:
    """Refuse weights that are NaN or infinite: they load without an error, and every prediction would be class 0.

    Args:
        weights: tensors by name, as of `state_dict`; what is no tensor is left alone.

    Raises:
        ConfigurationError: naming the first of them.
    """
    for name, value in weights.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            raise ConfigurationError(
                f"Expected finite weights, but {name} of the checkpoint has NaN or infinity; use another one."
            )


def describe_backbone(backbone: Any) -> dict[str, Any] | None:
    """A backbone's constructor as plain values, which a weights-only checkpoint can hold.

    Args:
        backbone: a class, or `functools.partial` of a class with plain values.

    Returns:
        `{"class_path": ..., "init_args": {...}}`, or None for anything else (a lambda, nested classes).
    """
    arguments: dict[str, Any] = {}
    # Arguments by place have no names, under which a description could hold them.
    if isinstance(backbone, partial) and not backbone.args:
        backbone, arguments = backbone.func, backbone.keywords
    named = isinstance(backbone, type) and "<locals>" not in backbone.__qualname__
    plain = all(isinstance(value, str | int | float | bool | None) for value in arguments.values())
    if not (named and plain):
        return None
    return {"class_path": f"{backbone.__module__}.{backbone.__qualname__}", "init_args": dict(arguments)}


def make_weights_only(checkpoint: dict[str, Any]) -> None:
    """Replace a backbone class among a checkpoint's hyperparameters by its description.

    The command line stores descriptions from the start; a module that was built in Python holds the class itself. What
    cannot be described is left out and noted, so that loading it into another model is refused.
    """
    # A class pickles as code to be imported, which `weights_only` loading refuses.
    parameters = checkpoint.get("hyper_parameters", {})
    if not callable(parameters.get("backbone")):
        return
    description = describe_backbone(parameters["backbone"])
    checkpoint["hyper_parameters"] = {name: value for name, value in parameters.items() if name != "backbone"}
    if description is None:
        checkpoint[KEY]["unnamed_backbone"] = repr(parameters["backbone"])
    else:
        checkpoint["hyper_parameters"] |= {"backbone": description, "_instantiator": INSTANTIATOR}


def checkpoint_spec(checkpoint: dict[str, Any]) -> DataSpec:
    """The shape of the data that a checkpoint was trained on."""
    stored = checkpoint_contents(checkpoint)
    return DataSpec(
        num_classes=stored["num_classes"],
        vocabulary_size=stored["vocabulary_size"],
        embedding_size=stored["embedding_size"],
        label_names=tuple(stored["label_names"]),
        segment_shape=tuple(stored["segment_shape"]),
        # Older checkpoints know none of the following.
        num_default_tokens=stored.get("num_default_tokens", 0),
        vocabulary=tuple(json.loads(stored["tokenizer"])["vocabulary"]) if stored.get("open_vocabulary") else (),
        has_question=stored.get("has_question", False),
        has_candidates=stored.get("has_candidates", False),
        resources=stored.get("resources", {}),
    )
