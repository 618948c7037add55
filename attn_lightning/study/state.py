"""What is known of a cell, from its run folder alone: that is what survives a killed process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml

from attn_lightning import run_folder
from attn_lightning.checkpoint.trust import check_configuration, classes_of
from attn_lightning.data.revision import (
    Version,
    agree,
    located_revisions,
    model_place,
    recorded_revisions,
    same_files,
)
from attn_lightning.data.sources import GENERATED
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.naming import monitor_mode
from attn_lightning.files import file_origin
from attn_lightning.methods.trained import checkpoint_file
from attn_lightning.study.expansion import Cell

State = Literal["missing", "complete", "unfinished", "failed", "different"]
Parse = Callable[[Sequence[str]], dict[str, Any]]
"""From a command line to the configuration `fit` would run."""

Revisions = Callable[[Mapping[str, Any]], Mapping[str, Version]]
"""From a configuration to the revisions of its data, as far as its files are there."""

_RUN_OPTIONS = ("monitor", "monitor_mode")
_SHOWN = ("enable_progress_bar", "enable_model_summary", "logger", "log_every_n_steps", "profiler")
_ROOT = "{run.root}"
_DATA_PLACES = ("root", "cache", "num_workers")


@dataclass(frozen=True)
class Wanted:
    """What a study asks of the run of a cell.

    Attributes:
        config: its configuration, as `comparable` gives it.
        parts: what is to follow the training, as `run_folder.asked` gives it.
        revisions: of the data as its files are now, where that is known.
    """

    config: Mapping[str, Any]
    parts: Mapping[str, Any] = field(default_factory=dict)
    revisions: Mapping[str, Version] = field(default_factory=dict)


@dataclass(frozen=True)
class CellState:
    """State of a cell.

    Attributes:
        state: `missing` (no run folder), `complete` (trained, and all that was asked for is there), `unfinished`
            (running or interrupted), `failed` (it ended with an error), `different` (a run of another configuration, on
            data that has changed since, or begun from a base that was made again since).
        record: the run's `metrics.json`; empty if there is none.
        written: when the run began, in seconds.
        other_data: whether it is a complete run, and different for nothing but the data that it saw; see
            `without_other_data`.
    """

    state: State
    record: dict[str, Any] = field(default_factory=dict)
    written: float = 0.0
    other_data: bool = False


def cell_state(
    folder: Path, wanted: Wanted, parse: Parse, base_files: Mapping[str, Path] = MappingProxyType({})
) -> CellState:
    """Read the run folder of a cell.

    Args:
        folder: where the run would be.
        wanted: what the study asks for, from `validate`.
        parse: reads older configurations with today's defaults.
        base_files: what the run reads of other runs of the study, by option.
    """
    if not folder.is_dir():
        return CellState("missing")
    record = _record(folder)
    config = folder / run_folder.CONFIG
    # Before the status: a complete run of other options says nothing about this cell.
    if config.exists() and not (
        _same(config, wanted.config, parse)
        and same_files(record, wanted.revisions)
        and _began_from(record, config, base_files)
    ):
        return CellState("different", record)
    if record.get("status") == "failed":
        return CellState("failed", record)
    # A configuration is written before the first step, so that a complete run without one was tampered with.
    complete = run_folder.is_finished(record, wanted.parts) and config.exists()
    if not complete:
        return CellState("unfinished", record)
    return CellState("complete", record, config.stat().st_mtime)


def without_other_data(states: Mapping[Cell, CellState]) -> dict[Cell, CellState]:
    """The states with every run `different` that saw other files than the newest run on the same data.

    Where the files themselves are not there to be compared, as with a table on another machine, the runs still are.
    """
    newest: dict[tuple[Any, ...], dict[str, Version]] = {}
    complete = [(cell, found) for cell, found in states.items() if found.state == "complete"]
    for cell, found in sorted(complete, key=lambda pair: pair[1].written):
        newest.setdefault(_table_of(cell, found), {}).update(located_revisions(found.record))
    return {
        cell: replace(found, state="different", other_data=True)
        if found.state == "complete" and not agree(newest[_table_of(cell, found)], located_revisions(found.record))
        else found
        for cell, found in states.items()
    }


def _table_of(cell: Cell, found: CellState) -> tuple[Any, ...]:
    """What runs have in common that must have seen the same files."""
    data = located_revisions(found.record).get("")
    if data is None or data.kind != GENERATED:
        return (cell.data,)
    # Of what is generated, options of the study may make other data, and so may the seed of the cell
    # (`data.seed: "{seed}"`), by which runs are paired: no number of one table is compared across these.
    return cell.data, cell.options, cell.seed


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
        # The cheap answer first: parsing takes a second, and a study asks for every cell.
        if comparable(config) == expected:
            return True
        # To parse a configuration imports the classes that it names.
        check_configuration(config, set(classes_of(expected)))
        # Written by another version, it may lack options that are at their defaults.
        return comparable(parse(["fit", "--config", str(path)])) == expected
    except (yaml.YAMLError, AttributeError, ConfigurationError):
        return False


def _began_from(record: Mapping[str, Any], config: Path, base_files: Mapping[str, Path]) -> bool:
    """Whether nothing that it begins from was made again since; what is gone cannot have been."""
    known = recorded_revisions(record)
    for option, named in base_files.items():
        path = checkpoint_file(named)
        revision = known.get(model_place(option.removeprefix("method.")))
        if path.exists() and revision is not None:
            # A copied folder has other times than the original.
            if file_origin("file", path)["revision"] != revision.revision:
                return False
        elif path.exists() and path.stat().st_mtime > config.stat().st_mtime:
            return False
    return True


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """What of a configuration decides about the results: not where files lie, and not what is shown meanwhile."""
    kept = {key: config.get(key) for key in ("seed_everything", "model", "method")}
    kept["trainer"] = {**(config.get("trainer") or {}), **dict.fromkeys(_SHOWN)}
    run = {key: (config.get("run") or {}).get(key) for key in _RUN_OPTIONS}
    if run["monitor"] is not None:
        # A run writes down the direction of its metric; a study that leaves it to the declaration asks for the same.
        run["monitor_mode"] = monitor_mode(run["monitor"], run["monitor_mode"])
    data = config.get("data") or {}
    arguments = {key: value for key, value in (data.get("init_args") or {}).items() if key not in _DATA_PLACES}
    found = {**kept, "run": run, "data": {**data, "init_args": arguments}}
    # A run that begins from another one of its study names a file there, which lies elsewhere on every machine.
    root = (config.get("run") or {}).get("root")
    return _from_root(found, f"{str(root).rstrip('/')}/") if root else found


def _from_root(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _from_root(each, root) for key, each in value.items()}
    if isinstance(value, list):
        return [_from_root(each, root) for each in value]
    return f"{_ROOT}/{value[len(root) :]}" if isinstance(value, str) and value.startswith(root) else value


def resumable(folder: Path) -> Path | None:
    """The checkpoint to go on from, if the run got so far."""
    path = folder / run_folder.CHECKPOINTS / "last.ckpt"
    return path if path.exists() and (folder / run_folder.CONFIG).exists() else None
