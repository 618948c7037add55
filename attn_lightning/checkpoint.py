"""What a checkpoint carries beside the weights, and how a bad one is told from a good one."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from attn_lightning import __version__
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec

FORMAT = 1
"""Raised when older checkpoints can no longer be read, or newer ones not by older code."""

_KEY = "attn_lightning"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file on the CPU, its weights memory-mapped; only plain values and tensors are unpickled.

    Raises:
        ConfigurationError: the file is missing, damaged, or holds code.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"Expected `--ckpt_path` to be a checkpoint file, but {path} does not exist; give a file such as "
            "RUN/checkpoints/best.ckpt."
        )
    if not zipfile.is_zipfile(path):
        raise ConfigurationError(
            f"Expected {path} to be a checkpoint, but it is cut off or of another program; use another one."
        )
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"Expected {path} to be a readable checkpoint, but got: {str(error).splitlines()[0]}; the file is "
            "damaged or of another program, use another one."
        ) from error
    if not isinstance(contents, dict):
        raise ConfigurationError(f"Expected {path} to be a checkpoint of attn_lightning, but got other data in it.")
    return contents


def add_checkpoint_contents(
    checkpoint: dict[str, Any], spec: DataSpec, tokenizer: str | None, class_weights: list[float] | None
) -> None:
    """Add our entry to a Lightning checkpoint: all that `predict` needs on raw text."""
    checkpoint[_KEY] = {
        "format": FORMAT,
        "version": __version__,
        "num_classes": spec.num_classes,
        "vocabulary_size": spec.vocabulary_size,
        "embedding_size": spec.embedding_size,
        "label_names": list(spec.label_names),
        "segment_shape": list(spec.segment_shape),
        "tokenizer": tokenizer,
        "class_weights": class_weights,
    }


def checkpoint_contents(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What this package put into a checkpoint.

    Raises:
        ConfigurationError: a checkpoint of another program or of a newer version of this one.
    """
    stored = checkpoint.get(_KEY)
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


def checkpoint_spec(checkpoint: dict[str, Any]) -> DataSpec:
    """The shape of the data that a checkpoint was trained on."""
    stored = checkpoint_contents(checkpoint)
    return DataSpec(
        num_classes=stored["num_classes"],
        vocabulary_size=stored["vocabulary_size"],
        embedding_size=stored["embedding_size"],
        label_names=tuple(stored["label_names"]),
        segment_shape=tuple(stored["segment_shape"]),
    )
