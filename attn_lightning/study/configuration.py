"""Reading a study file: every mistake in it is one clear error before anything runs."""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from attn_lightning.errors import ConfigurationError, did_you_mean, one_line
from attn_lightning.experiments import as_option

DEFAULT_METRICS = ("test/accuracy", "test/f1", "test/gradient_kendall_mean")

EXPERIMENT_NAME = "{method}_{data}"
"""How the name of an experiment is made where a study says nothing."""

_KEYS = ("methods", "data", "seeds", "options", "metrics", "require", "baseline", "experiments", "experiment_name")
_NEEDED = ("methods", "data", "seeds")
_OWN = ("seed_everything", "run.root", "run.name", "run.version", "config", "ckpt_path")
"""Options of `fit` that the study itself sets."""


@dataclass(frozen=True)
class Variant:
    """One entry of an axis of the study, with every list in it replaced by one of its values.

    Attributes:
        label: its name in tables and folders, such as `relation,output=logit`; empty for options without a list.
        entry: the entry it comes from, such as `relation`.
        experiment: its part of the name of the experiment file.
        overrides: options of `fit` and their values, as written on the command line.
    """

    label: str
    entry: str
    experiment: str
    overrides: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Study:
    """A study file.

    Attributes:
        name: name of the file without `.yaml`.
        experiments: folder of the experiment files.
        methods: variants of the methods.
        data: variants of the data.
        options: variants of what all cells share.
        seeds: values of `seed_everything`.
        metrics: what the tables show: `test/...`, `val/...` (of the best epoch), `evaluation/...` (of the suite after
            the training) or `cost/...`.
        baseline: label of the method that the others are compared with; None compares nothing.
        require: least value of metrics that a run must reach to be in the second set of tables; none by default.
        experiment_name: name of an experiment file without `.yaml`, with `{method}` and `{data}` where theirs stand.
    """

    name: str
    experiments: Path
    methods: tuple[Variant, ...]
    data: tuple[Variant, ...]
    options: tuple[Variant, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    baseline: str | None
    experiment_name: str = EXPERIMENT_NAME
    require: Mapping[str, float] = field(default_factory=dict)

    @property
    def condition(self) -> str:
        """What is required of a run, in words."""
        return " and ".join(f"{metric} >= {least:g}" for metric, least in self.require.items())


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Args:
        path: YAML with `methods`, `data` and `seeds`, and if needed `options`, `metrics`, `baseline`, `require` (least
            values of metrics, such as `{test/accuracy: 0.9}`: all tables once more over the runs that reach them, with
            their number), `experiments` (folder of the experiment files, relative to the study file; `..` by default)
            and `experiment_name` (how their names are made, `"{method}_{data}"` by default). `methods` and `data` are
            lists of names or mappings from a label to options of `fit`, with `experiment` for the name if the label is
            another one (of `data` also the path of a file that is like those in `experiments/data`, ending in `.yaml`,
            or of a data file or a folder of them, see `study.data_files`; from the current folder); `options` are
            shared by all cells. A list of values is crossed with all other lists. The value `"{label}/FILE"` of an
            option of a method is that file of the run of the method `label` with the same data, options and seed, which
            is then run first; the value `"{seed}"` is the seed of each cell. `seeds` is a number n (0 to n - 1) or a
            list.

    Returns:
        The study, every axis expanded.

    Raises:
        ConfigurationError: the file is not such YAML, with the key and what to do.
    """
    return study_of(path, study_contents_of(path))


def study_contents_of(path: Path, keys: str = "`methods`, `data` and `seeds`") -> dict[Any, Any]:
    """What a study file, or another one with these keys, holds, unchecked.

    Raises:
        ConfigurationError: it cannot be read or is no mapping.
    """
    try:
        contents = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _error(path, "readable YAML", one_line(error), "mend the file") from error
    if not isinstance(contents, dict) or not contents:
        raise _error(path, f"a mapping with {keys}", repr(contents), "write one")
    return contents


def study_of(path: Path, contents: Mapping[Any, Any]) -> Study:
    """Check the contents of a study file; see `read_study`.

    Args:
        path: where they stand, or would stand: its name is that of the study.
        contents: of the file.

    Raises:
        ConfigurationError: they are no study, with the key and what to do.
    """
    for key in contents:
        if key not in _KEYS:
            hint = did_you_mean(str(key), _KEYS)
            raise _error(path, f"the keys {', '.join(_KEYS)}", repr(key), "rename it", hint)
    missing = [key for key in _NEEDED if key not in contents]
    if missing:
        others = ", ".join(key for key in _KEYS if key not in _NEEDED)
        advice = f"add it; there may be {others} too"
        raise _error(path, "`methods`, `data` and `seeds`", f"no `{missing[0]}`", advice)
    methods = _axis(path, "methods", contents["methods"])
    return Study(
        name=path.stem,
        experiments=_experiments(path, contents.get("experiments", "..")),
        experiment_name=_experiment_name(path, contents.get("experiment_name", EXPERIMENT_NAME)),
        methods=methods,
        data=_axis(path, "data", contents["data"]),
        options=_options(path, contents.get("options")),
        seeds=_seeds(path, contents["seeds"]),
        metrics=_metrics(path, contents.get("metrics", list(DEFAULT_METRICS))),
        baseline=_baseline(path, contents, methods),
        require=_require(path, contents.get("require")),
    )


def _error(path: Path, expected: str, got: str, advice: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"Expected {expected} in {path}, but got {got}; {advice}.{hint}")


def _experiments(path: Path, value: Any) -> Path:
    # `experiments/studies/..` reads better as `experiments`, in commands that a person copies.
    folder = Path(os.path.normpath(path.parent / str(value)))
    try:
        found = isinstance(value, str) and folder.is_dir()
    except OSError:  # a name that is too long for any file
        found = False
    if not found:
        raise _error(path, "`experiments` to be a folder", repr(value), "give it relative to the study file")
    return folder


def _experiment_name(path: Path, value: Any) -> str:
    places = ("{method}", "{data}")
    # What is left when each place is taken out once: a second one, or a slash, is no identifier.
    fixed = str(value).replace(places[0], "", 1).replace(places[1], "", 1)
    if not isinstance(value, str) or any(place not in value for place in places) or not fixed.isidentifier():
        raise _error(
            path,
            "`experiment_name` to have {method} and {data} once each between letters, digits and _",
            repr(value),
            'write for example "sdc_{data}_{method}"',
        )
    return value


def _axis(path: Path, key: str, value: Any) -> tuple[Variant, ...]:
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        _check_distinct(path, key, value)
        value = dict.fromkeys(value)
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        expected = f"`{key}` to be a list of names or a mapping from names to options, not empty"
        raise _error(path, expected, repr(value), "write for example `[vanilla, ivat]`")
    return tuple(variant for name, options in value.items() for variant in _entry(path, key, name, options))


def _entry(path: Path, key: str, name: str, options: Any) -> list[Variant]:
    if not isinstance(options, dict | None):
        raise _error(path, f"`{key}.{name}` to be a mapping of options", repr(options), "write `name: {option: value}`")
    options = dict(options or {})
    # Taken out, since what is left goes to `fit`, which knows no such option.
    experiment = options.pop("experiment", name)
    if not isinstance(experiment, str):
        raise _error(path, f"`{key}.{name}.experiment` to be a name", repr(experiment), "name an experiment")
    return _variants(path, f"{key}.{name}", name, experiment, options)


def _options(path: Path, value: Any) -> tuple[Variant, ...]:
    if not isinstance(value, dict | None):
        raise _error(path, "`options` to be a mapping of options of `fit`", repr(value), "write `option: value`")
    return tuple(_variants(path, "options", "", "", value or {}))


def _variants(path: Path, key: str, name: str, experiment: str, options: dict[Any, Any]) -> list[Variant]:
    flat = _flatten(path, key, options)
    for option, values in flat.items():
        # Two cells with the same name or seed would share a folder, and the second be taken for finished.
        if option in _OWN:
            raise _error(path, f"options of the experiments in `{key}`", f"{option!r}, which a study sets", "remove it")
        if isinstance(values, list):
            _check_values(path, f"{key}.{option}", values)
    # An option with one value is an axis of length 1, so that lists and single values need one rule.
    axes = [[(o, v) for v in values] if isinstance(values, list) else [(o, values)] for o, values in flat.items()]
    shown = _short_names([option for option, values in flat.items() if isinstance(values, list)])
    variants = []
    for chosen in itertools.product(*axes):
        written = tuple((option, as_option(value)) for option, value in chosen)
        labels = [f"{shown[option]}={value}" for option, value in written if option in shown]
        variants.append(Variant(",".join([*([name] if name else []), *labels]), name, experiment, written))
    return variants


def _check_values(path: Path, key: str, values: list[Any]) -> None:
    if not values or any(isinstance(value, list | dict) for value in values):
        raise _error(path, f"`{key}` to be a value or a list of values, not empty", repr(values), "list plain values")
    _check_distinct(path, key, values)


def _check_distinct(path: Path, key: str, values: Sequence[Any]) -> None:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise _error(path, f"every entry of `{key}` once", f"{twice[0]!r} twice", "remove one")


def _flatten(path: Path, key: str, options: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            if not value:
                raise _error(path, f"`{key}.{full}` to be a value", "an empty mapping", "give a value or remove it")
            flat.update(_flatten(path, key, value, f"{full}."))
        else:
            flat[full] = value
    return flat


def _short_names(options: list[str]) -> dict[str, str]:
    """The last part of every dotted option, or all of it where two would look the same."""
    # Labels become names of folders and rows of tables, where every character counts.
    last = {option: option.rsplit(".", 1)[-1] for option in options}
    return {o: short if list(last.values()).count(short) == 1 else o for o, short in last.items()}


def _seeds(path: Path, value: Any) -> tuple[int, ...]:
    # True is an int in Python: `seeds: true` would be one seed.
    seeds = list(range(value)) if isinstance(value, int) and not isinstance(value, bool) else value
    valid = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not valid or not seeds:
        raise _error(path, "`seeds` to be a number above 0 or a list of seeds", repr(value), "write for example `5`")
    # A seed twice would count twice in every mean and interval.
    _check_distinct(path, "seeds", seeds)
    return tuple(seeds)


def _metrics(path: Path, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise _error(path, "`metrics` to be a list of names, not empty", repr(value), "write `[test/accuracy]`")
    names = [_metric(path, name) for name in value]
    _check_distinct(path, "metrics", names)
    return tuple(names)


def full_metric(name: str) -> str:
    """The key of a metric that is named without its split."""
    # Papers report the test split; whoever means another one says so.
    return name if "/" in name else f"test/{name}"


def _metric(path: Path, name: str) -> str:
    full = full_metric(name)
    if full.split("/")[0] not in ("test", "val", "evaluation", "cost"):
        raise _error(path, "metrics `test/...`, `val/...`, `evaluation/...` or `cost/...`", repr(full), "rename it")
    return full


def _require(path: Path, value: Any) -> dict[str, float]:
    numbers = isinstance(value, dict) and all(type(least) in (int, float) for least in value.values())
    if value is not None and not numbers:
        expected = "`require` to be a mapping from metrics to the least value of each"
        raise _error(path, expected, repr(value), "write for example `{test/accuracy: 0.9}`")
    return {_metric(path, str(metric)): float(least) for metric, least in (value or {}).items()}


def _baseline(path: Path, contents: Mapping[str, Any], methods: Sequence[Variant]) -> str | None:
    labels = [variant.label for variant in methods]
    # `null` is an answer, that nothing is compared; only a missing key means the first method.
    value = contents.get("baseline", labels[0])
    if value is not None and value not in labels:
        hint, choice = did_you_mean(str(value), labels), f"choose of {', '.join(labels)}"
        raise _error(path, "`baseline` to be one of the methods", repr(value), choice, hint)
    return None if value is None else str(value)
