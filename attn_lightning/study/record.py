"""What the folder of a study says of itself, so that a report can be made of the folder alone, on any machine."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import write_json
from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.expansion import Cell

RECORD = "study.json"
FORMAT = 1
"""Version of the layout of `study.json`."""


def write_record(folder: Path, study: Study, cells: Sequence[Cell], stale: Collection[Cell] = ()) -> None:
    """Write `study.json`: the axes of the study, what it compares, and the folder of every cell.

    Args:
        folder: of the study; must exist.
        study: the study.
        cells: all of its cells.
        stale: cells whose run folders hold a complete run that the study does not ask for now.
    """
    contents = {
        "format": FORMAT,
        "name": study.name,
        "methods": [variant.label for variant in study.methods],
        "data": [variant.label for variant in study.data],
        "options": [variant.label for variant in study.options],
        "seeds": list(study.seeds),
        "metrics": list(study.metrics),
        "baseline": study.baseline,
        "require": dict(study.require),
        "cells": [
            {
                "method": cell.method,
                "data": cell.data,
                "options": cell.options,
                "seed": cell.seed,
                "name": cell.name,
                # With the run itself: another one may lie there when the record is read.
                **({"stale": _digest(cell.folder(folder))} if cell in stale else {}),
            }
            for cell in cells
        ],
    }
    write_json(folder / RECORD, contents)


def stale_runs(folder: Path) -> set[Path]:
    """Folders of complete runs that the study did not ask for when it was looked at last, and that are still there.

    Args:
        folder: of a study whose record can be read.
    """
    cells = json.loads((folder / RECORD).read_text("utf-8"))["cells"]
    named = {
        bare_cell("", "", "", int(c["seed"]), str(c["name"])).folder(folder): c["stale"] for c in cells if "stale" in c
    }
    return {path for path, digest in named.items() if _digest(path) == digest}


def _digest(run: Path) -> str:
    path = run / run_folder.METRICS
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def read_record(folder: Path) -> tuple[Study, list[Cell]]:
    """The study and its cells as `write_record` kept them: enough for tables, not for running it.

    Args:
        folder: of the study.

    Raises:
        ConfigurationError: the file is not there or is no such record.
    """
    path = folder / RECORD
    try:
        # Everything is converted, so that a file that was edited by hand fails here and not deep in a table.
        contents: dict[str, Any] = json.loads(path.read_text("utf-8"))
        study = Study(
            name=str(contents["name"]),
            experiments=Path(),
            methods=_variants(contents["methods"]),
            data=_variants(contents["data"]),
            options=_variants(contents["options"]),
            seeds=tuple(int(seed) for seed in contents["seeds"]),
            metrics=tuple(str(metric) for metric in contents["metrics"]),
            baseline=None if contents["baseline"] is None else str(contents["baseline"]),
            require={str(metric): float(least) for metric, least in contents["require"].items()},
        )
        cells = [
            bare_cell(
                str(cell["method"]), str(cell["data"]), str(cell["options"]), int(cell["seed"]), str(cell["name"])
            )
            for cell in contents["cells"]
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        message = one_line(error)
        raise ConfigurationError(
            f"Expected the record of a study in {path}, but got: {message}; run `study --table` to write it again."
        ) from error
    return study, cells


def bare_variant(label: str) -> Variant:
    """An entry of an axis without what `fit` would need of it."""
    return Variant(label, label, label, ())


def bare_cell(method: str, data: str, options: str, seed: int, name: str) -> Cell:
    """A cell without what `fit` would need of it."""
    # Enough to find its folder and its row; it cannot be run, and nothing that reads a record tries to.
    return Cell(method, data, options, seed, Path(), (), name, control=False)


def _variants(labels: Any) -> tuple[Variant, ...]:
    return tuple(bare_variant(str(label)) for label in labels)
