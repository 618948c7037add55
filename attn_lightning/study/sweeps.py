"""Sweep files: the format of Weights & Biases, read and checked before an agent or a search runs anything.

command: [${env}, ${interpreter}, -m, attn_lightning, fit, --config, ivat_sst, --run.wandb=true, ${args}]
method: bayes
metric: {name: best/val/accuracy, goal: maximize}
parameters:
  method.epsilon: {distribution: log_uniform_values, min: 0.1, max: 5.0}
  method.normalize: {values: [sentence, token]}
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from attn_lightning.errors import ConfigurationError, did_you_mean, one_line

COMMAND = "[${env}, ${interpreter}, -m, attn_lightning, fit, --config, EXPERIMENT, --run.wandb=true, ${args}]"
"""What a message tells the user to copy."""
_ARGUMENTS = "${args}"
_PROGRAM = ["-m", "attn_lightning", "fit"]
_METHODS = ("grid", "random", "bayes")
_DISTRIBUTIONS = (
    "categorical", "constant", "int_uniform", "uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values",
    "inv_log_uniform_values", "normal", "q_normal",
)  # fmt: skip
_MOST_COMMANDS = 5000
_CLASSES = ("method", "data", "backbone")
"""Keys of a configuration whose value is a class, of which a sweep names the options."""

Kind = Literal["choice", "integer", "real", "log", "normal"]


@dataclass(frozen=True)
class Parameter:
    """One option that a sweep varies.

    Attributes:
        name: as on the command line, such as `method.epsilon`.
        kind: `choice` out of `values`; `integer`, `real` or `log` (real, uniform in its logarithm) between `low` and
            `high`; `normal` with mean `low` and standard deviation `high`.
        values: of a choice.
        low: smallest value.
        high: largest value.
        step: distance of two values that may be drawn; 0 for any.
    """

    name: str
    kind: Kind
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float = 0.0

    @property
    def probes(self) -> tuple[Any, ...]:
        """The values that a check has to try: all choices, or both ends of a range."""
        if self.kind == "choice":
            return self.values
        # A normal distribution has no ends; its mean stands for all.
        return (self.low,) if self.kind == "normal" else (self.low, self.high)


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        path: of the file.
        arguments: the command line after `python -m attn_lightning`, without those of a trial.
        method: how trials are chosen: grid, random or bayes.
        metric: what is optimized; None for a grid that only lists results.
        maximize: whether more of it is better.
        parameters: what is varied.
    """

    path: Path
    arguments: tuple[str, ...]
    method: str
    metric: str | None
    maximize: bool
    parameters: tuple[Parameter, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What trials of two sweeps must have in common to be compared: values as JSON has them."""
        parameters = {p.name: [str(value) for value in p.values] or p.kind for p in self.parameters}
        return {"command": list(self.arguments), "metric": [self.metric, self.maximize], "parameters": parameters}

    def command(self, values: Mapping[str, Any]) -> list[str]:
        """The command line of one trial after `python -m attn_lightning`, as an agent writes it."""
        return [*self.arguments, *(f"--{name}={value}" for name, value in values.items())]

    def commands(self) -> Iterator[list[str]]:
        """Every command of a grid. Otherwise every combination of choices, and both ends of every range.

        Nobody can try all numbers of a range, but options are checked by type and by bounds, which the ends show.
        """
        ranges = [parameter for parameter in self.parameters if parameter.kind != "choice"]
        ends = {parameter.name: parameter.probes[0] for parameter in ranges}
        choices = [[(p.name, value) for value in p.values] for p in self.parameters if p.kind == "choice"]
        for chosen in itertools.product(*choices):
            yield self.command({**dict(chosen), **ends})
        # Ends of ranges are tried one at a time: all of them together are 2^n commands.
        usual = dict(axis[0] for axis in choices)
        for parameter in ranges:
            for value in parameter.probes[1:]:
                yield self.command({**usual, **ends, parameter.name: value})


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file.

    Args:
        path: YAML as `wandb sweep` takes it, with a full `command`.

    Raises:
        ConfigurationError: the file is not such YAML, an agent could not run what it says, or a range is empty.
    """
    contents = _load(path)
    parameters = contents.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise _error(path, "`parameters` to be a mapping from options to their values", repr(parameters), "add one")
    method = contents.get("method")
    if method not in _METHODS:
        raise _error(path, f"`method` to be one of {', '.join(_METHODS)}", repr(method), "choose one")
    metric, maximize = _metric(path, contents.get("metric"), required=method == "bayes")
    found = tuple(_parameter(path, str(name), content) for name, content in parameters.items())
    if method == "grid" and any(parameter.kind != "choice" for parameter in found):
        name = next(parameter.name for parameter in found if parameter.kind != "choice")
        raise _error(path, "lists of `values` in a grid", f"a range for {name!r}", "list its values, or use `random`")
    sweep = Sweep(path, _arguments(path, contents.get("command")), str(method), metric, maximize, found)
    # Checked before any is made: four lists of ten are ten thousand commands through the parser.
    combinations = math.prod(len(parameter.values) for parameter in found if parameter.kind == "choice")
    if combinations > _MOST_COMMANDS:
        raise _error(path, f"at most {_MOST_COMMANDS} combinations of choices", str(combinations), "list fewer values")
    return sweep


def as_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a trial as a part of an experiment: nested as `--config` takes them.

    Args:
        values: by the name of the option.
    """
    part: dict[str, Any] = {}
    # The shorter names first: a class before its options, in whatever order a sweep names them.
    for name, value in sorted(values.items(), key=lambda pair: pair[0].count(".")):
        keys = name.split(".")
        place = part
        for key, below in itertools.pairwise(keys):
            if not isinstance(place.setdefault(key, {}), dict):
                place[key] = {"class_path": place[key]}
            place = place[key]
            # Options of a class stand under `init_args` in a file, and the command line leaves that out.
            if key in _CLASSES and below not in ("class_path", "init_args"):
                place = place.setdefault("init_args", {})
        place[keys[-1]] = copy.deepcopy(value)
    return part


def check_sweep(sweep: Sweep, parse: Callable[[Sequence[str]], dict[str, Any]]) -> int:
    """Put every command of a sweep through the parser of `fit`.

    Args:
        sweep: the sweep.
        parse: the parser of `fit`.

    Returns:
        The number of commands.

    Raises:
        ConfigurationError: `fit` would refuse one; says which and why.
    """
    # All of them, because one value in a list of twenty may be the one that `fit` refuses.
    commands = list(sweep.commands())
    for arguments in commands:
        try:
            parse(arguments)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"Expected commands that `fit` accepts from {sweep.path}, but it refuses "
                f"{' '.join(arguments[len(sweep.arguments) :])}: {error}"
            ) from error
    return len(commands)


def _load(path: Path) -> dict[str, Any]:
    try:
        # `safe_load`: sweep files are passed around.
        contents = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _error(path, "readable YAML", one_line(error), "mend the file") from error
    if not isinstance(contents, dict):
        raise _error(path, "a mapping with `command`, `method` and `parameters`", repr(contents), "write one")
    return contents


def _error(path: Path, expected: str, got: str, advice: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"Expected {expected} in {path}, but got {got}; {advice}.{hint}")


def _metric(path: Path, value: Any, required: bool) -> tuple[str | None, bool]:
    if value is None and not required:
        # A direction is needed by its type only; without a metric nobody asks for it.
        return None, True
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise _error(path, "`metric` to have a `name` and a `goal`", repr(value), "name what is optimized")
    goal = value.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise _error(path, "the `goal` of the metric to be minimize or maximize", repr(goal), "choose one")
    return value["name"], goal == "maximize"


def _arguments(path: Path, command: Any) -> tuple[str, ...]:
    """What follows `python -m attn_lightning`; the default command of an agent cannot start this package."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    # What stands before it (an interpreter, a launcher) is the agent's business.
    program = next((place for place in range(len(words)) if words[place : place + 3] == _PROGRAM), None)
    if program is None or words[-1] != _ARGUMENTS or words.count(_ARGUMENTS) != 1:
        raise _error(path, f"`command` to be a list such as {COMMAND}", repr(command), "copy it")
    macros = [word for word in words[program + 3 : -1] if "${" in word and not word.startswith("${env")]
    if macros:
        raise _error(path, f"plain options between `fit` and {_ARGUMENTS}", repr(macros[0]), "write the option out")
    return tuple(words[program + 2 : -1])


def _parameter(path: Path, name: str, content: Any) -> Parameter:
    key = f"`parameters.{name}`"
    if not isinstance(content, dict):
        raise _error(path, f"{key} to be a mapping", repr(content), "write `{value: ...}` or `{values: [...]}`")
    if "parameters" in content:
        return Parameter(name, "choice", tuple(_nested(path, name, content["parameters"])))
    if "value" in content:
        return Parameter(name, "choice", (_plain(path, key, content["value"]),))
    if "values" in content:
        values = content["values"]
        if not isinstance(values, list) or not values:
            raise _error(path, f"the `values` of {key} to be a list, not empty", repr(values), "list some")
        return Parameter(name, "choice", tuple(_plain(path, key, value) for value in values))
    return _range(path, name, key, content)


def _nested(path: Path, name: str, content: Any) -> list[dict[str, Any]]:
    """All values of a nested parameter, such as `method: {class_path, init_args: {...}}`; choices only."""
    if not isinstance(content, dict) or not content:
        raise _error(path, f"`parameters.{name}.parameters` to be a mapping", repr(content), "add one")
    below = [_parameter(path, f"{name}.{key}", value) for key, value in content.items()]
    for parameter in below:
        if parameter.kind != "choice":
            raise _error(
                path,
                f"choices inside the nested {name!r}",
                f"a range for {parameter.name!r}",
                f"name it `{parameter.name}` at the top, outside the nesting",
            )
    axes = [[(key, value) for value in p.values] for key, p in zip(content, below, strict=True)]
    return [dict(chosen) for chosen in itertools.product(*axes)]


def _plain(path: Path, key: str, value: Any) -> Any:
    if value is None:
        # An agent writes None for it, which the command line takes for a word.
        raise _error(path, f"values of {key} that an agent can write", "null", "write the string 'null'")
    return value


def _range(path: Path, name: str, key: str, content: Mapping[str, Any]) -> Parameter:
    distribution = content.get("distribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        hint = did_you_mean(str(distribution), _DISTRIBUTIONS, most=1)
        raise _error(path, f"a known `distribution` of {key}", repr(distribution), "choose another", hint)
    names = ("mu", "sigma") if distribution in ("normal", "q_normal") else ("min", "max")
    low, high = (content.get(part) for part in names)
    for part, value in zip(names, (low, high), strict=True):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _error(path, f"`{part}` of {key} to be a finite number", repr(value), "give one, or list `values`")
    assert low is not None
    assert high is not None
    step = float(content.get("q", 0.0))
    # `mu` may be above `sigma`: these two are no range.
    if names == ("mu", "sigma"):
        return Parameter(name, "normal", (), float(low), float(high), step)
    if not low < high:
        raise _error(path, f"`min` below `max` in {key}", f"{low} and {high}", "exchange them or widen the range")
    # As W&B decides it: whole ends without a distribution mean whole numbers.
    whole = isinstance(low, int) and isinstance(high, int)
    if distribution == "int_uniform" or (whole and distribution in (None, "q_uniform")):
        if not whole:
            raise _error(path, f"whole numbers as ends of {key}", f"{low} and {high}", "use the distribution uniform")
        return Parameter(name, "integer", (), low, high, step)
    logarithmic = distribution is not None and "log" in distribution
    if logarithmic and not low > 0:
        raise _error(path, f"a `min` above 0 for the logarithmic {key}", str(low), "raise it")
    return Parameter(name, "log" if logarithmic else "real", (), float(low), float(high), step)
