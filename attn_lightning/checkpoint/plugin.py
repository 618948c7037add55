"""How Lightning writes and reads the checkpoints of a run."""

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from attn_lightning.checkpoint.file import read_checkpoint, write_checkpoint

_HERE = "."
"""Stands for the folder of the checkpoint itself."""

_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class RunCheckpointIO(CheckpointIO):
    """Checkpoints that are whole or not there, carry a checksum, and may be moved with the folder they lie in.

    Lightning's `ModelCheckpoint` remembers its best epoch by an absolute path, and forgets it, or follows it into the
    original, after the folder was moved or copied. The files therefore hold names only, which become paths again where
    they are read.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Replace the file in one step; its temporary file lies beside it, because a rename needs one file system."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = os.path.realpath(target.parent)
        callbacks = {name: without_folder(state, folder) for name, state in checkpoint.get("callbacks", {}).items()}
        write_checkpoint({**checkpoint, "callbacks": callbacks} if callbacks else checkpoint, target)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint, whatever the process: only plain values and tensors, always."""
        folder = os.path.realpath(Path(path).parent)
        checkpoint = read_checkpoint(Path(path), mmap=False)
        callbacks = checkpoint.get("callbacks", {})
        checkpoint["callbacks"] = {name: in_folder(state, folder) for name, state in callbacks.items()}
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the file, if it is there."""
        Path(path).unlink(missing_ok=True)


def without_folder(state: Any, folder: str) -> Any:
    """The state of a `ModelCheckpoint` that writes into this folder, with names for paths; any other as it is."""
    if not _is_of_checkpoints(state) or state["dirpath"] != folder:
        return state
    return _mapped(state, _HERE, os.path.basename)


def in_folder(state: Any, folder: str) -> Any:
    """The opposite, for the folder where the checkpoint lies now.

    Checkpoints of older versions hold the paths of the folder where they were written; that it was theirs shows in the
    best one, which lay beside them.
    """
    if not _is_of_checkpoints(state):
        return state
    best = str(state["best_model_path"])
    # Only paths into the folder of the checkpoint move with it; one that a user has set elsewhere stays as it is.
    was_beside = state["dirpath"] == _HERE or (
        os.path.basename(str(state["dirpath"])) == os.path.basename(folder)
        and os.path.dirname(best) in ("", state["dirpath"])
    )
    return _mapped(state, folder, lambda path: os.path.join(folder, os.path.basename(path))) if was_beside else state


def _is_of_checkpoints(state: Any) -> bool:
    return isinstance(state, dict) and "dirpath" in state and "best_model_path" in state


def _mapped(state: dict[str, Any], folder: str, change: Any) -> dict[str, Any]:
    paths = {name: change(state[name]) for name in _PATHS if state.get(name)}
    models = {change(path): score for path, score in state.get("best_k_models", {}).items()}
    return {**state, "dirpath": folder, **paths, "best_k_models": models}
