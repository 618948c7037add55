"""An archive of a study, as `study --archive` writes it, without a run."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_lightning.study.archive import SUFFIX
from attn_lightning.study.expansion import expand
from attn_lightning.study.named import named_study
from attn_lightning.study.validation import validate


def write(study: Path, accuracies: Mapping[str, Sequence[float]], parse: Callable[[Sequence[str]], dict]) -> Path:
    """Write the archive of a study beside it.

    Args:
        study: its file.
        accuracies: by method, one per seed from the first on.
        parse: gives the configuration of a command.
    """
    cells = [cell for cell in expand(named_study(str(study))) if cell.seed < len(accuracies.get(cell.method, ()))]
    entries = [
        {
            "cell": str(cell),
            "config": wanted.config,
            "record": {
                "status": "complete",
                "finished": wanted.parts,
                "test": {"test/accuracy": accuracies[cell.method][cell.seed]},
            },
        }
        for cell, wanted in zip(cells, validate(cells, Path("runs") / study.stem, parse, lambda _: {}), strict=True)
    ]
    return rewrite(study.with_name(f"{study.stem}{SUFFIX}"), entries)


def entries_of(path: Path) -> list[dict[str, Any]]:
    """The entries of an archive."""
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def rewrite(path: Path, entries: Sequence[Mapping[str, Any]]) -> Path:
    """Write an archive of these entries."""
    path.write_bytes(gzip.compress("".join(json.dumps(entry) + "\n" for entry in entries).encode()))
    return path
