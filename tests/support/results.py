"""What two runs must agree on."""

import json
from pathlib import Path
from typing import Any

import torch


def record(folder: Path) -> dict[str, Any]:
    """All of `metrics.json` but times, memory and the commit, if one was made meanwhile."""
    contents = json.loads((folder / "metrics.json").read_text())
    contents.pop("cost")
    contents["environment"].pop("commit")
    return contents


def weights(folder: Path, name: str) -> dict[str, Any]:
    """The weights of a checkpoint as numbers, by their names."""
    contents = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return {key: value.tolist() for key, value in contents["state_dict"].items()}
