"""Experiments by name: which configuration files and options a name such as `ivat_imdb` stands for."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from attn_lightning.errors import ConfigurationError, did_you_mean

FOLDER = Path("experiments")
"""Where names are looked up: a folder of the current one."""

_KINDS = {"methods": "method", "data": "data", "experiments": ""}
"""Keys of `variants.yaml`, and the folder with the files of that kind."""

_RESERVED = ("base", "variants")

_SECTIONS = ("data", "method", "model", "run", "seed_everything", "trainer")
"""What a configuration is made of."""

_MOST_LEVELS, _MOST_VALUES = 50, 10_000
"""Of lists and mappings in a file, where those that an anchor repeats count again."""


@dataclass(frozen=True)
class Experiment:
    """What a name stands for, as a whole or in part.

    Attributes:
        files: configurations in the order in which they are taken; a later one wins.
        options: options of `fit` over all of them, as `(name, value)`.
        line: what it is, for people.
    """

    files: tuple[Path, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    line: str = ""

    def __add__(self, other: "Experiment") -> "Experiment":
        """Both, the other one winning."""
        return Experiment(self.files + other.files, self.options + other.options)

    def arguments(self) -> list[str]:
        """The options of `fit` that it stands for."""
        files = [argument for path in self.files for argument in ("--config", str(path))]
        return [*files, *(f"--{name}={value}" for name, value in self.options)]


class Experiments:
    """The experiments of a folder.

    A name is looked up in this order:

    1. `NAME.yaml` in the folder is a whole configuration and is taken as it is.
    2. `experiments` in `variants.yaml` has options over the experiment of that name or over the one in its `of`.
    3. `METHOD_DATA` or `DATA_METHOD` is `base.yaml`, then `data/DATA.yaml`, then `method/METHOD.yaml`, with the longest
       name of data that fits. `methods` and `data` in `variants.yaml` are further parts: others with other options.

    Attributes:
        methods: parts by name.
        data: parts by name.
        special: whole experiments by name, those that are more than a method and data.

    Args:
        folder: the folder.

    Raises:
        ConfigurationError: there is no such folder, or `variants.yaml` names something that is not there.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        if not folder.is_dir():
            raise ConfigurationError(
                f"Expected a folder {str(folder)!r} with experiments, but {Path.cwd()} has none; go where one is, or "
                "give the path of a configuration file."
            )
        self.folder = folder
        self._variants = self._read_variants()
        base = folder / "base.yaml"
        self._base = Experiment((base,) if base.is_file() else ())
        self.methods = self._parts("methods")
        self.data = self._parts("data")
        self.special = {name: whole for name, whole in _files(folder).items() if name not in _RESERVED}
        for name, options in self._variants["experiments"].items():
            # A file wins over a variant of its name: what is written out as a whole is meant as it is.
            self.special.setdefault(name, self._special(name, options))

    def find(self, name: str) -> Experiment:
        """The experiment of a name.

        Raises:
            ConfigurationError: there is none; says which are near.
        """
        found = self.special.get(name) or self._composed(name)
        if found is None:
            pairs = itertools.product(self.methods, self.data)
            known = {name for method, data in pairs for name in (f"{method}_{data}", f"{data}_{method}")}
            raise ConfigurationError(
                f"Expected the name of an experiment in {self.folder}, METHOD_DATA, but there is no {name!r}."
                f"{did_you_mean(name, known | self.special.keys())} `python -m attn_lightning experiments"
                f"{'' if self.folder == FOLDER else f' --folder {self.folder}'}` lists all."
            )
        return found

    def with_data(self, method: str, data: Path) -> Experiment:
        """A method on data whose file lies elsewhere.

        Args:
            method: its name.
            data: a file such as those of the folder's own data.

        Raises:
            ConfigurationError: there is no such method, or no such file.
        """
        if method not in self.methods:
            raise ConfigurationError(
                f"Expected a method of {self.folder}, but there is no {method!r}.{did_you_mean(method, self.methods)}"
            )
        if not data.is_file():
            raise ConfigurationError(f"Expected a file of data, but {data} does not exist; give its path.")
        return self._base + Experiment((data,)) + self.methods[method]

    def _composed(self, name: str) -> Experiment | None:
        # The longest first: `sdc_blobs` must not be read as a method `..._sdc` on `blobs`.
        for data in sorted(self.data, key=len, reverse=True):
            for method in (name.removesuffix(f"_{data}"), name.removeprefix(f"{data}_")):
                if method in self.methods and method != name:
                    return self._base + self.data[data] + self.methods[method]
        return None

    def _read_variants(self) -> dict[str, dict[str, dict[str, Any]]]:
        path = self.folder / "variants.yaml"
        contents = read_configuration(path) if path.is_file() else {}
        variants = {kind: contents.pop(kind, None) or {} for kind in _KINDS}
        named = [names for names in variants.values() if isinstance(names, dict)]
        if (
            contents
            or len(named) < len(_KINDS)
            or not all(isinstance(o, dict) for names in named for o in names.values())
        ):
            raise ConfigurationError(
                f"Expected {path} to have mappings from names to options in {', '.join(_KINDS)}, but got others; write "
                "for example `methods: {new_name: {of: ivat, method.epsilon: 2}}`."
            )
        return variants

    def _parts(self, kind: str) -> dict[str, Experiment]:
        parts = _files(self.folder / _KINDS[kind])
        for name, options in self._variants[kind].items():
            # In the order of the file, so that a variant of a variant stands below it and none can be of itself.
            parts.setdefault(name, self._variant(name, options, parts))
        return parts

    def _special(self, name: str, options: Mapping[str, Any]) -> Experiment:
        if "of" in options:
            return self._variant(name, options, {**self.methods, **self.data}, self._base)
        composed = self._composed(name)
        if composed is None:
            raise self._refusal(name, f"to be METHOD_DATA or to have `of`, but {name!r} is no method and data")
        return self._variant(name, options, {}, composed)

    def _variant(
        self, name: str, options: Mapping[str, Any], known: Mapping[str, Experiment], over: Experiment = Experiment()
    ) -> Experiment:
        above = options.get("of", [])
        origins: list[str] = above if isinstance(above, list) else [above]
        for origin in map(str, origins):
            if origin not in known:
                hint = did_you_mean(origin, known)
                raise self._refusal(name, f"to be `of` a part that stands above it, but got {origin!r}", hint)
            over += known[origin]
        own = tuple((option, as_option(value)) for option, value in options.items() if option != "of")
        different = " ".join(["with", *(f"{option}={value}" for option, value in own)]) if own else ""
        return Experiment(over.files, over.options + own, " ".join(filter(None, (" and ".join(origins), different))))

    def _refusal(self, name: str, expected: str, hint: str = "") -> ConfigurationError:
        place = self.folder / "variants.yaml"
        return ConfigurationError(f"Expected {name!r} in {place} {expected}; correct it.{hint}")


