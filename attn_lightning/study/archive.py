"""The numbers of finished cells in one file, without their models: small enough to be kept beside the table.

A study that takes days can so go on where its run folders are not: on another machine, or in a clone of the repository.
"""

import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from attn_lightning import run_folder
from attn_lightning.data.revision import PARTS
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.files import replacing, to_json, write_json, write_text
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState, Parse, Wanted, cell_state, comparable, without_other_data

SUFFIX = ".jsonl.gz"
_KEYS = {"cell", "config", "record"}
_LARGE = ("history",)
"""What of a run record no table needs: the epochs, which are a third of it."""


@dataclass(frozen=True)
class Restored:
    """What became of the entries of an archive.

    Attributes:
        taken: number of cells that have a run folder now.
        refused: names of cells whose entry is of another configuration or other data, or is not finished.
    """

    taken: int
    refused: tuple[str, ...]


def read_archive(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of an archive by the name of their cell; none if there is no such file yet.

    Raises:
        ConfigurationError: the name does not say what it is, its folder does not exist, or the file is damaged.
    """
    if not path.name.endswith(SUFFIX):
        raise ConfigurationError(f"Expected `--archive` to end in {SUFFIX}, but got {path}; rename it.")
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"Expected `--archive` in a folder that exists, but got {path}; make the folder first."
        )
    # The first call of a study makes the archive, the same command every later one.
    if not path.exists():
        return {}
    entries: dict[str, dict[str, Any]] = {}
    try:
        for number, line in enumerate(gzip.decompress(path.read_bytes()).decode("utf-8").splitlines(), 1):
            entry = json.loads(line)
            if not isinstance(entry, dict) or set(entry) != _KEYS or not isinstance(entry["record"], dict):
                raise ValueError(f"line {number} is not one of {', '.join(sorted(_KEYS))}")
            entries[str(entry["cell"])] = entry
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        message = one_line(error)
        raise ConfigurationError(
            f"Expected {path} to be an archive of a study, but got: {message}; take it from where it was written, or "
            "name another file to begin a new one."
        ) from error
    return entries


def write_archive(path: Path, results: Sequence[tuple[Cell, CellState]], folder: Callable[[Cell], Path]) -> int:
    """Put every complete cell into an archive; what is there of other cells stays.

    Args:
        path: the file; it is replaced as a whole.
        results: every cell and what its run folder says.
        folder: of a cell.

    Returns:
        The number of cells that it has now.
    """
    # Read again just before: another machine may have added cells since this study began.
    entries = read_archive(path)
    for cell, found in results:
        if found.state == "complete":
            config = comparable(run_folder.read_config(folder(cell) / run_folder.CONFIG))
            entries[str(cell)] = {"cell": str(cell), "config": config, "record": _lasting(found.record)}
    # Sorted and without a time: the same numbers give the same bytes, so that a repository sees what has changed.
    lines = "".join(f"{to_json(entries[name])}\n" for name in sorted(entries))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(lines.encode("utf-8"))
    with replacing(path) as target:
        target.write(packed.getvalue())
    return len(entries)


def restore(
    entries: Mapping[str, dict[str, Any]],
    cells: Sequence[Cell],
    root: Path,
    state: Callable[[Cell, Path], CellState],
) -> Restored:
    """Make a run folder, of configuration and record alone, for every cell that is in the archive and not on disk.

    Args:
        entries: of the archive.
        cells: of the study; entries of other cells are left alone.
        root: folder of the study.
        state: what the study says of a cell whose run lies in a folder: an entry is held to what a run is held to.
    """
    taken, refused = 0, []
    # What others begin from comes last, when it is known whether any of them is still to be run: it has no model.
    for cell in sorted(cells, key=lambda cell: not cell.base_folders(root)):
        entry, folder = entries.get(str(cell)), cell.folder(root)
        if entry is None or folder.exists() or _is_needed(cell, cells, root):
            continue
        root.mkdir(parents=True, exist_ok=True)
        # Beside its place and then moved: a study that is killed meanwhile leaves no half of a run.
        made = Path(tempfile.mkdtemp(prefix=".restored-", dir=root))
        try:
            _lay_out(entry, made)
            if state(cell, made).state == "complete":
                folder.parent.mkdir(parents=True, exist_ok=True)
                made.rename(folder)
                taken += 1
            else:
                refused.append(str(cell))
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return Restored(taken, tuple(refused))


def states(entries: Mapping[str, dict[str, Any]], wanted: Mapping[Cell, Wanted], parse: Parse) -> dict[Cell, CellState]:
    """What a study says of the cells of an archive, without run folders.

    Args:
        entries: of the archive.
        wanted: what the study asks of its cells; those that have no entry are left out.
        parse: reads older configurations with today's defaults.
    """
    found: dict[Cell, CellState] = {}
    for cell, asked in wanted.items():
        if (entry := entries.get(str(cell))) is None:
            continue
        # The usual case, which needs no folder; what differs may be of an older version, whose defaults are looked up.
        if entry["config"] == asked.config and run_folder.is_finished(entry["record"], asked.parts):
            found[cell] = CellState("complete", entry["record"])
            continue
        with tempfile.TemporaryDirectory() as folder:
            _lay_out(entry, Path(folder))
            found[cell] = replace(cell_state(Path(folder), asked, parse), written=0.0)
    return without_other_data(found)


def _lay_out(entry: Mapping[str, Any], folder: Path) -> None:
    # Not as JSON: YAML would read its 1e-06 as a word.
    write_text(folder / run_folder.CONFIG, yaml.safe_dump(entry["config"], sort_keys=False))
    write_json(folder / run_folder.METRICS, entry["record"])


def _is_needed(cell: Cell, cells: Sequence[Cell], root: Path) -> bool:
    """Whether a cell without a run folder begins from this one."""
    folder = cell.folder(root)
    return any(folder in other.base_folders(root) and not other.folder(root).exists() for other in cells)


def _lasting(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run record without the epochs, and without the folders of the machine where it ran."""
    kept = {key: value for key, value in record.items() if key not in _LARGE}
    if isinstance(record.get("data"), Mapping):
        kept["data"] = _without_place(record["data"])
    if isinstance(record.get("models"), Mapping):
        kept["models"] = {name: {"revision": model["revision"]} for name, model in record["models"].items()}
    return kept


def _without_place(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest whose folders and files of vectors are known by their names; SHA-256 says which they are."""
    kept = dict(manifest)
    if isinstance(source := manifest.get("source"), Mapping) and source.get("kind") in ("folder", "file"):
        # The path of somebody's home folder is no result, and would be published with the archive.
        kept["source"] = {**source, "location": Path(str(source.get("location", ""))).name}
    for part in PARTS:
        if isinstance(manifest.get(part), Mapping):
            kept[part] = _without_place(manifest[part])
    return kept
