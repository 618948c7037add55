"""`experiments`: what can be run by name, with a line on each."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.console import say
from attn_lightning.experiments import FOLDER, Experiment, Experiments
from attn_lightning.study.named import STUDIES, study_names


def experiments_command(arguments: Sequence[str]) -> int:
    """Run `experiments`.

    Args:
        arguments: the options of the command.

    Returns:
        0; errors are exceptions.
    """
    parser = OneLineArguments(
        "experiments",
        description="List the names that `fit --config` takes, METHOD_DATA such as ivat_imdb and special ones, and "
        "those that `study` takes. "
        "With a name, show the files and options that it stands for.",
    )
    parser.add_argument("name", nargs="?", help="an experiment, such as ivat_imdb")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the experiments are (default: experiments)")
    options = parser.parse_args(arguments)
    experiments = Experiments(options.folder)
    if options.name is not None:
        # As a command that can be copied: it is what the name does, with nothing left to explain.
        say(shlex.join(["python", "-m", "attn_lightning", "fit", *experiments.find(options.name).arguments()]))
        return 0
    _print("methods", experiments.methods)
    _print("data", experiments.data)
    _print("special experiments", experiments.special)
    if names := study_names(options.folder / STUDIES.name):
        say("\n".join(textwrap.wrap(f"studies: {', '.join(names)}", 100, subsequent_indent="  ")))
        say()
    say(f"fit --config METHOD_DATA runs a method on data; the files are in {options.folder}.")
    return 0


def _print(title: str, named: Mapping[str, Experiment]) -> None:
    # A folder of experiments may have no file of one kind.
    width = max(map(len, named), default=0)
    say(f"{title}:")
    for name, experiment in sorted(named.items()):
        say(f"  {name:<{width}}  {experiment.line}".rstrip())
    say()
