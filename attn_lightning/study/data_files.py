"""A data file, or a folder of them, where a class of data or a file of options could stand: what it is short for."""

import math
from collections.abc import Collection
from pathlib import Path

import yaml

from attn_lightning.data.formats import EXTENSIONS, FileOptions, rows_of
from attn_lightning.data.sources import SPLITS
from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.experiments import Experiment, Experiments

_PLAIN = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
"""Names that can be nothing else. `.json` may hold options too, and `.train` may end the name of a class."""

_OPTIONS = (".yaml", ".yml", ".json")
_OTHER_NAMES = ("val", "valid", "dev", "development", "eval")

_READING = (
    "text_column", "label_column", "tokens_column", "question_column", "pair", "columns", "delimiter", "encoding",
)  # fmt: skip
"""Options of `TextFiles` that say where text and label are; with one of them the file need not be as by default."""


def is_data_file(value: str) -> bool:
    """Whether a value of `--data` means a data file or a folder of them, and no class and no file of options.

    A folder is meant by a `/` in the value: `IMDB` is a class, `./IMDB` a folder.
    """
    path = Path(value)
    # Options first: a path of a YAML file has a `/` too.
    if path.suffix in _OPTIONS or not value:
        return False
    return "/" in value or value.endswith(_PLAIN) or (value.endswith(EXTENSIONS) and path.is_file())


def data_name(value: str) -> str:
    """What runs and studies on it are called: its name without its ending."""
    name = Path(value).resolve().name
    return next((name.removesuffix(end) for end in sorted(EXTENSIONS, key=len)[::-1] if name.endswith(end)), name)


def split_files(value: str) -> dict[str, Path]:
    """The files by split, as absolute paths, so that a record means the same wherever it is read.

    Args:
        value: a file, which is `train` (`TextFiles` cuts validation texts from it), or a folder with one file each for
            `train` and, where there are any, `validation` and `test`.

    Raises:
        ConfigurationError: it is not there, or the folder does not say which file is which; shows the YAML that does.
    """
    # Resolved before anything is read: a link that is turned later must not change what a record names.
    path = Path(value).resolve()
    if path.is_file() and path.name.endswith(EXTENSIONS):
        return {"train": path}
    if path.is_file():
        raise ConfigurationError(
            f"Expected {path.name} to end in {', '.join(EXTENSIONS)}, but it does not; convert the file."
        )
    if not path.is_dir():
        raise ConfigurationError(
            f"Expected a data file or a folder of them, but {value} does not exist; give its path."
        )
    found = [file for file in sorted(path.iterdir()) if file.is_file() and file.name.endswith(EXTENSIONS)]
    named = {split: [file for file in found if data_name(str(file)) == split] for split in SPLITS}
    # A validation split under another name would be overlooked, and another one cut from train in silence.
    others = [file for file in found if data_name(str(file)) in _OTHER_NAMES]
    if not named["train"] or others or any(len(files) > 1 for files in named.values()):
        names = ", ".join(file.name for file in found) or "no data file"
        raise ConfigurationError(
            f"Expected {value} to hold one file each for train and, if wanted, validation and test, such as train.csv, "
            f"but got {names}; rename them, or {_yaml(path, dict.fromkeys(SPLITS, 'FILE'))}."
        )
    return {split: files[0] for split, files in named.items() if files}


def file_options(value: str, given: Collection[str] = ()) -> dict[str, str]:
    """The options of `data` that a data file or a folder is short for.

    Args:
        value: the file or folder.
        given: further options of `data` that are set, without `data.`.

    Returns:
        Values by option; `class_path` is the class. Splits without a file are `null` unless they are given, whatever a
        configuration says: its files belong to other data.

    Raises:
        ConfigurationError: see `split_files`; or a file has no columns `text` and `label`, and no option says which
            others to read.
        DataFormatError: a file is not what its name says.
    """
    files = split_files(value)
    if not set(given) & {*_READING}:
        _check_columns(value, files)
    # `null` is written out, because an option that is not given would keep the file of a configuration.
    options = {split: str(files[split]) if split in files else "null" for split in SPLITS}
    return {"class_path": "TextFiles", **{split: path for split, path in options.items() if split not in given}}


def method_without_data(experiments: Experiments, method: str) -> Experiment:
    """What a method trains with on data that is given by an option.

    Raises:
        ConfigurationError: there is no such method.
    """
    if method not in experiments.methods:
        raise ConfigurationError(
            f"Expected a method of {experiments.folder}, but there is no {method!r}."
            f"{did_you_mean(method, experiments.methods)}"
        )
    base = experiments.folder / "base.yaml"
    return Experiment((base,) if base.is_file() else ()) + experiments.methods[method]


def _check_columns(value: str, files: dict[str, Path]) -> None:
    for path in files.values():
        # Without `from_files`, which reads all of a file for its digest.
        row = next(rows_of(path, FileOptions()), (0, {}))[1]
        # The first row alone: what other rows lack is found, with its line, when the file is read as a whole.
        if row and not {"text", "label"} <= row.keys():
            columns = ", ".join(f"{name!r:.60}" for name in row)
            chosen = {split: str(file) for split, file in files.items()}
            written = _yaml(Path(value), {**chosen, "text_column": "TEXT", "label_column": "LABEL"})
            raise ConfigurationError(
                f"Expected the columns text and label in {path.name}, but got {columns}; name yours with "
                f"`--data.text_column` and `--data.label_column` (of a study `--option data.text_column=...`), or "
                f"{written}."
            )


def _yaml(path: Path, options: dict[str, str]) -> str:
    contents = {"data": {"class_path": "TextFiles", "init_args": options}}
    written = yaml.safe_dump(contents, default_flow_style=True, sort_keys=False, width=math.inf).strip()
    return f"write `{written}` into {data_name(str(path))}.yaml and give that"
