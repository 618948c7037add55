"""Where the results of a run live: naming, creating, finding again. Nothing here imports torch.

<root>/<name>/<version>/
    config.yaml  metrics.json  metrics.csv  predictions.parquet  checkpoints/{best,last}.ckpt
    results.md                     the table of its test for people
    evaluation/<model>-<data>/     what the suite found; its `tables.md` is for people
    evaluations/<command>_<k>/     what later `test` and `validate` calls wrote
"""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from attn_lightning.errors import ConfigurationError, one_line

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"
METRICS = "metrics.json"
LOCK = ".lock"
"""Held by the process that trains in the folder."""
_ASIDE = ".set_aside_"
_NUMBERED = "version_"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")


def create(root: Path, name: str, version: str | None) -> Path:
    """Make a new, empty run folder; an existing one is never reused.

    Args:
        root: folder of all runs.
        name: name of the experiment.
        version: name of this run, or None for the next free `version_<k>`.

    Raises:
        ConfigurationError: the folder exists, cannot be made, or a name would leave `root`.
    """
    for label, value in (("run.name", name), ("run.version", version)):
        if value is not None and not _SAFE_NAME.fullmatch(value):
            raise ConfigurationError(
                f"Expected `{label}` to be letters, digits and `._+=,-`, starting with a letter or digit, but got "
                f"{value!r}; choose another name."
            )
    # Names were checked above: with a slash or `..` in one, a run could write anywhere.
    parent = root / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return _numbered(parent, _NUMBERED) if version is None else _exclusive(parent / version)
    except OSError as error:
        raise ConfigurationError(
            f"Expected to be able to make a run folder in {parent}, but got: {error}; choose another `--run.root`."
        ) from error


def _exclusive(folder: Path) -> Path:
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigurationError(
            f"Expected a new run folder, but {folder} exists and is never overwritten; choose another "
            "`--run.version`, leave it out for the next free number, or continue that run with "
            f"`fit --ckpt_path {folder / CHECKPOINTS / 'last.ckpt'}`."
        ) from None
    return folder


def _numbered(parent: Path, prefix: str) -> Path:
    """`mkdir` is the lock: two processes that start together get two numbers."""
    number = 0
    taken = [int(m[1]) for path in parent.iterdir() if (m := re.fullmatch(re.escape(prefix) + r"(\d+)", path.name))]
    if taken:
        number = max(taken) + 1
    # `mkdir` fails if another process has just taken the number: the test and the making are one step.
    while True:
        folder = parent / f"{prefix}{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def create_evaluation(checkpoint: Path, command: str) -> Path:
    """A new folder for what `test` or `validate` finds out about a checkpoint, inside its run folder."""
    parent = of_checkpoint(checkpoint) / "evaluations"
    parent.mkdir(parents=True, exist_ok=True)
    return _numbered(parent, f"{command}_")


def remove_unused(folder: Path) -> None:
    """Take a folder away that was made for a run which failed before it began; one with a record stays.

    Args:
        folder: a folder that this process made.
    """
    if not (folder / METRICS).exists():
        # Only a folder without a record, in which nothing was measured yet.
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


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
    while (target := folder.with_name(f"{folder.name}{_ASIDE}{number}")).exists():
        number += 1
    folder.rename(target)
    return target


def runs(parent: Path) -> list[Path]:
    """The run folders of an experiment, the newest first; those that were set aside are left out."""
    found = [path for path in parent.glob("*") if (path / CONFIG).is_file() and _ASIDE not in path.name]
    # By the time of the configuration, which is written once; the folder's own changes with every file.
    return sorted(found, key=lambda path: (path / CONFIG).stat().st_mtime, reverse=True)


def has_begun(folder: Path) -> bool:
    """Whether a run got as far as to write anything but a lock and half of its configuration."""
    return any(not path.name.startswith(".") for path in folder.iterdir())


