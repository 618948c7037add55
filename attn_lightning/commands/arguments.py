"""The command line of `fit`, `validate` and `test` before it is parsed: experiments by name, options in any order."""

import re
from argparse import ArgumentParser
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from attn_lightning import run_folder
from attn_lightning.checkpoint import checkpoint_contents, read_checkpoint
from attn_lightning.checkpoint.trust import check_checkpoint, check_configuration, trusted_classes
from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import FOLDER, Experiment, Experiments, find_experiment
from attn_lightning.files import file_name
from attn_lightning.study.data_files import data_name, file_options, is_data_file, method_without_data


def prepared(arguments: Sequence[str]) -> list[str]:
    """The same command for the parser, which takes options strictly one after the other.

    An experiment is replaced by its files and options. All files come first, so that options count wherever they stand;
    and the choice of a class comes before the options of that class, which it would throw away otherwise.

    Args:
        arguments: the command and its options.

    Raises:
        ConfigurationError: there is no such experiment, or a file says something twice.
    """
    # jsonargparse takes options in turn: `--method X` after `--method.weight 2` would forget the weight.
    command, *options = arguments
    configs: list[Experiment] = []
    rest: list[list[str]] = []
    file = _data_file(options)
    for option in _options(options):
        value = _config(option)
        if value is not None:
            configs.append(_experiment(value, file is not None))
        elif _value("--data", option) is None or file is None:
            _insert(rest, option)
    if file is not None:
        if command != "fit":
            raise ConfigurationError(
                f"Expected `--data` of `{command}` to be a class or a file of its options, but got {file}, of which "
                f"nothing says whether it is for training or for testing; write "
                f"`data: {{class_path: TextFiles, init_args: {{train: FILE, test: {file}}}}}` into a YAML file and "
                "give that."
            )
        base = FOLDER / "base.yaml"
        if not configs and base.is_file():
            # Without an experiment Lightning would train for a thousand epochs.
            configs.append(find_experiment(str(base)))
        _insert_file(rest, file, configs)
    start = [argument for found in configs for argument in found.arguments()]
    return [command, *start, *(argument for option in rest for argument in option)]


def experiment_name(arguments: Sequence[str]) -> str:
    """The name of a run whose `run.name` is not given: that of its last `--config`, and of its data file.

    Args:
        arguments: the command and its options as they were given.
    """
    values = [value for option in _options(arguments) if (value := _config(option)) is not None]
    name = Path(values[-1]).name.removesuffix(".yaml") if values else "run"
    if (file := _data_file(arguments)) is not None:
        name = file_name("_".join([*([name] if values else []), data_name(file)]))
    return name


def _data_file(arguments: Sequence[str]) -> str | None:
    """The last `--data`, if it is a data file or a folder of them."""
    # The last, as for every option that is given twice.
    values = [value for option in _options(arguments) if (value := _value("--data", option)) is not None]
    return values[-1] if values and is_data_file(values[-1]) else None


def _experiment(value: str, with_file: bool) -> Experiment:
    """What `--config` names; beside a data file it may be a method alone, whose data that is."""
    if with_file and Path(value).parent == Path() and FOLDER.is_dir() and value in (known := Experiments()).methods:
        return method_without_data(known, value)
    return find_experiment(value)


def _insert_file(options: list[list[str]], file: str, configs: Sequence[Experiment]) -> None:
    """Put what a data file stands for before the options of `data`."""
    given = {option[0].partition("=")[0].removeprefix("--data.") for option in options}
    # A configuration of such data names the columns, perhaps of these very files.
    if any("TextFiles" in path.read_text("utf-8") for found in configs for path in found.files):
        given.add("columns")
    for name, value in file_options(file, given).items():
        _insert(options, [f"--data={value}" if name == "class_path" else f"--data.{name}={value}"])


