"""What two runs must agree on."""

import json
from collections.abc import Iterator
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


def unequal(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two trees of plain values differ, with both values: to be read by people."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from unequal(one.get(key), other.get(key), f"{place}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from unequal(*pair, f"{place}/{number}")
    elif one != other:
        yield f"{place}: {str(one)[:60]} and {str(other)[:60]}"