def _files(folder: Path) -> dict[str, Experiment]:
    return {path.stem: Experiment((path,), (), _first_comment(path)) for path in sorted(folder.glob("*.yaml"))}


def _first_comment(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def as_option(value: Any) -> str:
    """A value of YAML as it stands on the command line."""
    # JSON is YAML: lists and numbers come back as what they were.
    return value if isinstance(value, str) else json.dumps(value)


def find_experiment(value: str) -> Experiment:
    """What the value of `--config` stands for.

    Args:
        value: the path of a file, the name of an experiment, or `FOLDER/NAME` for one of another folder. A name may end
            in `.yaml`.

    Raises:
        ConfigurationError: it is none of them, or a file of it says something twice.
    """
    path = Path(value)
    if path.is_file():
        found = Experiment((path,))
    elif path.parent == Path():
        found = Experiments().find(path.name.removesuffix(".yaml"))
    elif path.parent.is_dir():
        found = Experiments(path.parent).find(path.name.removesuffix(".yaml"))
    else:
        raise ConfigurationError(f"Expected a configuration file, but {path} does not exist.")
    for file in found.files:
        read_configuration(file)
    return found


def named_file(name: str, what: str, *folders: Path, besides: Iterable[str] = (), apart: Iterable[str] = ()) -> Path:
    """A YAML file that is given by its path, or by its name in one of the folders where files of its kind lie.

    Args:
        name: a path, or the name of a file without `.yaml`.
        what: the kind of file, for the message: `a study`.
        folders: where names are looked for, in order.
        besides: names that are known without a file of their own.
        apart: files of the folders that are of another kind.

    Raises:
        ConfigurationError: there is none; lists the nearest and all.
    """
    path = Path(name)
    if path.suffix or path.parent != Path():
        if path.is_file():
            return path
        folders = (path.parent,)
    places = [folder / f"{path.stem}.yaml" for folder in folders]
    for place in places:
        if place.is_file():
            return place
    found = {file.stem for folder in folders for file in folder.glob("*.yaml")}
    names = sorted((found | set(besides)) - set(apart))
    where = " or ".join(map(str, folders))
    if not names:
        raise ConfigurationError(
            f"Expected the file of {what}, but {places[0]} does not exist and {where} has no other; give its path."
        )
    raise ConfigurationError(
        f"Expected the name of {what} in {where}, but there is no {path.stem!r}."
        f"{did_you_mean(path.stem, names)} All: {', '.join(names)}."
    )


def read_configuration(path: Path) -> dict[str, Any]:
    """The contents of a YAML file that says everything once.

    Two keys for the same thing, such as `trainer: base.yaml` and `trainer.max_epochs: 4`, are refused: the parser
    takes the later one and silently drops the other.

    Raises:
        ConfigurationError: it cannot be read, is no mapping, or it or a file that it names says something twice; or it
            names a file that is not there, or one with more than the options of that section.
    """
    try:
        node = yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader)
        contents = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"Expected readable YAML in {path}, but got: {' '.join(str(error).split())}; correct the file."
        ) from error
    if not isinstance(contents, dict):
        raise ConfigurationError(f"Expected a mapping in {path}, but got {contents!r:.80}; write `option: value`.")
    _check_size(path, contents)
    mappings = list(_mappings(node))
    for mapping in mappings:
        _check_keys(path, mapping)
    for section in contents.keys() & set(_SECTIONS):
        _check_section(path, section, contents[section])
    # Last, because two files that name each other as sections would be read for ever.
    for _, value in (pair for mapping in mappings for pair in mapping.value):
        nested = path.parent / str(value.value) if isinstance(value, yaml.ScalarNode) else path
        if nested.suffix in (".yaml", ".yml") and nested != path and os.path.isfile(nested):
            read_configuration(nested)
    return contents


