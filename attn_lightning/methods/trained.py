"""Models that were trained before, for methods that begin from one."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from attn_lightning import run_folder
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checkpoint import check_order, checkpoint_contents, read_checkpoint
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import file_origin
from attn_lightning.methods.base import Method
from attn_lightning.types import SAME_DATA


def existing_checkpoint(path: Path | None, method: str, option: str) -> Path:
    """The checkpoint that an option names: the file itself, or the best one of a run folder.

    Args:
        path: value of the option.
        method: class that has it, for the message.
        option: its name, for the message.

    Raises:
        ConfigurationError: there is none.
    """
    found = None if path is None else checkpoint_file(path)
    if found is None or not found.is_file():
        raise ConfigurationError(
            f"Expected `{option}` of {method} to be the checkpoint of a trained model, or its run folder, but got "
            f"{found}, which is no file; train one (`make run EXP=vanilla_...`) and give its "
            f"RUN/checkpoints/best.ckpt by `--method.{option}`."
        )
    return found


def checkpoint_file(path: Path) -> Path:
    """The file itself, or the best one of a run folder."""
    return path / run_folder.CHECKPOINTS / "best.ckpt" if path.is_dir() else path


def given(method: Method, option: str) -> dict[str, Path]:
    """What `Method.models` says of an option: nothing where it was not given, or the method is switched off."""
    path = getattr(method, option)
    return {} if path is None or method.weight == 0 else {option: checkpoint_file(path)}


def model_origins(methods: Iterable[Method]) -> dict[str, dict[str, str]]:
    """What a record says of the trained models that methods begin from, by option: location, and SHA-256 as revision.

    A file that is not there is left out; whether it has to be is said when the training begins.
    """
    files = {option: path for method in methods for option, path in method.models.items()}
    return {option: file_origin("file", path) for option, path in files.items() if path.is_file()}


def twin(path: Path, module: LightningModule, option: str) -> Backbone:
    """The backbone of a checkpoint in evaluation mode without gradients, on the module's device.

    Args:
        path: a checkpoint of this package.
        module: the module under training; its backbone says what the architecture is, and its tokenizer the words.
        option: that named the checkpoint, for the messages.

    Raises:
        ConfigurationError: the checkpoint is damaged, of other data or of another architecture.
    """
    checkpoint = _of_same_words(path, module, option)
    base: Any = copy.deepcopy(module.backbone)
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        base.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Expected `{option}` to hold a model of the same architecture, but {path} does not: {one_line(error)}; "
            "use the same `model` options for both runs."
        ) from error
    found: Backbone = base.eval().requires_grad_(False)
    return found


def black_box(path: Path, module: LightningModule, option: str) -> Backbone:
    """The backbone of a checkpoint, of whatever architecture, otherwise as `twin` gives it.

    A checkpoint that was made in Python may have no name of its class; it must then be a twin.

    Args:
        path: a checkpoint of this package.
        module: the module under training.
        option: that named the checkpoint, for the messages.

    Raises:
        ConfigurationError: the checkpoint is damaged, of other data, or of a class that cannot be built.
    """
    checkpoint = _of_same_words(path, module, option)
    if "unnamed_backbone" in checkpoint_contents(checkpoint):
        return twin(path, module, option)
    # Its random weights, which the checkpoint replaces, must not move the numbers that this training draws.
    with torch.random.fork_rng(devices=[]):
        loaded: Any = type(module).load_from_checkpoint(path, map_location="cpu")
    for name in SAME_DATA:
        ours, theirs = getattr(module.spec, name), getattr(loaded.spec, name)
        if ours != theirs:
            raise ConfigurationError(
                f"Expected `{option}` to be trained on data with `{name}` = {ours}, as this run's, but {path} has "
                f"{theirs}; use the data and the data options of that run."
            )
    found: Backbone = loaded.backbone.to(module.device).eval().requires_grad_(False)
    return found


def _of_same_words(path: Path, module: LightningModule, option: str) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    tokenizer: Any = getattr(module, "tokenizer_state", None)
    contents = checkpoint_contents(checkpoint)
    if (spec := getattr(module, "spec", None)) is not None:
        check_order(contents["label_names"], spec.label_names)
    if tokenizer is not None and tokenizer != contents["tokenizer"]:
        raise ConfigurationError(
            f"Expected `{option}` to be trained on the same data, but {path} has another vocabulary; use the "
            "data and the data options of that run."
        )
    return checkpoint
