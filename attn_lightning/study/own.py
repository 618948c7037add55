"""A study without a file: what the options of the command say, written down as the file that it would have been."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import FOLDER, Experiments
from attn_lightning.files import file_name, write_text
from attn_lightning.study.configuration import DEFAULT_METRICS
from attn_lightning.study.data_files import data_name, file_options, is_data_file, split_files

_ENDINGS = (".yaml", ".yml")
_BETWEEN_NAMES = re.compile(r",(?![^\[]*\])")
"""A comma that is not inside the setting of a metric, `accuracy[where=attention,epsilon=2]`."""

_HEAD = "# Made by `study --methods ... --data ...`; the same command with other options writes it anew.\n"


@dataclass(frozen=True)
class Asked:
    """The options of the command.

    Attributes:
        methods: names, separated by commas.
        data: names of data, files that set `data` as those in `experiments/data` do, data files or folders of them,
            separated by commas.
        seeds: a number of seeds, or seeds separated by commas.
        metrics: names, separated by commas; None for the default ones.
        baseline: the method that the others are compared with; None for the first.
        options: `OPTION=VALUE` of `fit` for all cells.
        name: of the study; None makes one of the data.
    """

    methods: str
    data: str
    seeds: str = "5"
    metrics: str | None = None
    baseline: str | None = None
    options: Sequence[str] = ()
    name: str | None = None


def study_contents(asked: Asked, root: Path, experiments: Path = FOLDER) -> tuple[Path, dict[str, Any]]:
    """The study file that says the same.

    Args:
        asked: the options.
        root: folder of all runs; the file lies in the folder of the study below it.
        experiments: folder of the experiments.

    Returns:
        Where the file belongs, and what is in it.

    Raises:
        ConfigurationError: an option cannot be read, a method is none, or a file of data is not there.
    """
    known = Experiments(experiments)
    methods, data = names_between_commas("--methods", asked.methods), names_between_commas("--data", asked.data)
    for method in methods:
        if method not in known.methods:
            raise ConfigurationError(
                f"Expected `--methods` of {experiments / 'method'}, but got {method!r}; choose of "
                f"{', '.join(known.methods)}."
            )
    options = dict(_option(option) for option in asked.options)
    experiments_of_data = [_data(found, known, options) for found in data]
    # Labels become parts of run names, in which an ending says nothing.
    labels = [data_name(found) if is_data_file(found) else Path(found).stem for found in experiments_of_data]
    name = asked.name or file_name("study", *labels)
    if name != file_name(name):
        raise ConfigurationError(f"Expected `--name` to be a name of a folder, but got {name!r}; use letters and -.")
    path = root / name / f"{name}.yaml"
    contents: dict[str, Any] = {
        "methods": methods,
        "data": {label: {"experiment": found} for label, found in zip(labels, experiments_of_data, strict=True)},
        "seeds": _seeds(asked.seeds),
    }
    # Two files of one name would share their run folders.
    if len(contents["data"]) < len(data):
        raise ConfigurationError(f"Expected `--data` of different names, but got {asked.data!r}; rename a file.")
    if asked.metrics is not None:
        contents["metrics"] = names_between_commas("--metrics", asked.metrics)
    # Only where no data has a test split: with one that has, the default tables are full for it and show a gap
    # elsewhere.
    elif "data.test" not in options and all(map(_is_untested, experiments_of_data)):
        contents["metrics"] = [metric.replace("test/", "val/") for metric in DEFAULT_METRICS]
    # Left out and not null: null is a study that compares nothing.
    if asked.baseline is not None:
        contents["baseline"] = asked.baseline
    if options:
        contents["options"] = options
    # Relative, so that the folder of runs and that of experiments can be moved together.
    contents["experiments"] = os.path.relpath(experiments, path.parent)
    return path, contents


def write_study(path: Path, contents: dict[str, Any]) -> None:
    """Write the file, where it does not say so already."""
    text = _HEAD + yaml.safe_dump(contents, sort_keys=False, allow_unicode=True)
    # An equal file is left alone: its time says when the study was made.
    if not path.is_file() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)


def names_between_commas(option: str, value: str) -> list[str]:
    """The names in the value of an option; a comma inside the setting of a metric divides nothing.

    Raises:
        ConfigurationError: one is empty.
    """
    names = [name.strip() for name in _BETWEEN_NAMES.split(value)]
    if not all(names):
        raise ConfigurationError(f"Expected names between commas in `{option}`, but got {value!r}; write `a,b`.")
    return names


def _data(value: str, known: Experiments, options: Mapping[str, Any]) -> str:
    """The name of data, or the path of a file of it as the study file gives it: from the current folder."""
    path = Path(value)
    if path.suffix in _ENDINGS:
        if path.is_file():
            return value
        raise ConfigurationError(f"Expected a file of data, but {value} does not exist; give its path.")
    # A name wins over a folder of the same name beside it; `./NAME` is the folder.
    if value in known.data:
        return value
    if is_data_file(value) or path.is_dir():
        # The file of the study lies elsewhere, and a cell may be run from another folder.
        whole = str(path.resolve())
        # What is wrong with it is said here, before a file of the study is written.
        file_options(whole, [name.removeprefix("data.") for name in options])
        return whole
    if path.is_file():
        raise ConfigurationError(
            f"Expected `--data` as a data file such as .csv, .tsv, .jsonl or .parquet or as a YAML file, but got "
            f"{value}; write one with `data: {{class_path: TextFiles, init_args: {{train: {value}, test: FILE, "
            f"text_column: text, label_column: label}}}}`."
        )
    raise ConfigurationError(
        f"Expected `--data` to be a data file, a folder of them, a YAML file or a name of {known.folder / 'data'}, but "
        f"got {value!r}; choose of {', '.join(known.data)}."
    )


def _is_untested(data: str) -> bool:
    return is_data_file(data) and "test" not in split_files(data)


def _seeds(value: str) -> int | list[int]:
    parts = [part.strip() for part in value.split(",")]
    # `isdigit` alone takes superscripts, of which `int` knows nothing.
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigurationError(f"Expected `--seeds` to be a number or seeds between commas, but got {value!r}.")
    # "5" is how many, "5," a list with one seed.
    numbers = list(map(int, parts))
    return numbers[0] if len(numbers) == 1 and "," not in value else numbers


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(
            f"Expected `--option` as OPTION=VALUE of `fit`, but got {text!r}; write trainer.max_epochs=3."
        )
    try:
        # As YAML, so that 3 is a number and [1, 2] a list whose values become variants, as in a file.
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"Expected a value after {name}=, but got {value!r}: {' '.join(str(error).split())}."
        ) from error