def _options(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Each option with the values that follow it; a negative number is a value."""
    option: list[str] = []
    for argument in arguments:
        # `-1` is a value: an option begins with a letter.
        if re.match(r"--?[A-Za-z]", argument) and option:
            yield option
            option = []
        option.append(argument)
    if option:
        yield option


def _config(option: list[str]) -> str | None:
    return _value("--config", option) or _value("-c", option)


def _value(wanted: str, option: list[str]) -> str | None:
    name, equals, value = option[0].partition("=")
    if name != wanted:
        return None
    return value if equals else "".join(option[1:2]) or None


def _insert(options: list[list[str]], new: list[str]) -> None:
    """Put an option behind the others, but the first choice of a class before the options of that class."""
    name = _class_of(new)
    below = (place for place, option in enumerate(options) if option[0].startswith(f"{name}."))
    # A second choice means to start again from the new class's own defaults.
    chosen = any(_class_of(option) == name for option in options)
    options.insert(len(options) if chosen else next(below, len(options)), new)


def _class_of(option: list[str]) -> str:
    return option[0].partition("=")[0].removesuffix(".class_path")


def values_of(arguments: Sequence[str], name: str) -> list[str]:
    """Values of an option as given on the command line, in both spellings."""
    values = [argument.split("=", 1)[1] for argument in arguments if argument.startswith(f"{name}=")]
    return values + [after for before, after in pairwise(arguments) if before == name]


def add_trust(parser: ArgumentParser) -> None:
    """Add the option that names foreign classes of a checkpoint."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE.CLASS",
        help="a class outside of this package that the checkpoint names and that may be imported and run; several with "
        "commas between them",
    )


def split_trusted(arguments: Sequence[str]) -> tuple[list[str], set[str]]:
    """Take `--trust` out of a command line, because it is no part of a configuration.

    Args:
        arguments: the command and its options.

    Returns:
        The others, and the classes that were named.

    Raises:
        ConfigurationError: it names none.
    """
    rest, values = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name != "--trust":
            rest.append(argument)
        elif not (value := value if equals else next(remaining, "")) or value.startswith("-"):
            raise ConfigurationError("Expected a class with `--trust`, but got none; use `--trust my_model.MyModel`.")
        else:
            values.append(value)
    return rest, trusted_classes(values)


def with_checkpoint_config(arguments: list[str], trusted: Collection[str] = ()) -> list[str]:
    """Read the configuration that lies beside a checkpoint, so that a checkpoint is all one has to name.

    Args:
        arguments: the command and its options.
        trusted: classes of other packages that the configuration and the checkpoint may name.

    Returns:
        The same with the configuration with which the run was trained last put first, as `--config`, if `--ckpt_path`
        names a file.

    Raises:
        ConfigurationError: the checkpoint cannot be read, it names a class that is not trusted, or the command line
            also changes the model: those values would be ignored in favour of the checkpoint's; or `test` or
            `validate` gets `last`.
    """
    paths = values_of(arguments, "--ckpt_path")
    if paths and paths[-1] == "last" and arguments[0] != "fit":
        # Lightning would find no such file, say so in a warning, and measure random weights.
        raise ConfigurationError(
            f"Expected `--ckpt_path` of `{arguments[0]}` to be a file, but got 'last', which `fit` alone takes; give a "
            f"file such as RUN/{run_folder.CHECKPOINTS}/last.ckpt."
        )
    # `last` is a file of the run that goes on, whose configuration is given by its name.
    if not paths or paths[-1] == "last":
        return arguments
    changed = [a for a in arguments if a.split("=")[0].split(".")[0] in ("--model", "--method")]
    if changed:
        raise ConfigurationError(
            f"Expected no `{changed[0].split('=')[0]}` together with `--ckpt_path`: the model and its training are "
            "those of the checkpoint; leave it out, or train a new run."
        )
    checkpoint = Path(paths[-1])
    contents = read_checkpoint(checkpoint)
    checkpoint_contents(contents)
    check_checkpoint(contents, trusted)
    folder = run_folder.of_checkpoint(checkpoint)
    # The newest: a run that was made longer and then interrupted is to become as long as it was made.
    if (config := run_folder.newest_config(folder)) is not None:
        check_configuration(run_folder.read_config(config), trusted)
        return [arguments[0], "--config", str(config), f"--run.name={config.parent.parent.name}", *arguments[1:]]
    # The short option too, in each of its spellings.
    if not any(_config(option) for option in _options(arguments)):
        raise ConfigurationError(
            f"Expected {folder / run_folder.CONFIG} beside the checkpoint, but there is none; pass the configuration "
            "of that run with `--config`."
        )
    return arguments


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--verbose` of `fit` as the option of the run that it stands for.

    Args:
        arguments: the command and its options.
    """
    if list(arguments[:1]) != ["fit"]:
        return list(arguments)
    return ["--run.verbose=true" if argument == "--verbose" else argument for argument in arguments]
