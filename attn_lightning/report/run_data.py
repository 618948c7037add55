"""What a run folder says, read with the patience that files of other people need: what is damaged becomes a note."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.study.record import RECORD

EVALUATION = "evaluation"
SUMMARY = "summary.json"
_DEEPEST = 3
"""Folders below a given one in which runs are looked for: a study has its runs two levels down."""


@dataclass(frozen=True)
class Run:
    """A finished, failed or running run.

    Attributes:
        folder: where it lies.
        record: its `metrics.json`.
        config: its `config.yaml`; empty if it has none that can be read.
        suites: `summary.json` of every evaluation inside it, by the name of the evaluation's folder.
        notes: a line for everything that could not be read.
    """

    folder: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    suites: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return str(self.record.get("name") or self.folder.parent.name)

    @property
    def label(self) -> str:
        """Name and version, which tell two runs of one experiment apart."""
        return f"{self.name}/{self.folder.name}"

    @property
    def seed(self) -> int | None:
        """What `seed_everything` was; None if the record does not say."""
        seed = self.record.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def status(self) -> str:
        """`complete`, `failed`, `interrupted` or `running`."""
        return str(self.record.get("status") or "unknown")

    @property
    def data(self) -> Mapping[str, Any]:
        """The manifest of the data; empty if there is none."""
        return mapping(self.record.get("data"))

    @property
    def data_name(self) -> str:
        """Name of the data set."""
        return str(self.data.get("name") or "unknown data")

    @property
    def class_names(self) -> list[str]:
        """A name per class, as far as the manifest gives them."""
        names = self.data.get("label_names")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def method(self) -> str:
        """The methods with their options, or `none`."""
        methods = self.record.get("methods")
        found = [_described(mapping(method)) for method in methods] if isinstance(methods, list) else []
        return " + ".join(found) or "none"

    @property
    def test_digest(self) -> str:
        """SHA-256 of the test split: runs with another one were tested on other examples."""
        return str(mapping(mapping(self.data.get("splits")).get("test")).get("sha256") or "")

    @property
    def history(self) -> list[Mapping[str, Any]]:
        """A row per epoch."""
        rows = self.record.get("history")
        return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []

    @property
    def monitor(self) -> str | None:
        """The validation metric that chose the best epoch; None before there is one."""
        monitor = mapping(self.record.get("best")).get("monitor")
        return monitor if isinstance(monitor, str) else None

    def values(self, place: str) -> dict[str, float]:
        """The finite numbers under a key of the record, such as `test`, `evaluation` or `cost`."""
        # Other people's records, or those of a run that has just begun, may lack the key or hold something else there.
        return numbers(self.record.get(place))


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def numbers(value: Any) -> dict[str, float]:
    """What of a mapping is a finite number."""
    return {
        str(key): float(found)
        for key, found in mapping(value).items()
        if isinstance(found, int | float) and math.isfinite(found)
    }


def _described(method: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in method.items() if key != "class" and value is not None)
    return f"{method.get('class', 'unknown')}({options})"


def is_run(folder: Path) -> bool:
    """Whether a folder is a run: it has a record."""
    return (folder / run_folder.METRICS).is_file()


def runs_below(folder: Path) -> list[Path]:
    """The run folders in a folder, sorted; those that a study has set aside are left out."""
    return sorted(_walk(folder, _DEEPEST))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    # Not further down: evaluations and checkpoints of a run are no runs.
    if is_run(folder):
        yield folder
    elif depth:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith(".") and ".set_aside_" not in child.name:
                yield from _walk(child, depth - 1)


def only_run(folder: Path) -> Path:
    """The run below a folder where there is one alone, such as `runs/ivat_sst` of its only version; else the folder."""
    # A study of which one run is there so far stays a study.
    if is_run(folder) or not folder.is_dir() or (folder / RECORD).exists():
        return folder
    found = runs_below(folder)
    return found[0] if len(found) == 1 else folder


def read_run(folder: Path) -> Run:
    """Read everything of a run but its predictions.

    Args:
        folder: a run folder.

    Raises:
        ConfigurationError: its `metrics.json` is not there or is no record; everything else becomes a note.
    """
    if not is_run(folder):
        below = runs_below(folder) if folder.is_dir() else []
        several = f", with {len(below)} runs in it, such as {below[0]}" if below else ""
        raise ConfigurationError(
            f"Expected a run folder with a {run_folder.METRICS}, but got {folder}{several}; name the folder of one run."
        )
    record = _json(folder / run_folder.METRICS)
    notes: list[str] = []
    config: Mapping[str, Any] = {}
    path = folder / run_folder.CONFIG
    try:
        # `safe_load`: a run folder may come from someone else.
        config = mapping(yaml.safe_load(path.read_text("utf-8"))) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"{path} cannot be read: {_line(error)}")
    # Each on its own: a damaged summary of one evaluation leaves the others readable.
    suites = {}
    for found in sorted(folder.glob(f"{EVALUATION}/*/{SUMMARY}")):
        try:
            suites[found.parent.name] = _json(found)
        except ConfigurationError as error:
            notes.append(str(error))
    return Run(folder, record, config, suites, tuple(notes))


def _json(path: Path) -> Mapping[str, Any]:
    try:
        contents = json.loads(path.read_text("utf-8"))
    # `json` recurses, so that a file of nothing but brackets ends in a RecursionError.
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"Expected {path} to be JSON, but got: {_line(error)}; remove the file.") from error
    if not isinstance(contents, dict):
        raise ConfigurationError(
            f"Expected {path} to be a JSON object, but got a {type(contents).__name__}; remove it."
        )
    return contents


def _line(error: Exception) -> str:
    return one_line(error)
