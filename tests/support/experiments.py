"""A folder of experiments in the current one, for tests of names."""

from collections.abc import Iterable
from pathlib import Path


def make_experiments(folder: Path, names: Iterable[str], text: str) -> Path:
    """`folder/experiments` with a file of this text by every name."""
    for name in names:
        path = folder / "experiments" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "experiments"