def never_begun(parent: Path) -> list[Path]:
    """Numbered folders of runs that ended before they wrote a configuration."""
    numbered = [path for path in sorted(parent.glob(f"{_NUMBERED}*")) if path.name[len(_NUMBERED) :].isdecimal()]
    return [path for path in numbered if path.is_dir() and not has_begun(path)]


def clear(folder: Path) -> None:
    """Remove the halves of files that a killed training was writing; see `files.replacing`.

    Those of an evaluation stay: other commands measure a run without its lock.
    """
    for path in (*folder.glob(".*.*"), *(folder / CHECKPOINTS).glob(".*.*")):
        if path.is_file() and path.suffix[1:].isdecimal():
            path.unlink(missing_ok=True)


def resumed_config(folder: Path, number: int) -> Path:
    """Where the configuration of the k-th continuation of a run is kept."""
    return folder / f"config_resumed_{number}.yaml"


def newest_config(folder: Path) -> Path | None:
    """The configuration with which a run was trained last; None if it has none."""
    if not (folder / CONFIG).is_file():
        return None
    newest, number = folder / CONFIG, 1
    while (path := resumed_config(folder, number)).is_file():
        newest, number = path, number + 1
    return newest


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run.

    Raises:
        ConfigurationError: the file is not YAML, or no mapping.
    """
    try:
        contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f"Expected {path} to be YAML, but got: {said}; mend the file.") from error
    if not isinstance(contents, dict):
        raise ConfigurationError(f"Expected {path} to be the configuration of a run, but got other contents; mend it.")
    return contents


def asked(run: Mapping[str, Any]) -> dict[str, Any]:
    """What is to follow the training, by part, with the options that decide about its result.

    Args:
        run: the run options.
    """
    if not run["test"]:
        return {}
    parts: dict[str, Any] = {"test": {}}
    if run["control"]:
        parts["control"] = {}
    if run["suite"] != "none":
        names = ("suite", "suite_untrained", "suite_examples", "suite_explainers", "control")
        parts["suite"] = {name: run[name] for name in names}
    return parts


def is_finished(record: Mapping[str, Any], parts: Mapping[str, Any]) -> bool:
    """Whether a run is complete, and has all of these parts with these options.

    Args:
        record: its `metrics.json`.
        parts: as `asked` gives them.
    """
    if record.get("status") != "complete":
        return False
    if "finished" not in record:  # written before parts were listed
        return "test" in record or not parts
    # With their options: a suite of other families is not the one that is asked for now.
    return all(record["finished"].get(name) == options for name, options in parts.items())


def digests(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """What of a data manifest tells two contents apart, by split."""
    if manifest is None:
        return {}
    found = {name: split.get("sha256") for name, split in manifest.get("splits", {}).items()}
    return found | {name: manifest[name].get("sha256") for name in ("labeled",) if name in manifest}


def of_checkpoint(checkpoint: Path) -> Path:
    """The run folder a checkpoint belongs to; the checkpoint's own folder if it was moved out of one."""
    parent = checkpoint.resolve().parent
    return parent.parent if parent.name == CHECKPOINTS else parent


def last_checkpoint(root: Path, name: str) -> Path:
    """The checkpoint of the newest run of an experiment, to resume it; one that was set aside is not gone on with.

    Raises:
        ConfigurationError: there is none.
    """
    every = [path for path in (root / name).glob(f"*/{CHECKPOINTS}/last.ckpt") if _ASIDE not in path.parts[-3]]
    found = sorted(every, key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigurationError(
            f"Expected an unfinished run of `{name}` under {root} for `--ckpt_path last`, but there is no "
            f"{root / name}/*/{CHECKPOINTS}/last.ckpt; start the run without `--ckpt_path`."
        )
    return found[-1]


def read_metrics(folder: Path) -> dict[str, Any]:
    """The run's `metrics.json`; empty if it has none yet.

    Raises:
        ConfigurationError: the file is not valid JSON.
    """
    path = folder / METRICS
    if not path.exists():
        return {}
    try:
        contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"Expected {path} to be JSON, but got: {one_line(error)}; remove the file.") from error
    return contents
