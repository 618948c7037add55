"""What is known of a cell, from its run folder alone: that is what survives a killed process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.naming import monitor_mode

State = Literal["missing", "complete", "unfinished", "failed", "different"]
Parse = Callable[[Sequence[str]], dict[str, Any]]
"""From a command line to the configuration `fit` would run."""

_RUN_OPTIONS = ("test", "monitor", "monitor_mode")
_DATA_PLACES = ("root", "cache", "num_workers")


@dataclass(frozen=True)
class CellState:
    """State of a cell.

    Attributes:
        state: `missing` (no run folder), `complete` (trained, and tested if it was asked to), `unfinished` (running or
            interrupted), `failed` (it ended with an error), `different` (a run of another configuration, or begun from
            a base that was made again since).
        record: the run's `metrics.json`; empty if there is none.
    """

    state: State
    record: dict[str, Any] = field(default_factory=dict)


def cell_state(folder: Path, expected: Mapping[str, Any], parse: Parse, base_files: Sequence[Path] = ()) -> CellState:
    """Read the run folder of a cell.

    Args:
        folder: where the run would be.
        expected: the configuration the study asks for, from `validate`.
        parse: reads older configurations with today's defaults.
        base_files: what the run reads of other runs of the study.
    """
    if not folder.is_dir():
        return CellState("missing")
    record = _record(folder)
    config = folder / run_folder.CONFIG
    if config.exists() and not (_same(config, expected, parse) and _is_newest(config, base_files)):
        return CellState("different", record)
    status = record.get("status")
    if status == "failed":
        return CellState("failed", record)
    tested = "test" in record or not expected["run"]["test"]
    # A configuration is written before the first step, so that a complete run without one was tampered with.
    complete = status == "complete" and tested and config.exists()
    return CellState("complete" if complete else "unfinished", record)


def is_complete(folder: Path) -> bool:
    """Whether the run in a folder ended as it should, whatever its configuration."""
    return _record(folder).get("status") == "complete"


def _record(folder: Path) -> dict[str, Any]:
    try:
        return run_folder.read_metrics(folder)
    except ConfigurationError:
        return {}


def _same(path: Path, expected: Mapping[str, Any], parse: Parse) -> bool:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if comparable(config) == expected:
            return True
        # Written by another version, it may lack options that are at their defaults.
        return comparable(parse(["fit", "--config", str(path)])) == expected
    except (yaml.YAMLError, AttributeError, ConfigurationError):
        return False


def _is_newest(path: Path, others: Sequence[Path]) -> bool:
    """Whether nothing else was written after it; what is gone cannot have been."""
    return all(path.stat().st_mtime >= other.stat().st_mtime for other in others if other.exists())


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration decides about the results: not where files lie, and not what is shown meanwhile."""
    kept = {key: config.get(key) for key in ("seed_everything", "model", "method")}
    kept["trainer"] = {**(config.get("trainer") or {}), "enable_progress_bar": None}
    run = {key: (config.get("run") or {}).get(key) for key in _RUN_OPTIONS}
    if run["monitor"] is not None:
        # A run writes down the direction of its metric; a study that leaves it to the declaration asks for the same.
        run["monitor_mode"] = monitor_mode(run["monitor"], run["monitor_mode"])
    data = config.get("data") or {}
    arguments = {key: value for key, value in (data.get("init_args") or {}).items() if key not in _DATA_PLACES}
    return {**kept, "run": run, "data": {**data, "init_args": arguments}}


def set_aside(folder: Path) -> Path | None:
    """Move a run folder out of the way, to `<version>.set_aside_<k>`; one without any file is removed instead.

    Returns:
        Where it went.
    """
    if not any(path.is_file() for path in folder.rglob("*")):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
        return None
    number = 0
    while (target := folder.with_name(f"{folder.name}.set_aside_{number}")).exists():
        number += 1
    folder.rename(target)
    return target


def resumable(folder: Path) -> Path | None:
    """The checkpoint to go on from, if the run got so far."""
    path = folder / run_folder.CHECKPOINTS / "last.ckpt"
    return path if path.exists() and (folder / run_folder.CONFIG).exists() else None