def _check_size(path: Path, contents: Any) -> None:
    """Refuse what has no end, because an anchor stands below itself, or hardly one: the parser copies every level."""
    level = [contents]
    for _ in range(_MOST_LEVELS):
        below = [item for value in level for item in (value.values() if isinstance(value, dict) else value)]
        # Beyond every float, and in hexadecimal also beyond what Python writes into a message.
        if long := next((item for item in below if isinstance(item, int) and item.bit_length() > 1024), None):
            raise ConfigurationError(
                f"Expected numbers that can be computed with in {path}, but got one of {long.bit_length():,} bits; "
                "correct it."
            )
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return
        if len(level) > _MOST_VALUES:
            break
    raise ConfigurationError(
        f"Expected at most {_MOST_LEVELS} levels of lists and mappings in {path}, and {_MOST_VALUES:,} on one, but got "
        "more; correct the file, its anchors (`&`, `*`) most likely."
    )


def _check_section(path: Path, section: str, value: Any) -> None:
    """Refuse a section that names a file which holds no options of it; the parser would speak of something else."""
    # These are no classes but groups of options, in whose place the parser takes a number or a list for nothing.
    # A text is the file that holds them; any other, 1e400 among them, would be read as a value.
    is_group = section in ("model", "run", "trainer")
    # By `os.path`, which says no to a name that is too long for a file where `Path` raises.
    is_file = isinstance(value, str) and (value.endswith((".yaml", ".yml")) or os.path.isfile(path.parent / value))
    if is_group and not (isinstance(value, dict) or is_file):
        raise ConfigurationError(
            f"Expected `{section}` in {path} to be a mapping, but got {value!r:.80}; write `option: value` below it."
        )
    if not (isinstance(value, str) and value.endswith((".yaml", ".yml"))):
        return
    named = path.parent / value
    if not os.path.isfile(named):
        raise ConfigurationError(
            f"Expected `{section}` in {path} to name a file, but {named} does not exist; correct the name."
        )
    contents: Any = None
    with suppress(OSError, ValueError, yaml.YAMLError):  # said when the parser reads it
        contents = yaml.safe_load(named.read_text("utf-8"))
    # A part of an experiment has sections of its own, such as the epochs that its data takes.
    if found := sorted(
        {str(key).split(".")[0] for key in (contents if isinstance(contents, dict) else ())} & {*_SECTIONS}
    ):
        raise ConfigurationError(
            f"Expected `{section}` in {path} to name a file with options of `{section}` alone, but {named} is a part "
            f"of an experiment, with `{'`, `'.join(found)}`; leave the line out and give both: `--config {named} "
            f"--config {path}`."
        )


def _mappings(root: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """All mappings below a node, each once: an anchor may be used often, or below itself."""
    # A stack and not recursion: a file of a thousand levels must not end in a RecursionError.
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting.extend(value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)


def _check_keys(path: Path, mapping: yaml.MappingNode) -> None:
    keys = [str(key.value) for key, _ in mapping.value]
    for (key, _), name in zip(mapping.value, keys, strict=True):
        below = [other for other in keys if other.startswith(f"{name}.")]
        if below or keys.count(name) > 1:
            raise ConfigurationError(
                f"Expected `{name}` once in {path}, but got it twice, in line {key.start_mark.line + 1} and as "
                f"`{below[0] if below else name}`: only the later one would count; write both as one mapping."
            )
