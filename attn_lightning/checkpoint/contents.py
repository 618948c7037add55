"""What a checkpoint carries beside the weights."""

from functools import partial
from typing import Any

from attn_lightning import __version__
from attn_lightning.checkpoint.trust import INSTANTIATOR
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec

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
        "tokenizer": tokenizer,
        "class_weights": class_weights,
    }


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
    return stored


def describe_backbone(backbone: Any) -> dict[str, Any] | None:
    """A backbone's constructor as plain values, which a weights-only checkpoint can hold.

    Args:
        backbone: a class, or `functools.partial` of a class with plain values.

    Returns:
        `{"class_path": ..., "init_args": {...}}`, or None for anything else (a lambda, nested classes).
    """
    arguments: dict[str, Any] = {}
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
        num_default_tokens=stored.get("num_default_tokens", 0),  # older checkpoints know none
    )
