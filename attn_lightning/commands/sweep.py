"""`sweep`: check every command that a W&B sweep file can produce, then hand the file to `wandb sweep`."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import named_file
from attn_lightning.study.sweeps import Sweep, check_sweep, read_sweep

FOLDER = Path("experiments/sweeps")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "sweep",
        description="Check every command that a W&B sweep file can produce, then register it with `wandb sweep`. "
        "Agents run it: `make agent ID=entity/project/id`.",
    )
    parser.add_argument("sweep", help="a YAML file, or the name of one in experiments/sweeps")
    parser.add_argument("--project", default="attn_lightning", help="project of W&B (default: attn_lightning)")
    parser.add_argument("--entity", help="entity of W&B (default: your own)")
    parser.add_argument("--dry-run", action="store_true", help="only check the commands; contacts nobody")
    return parser.parse_args(arguments)


def sweep_command(arguments: Sequence[str]) -> int:
    """Run `sweep`.

    Args:
        arguments: the options of the command.

    Returns:
        The exit code of `wandb sweep`, or 0.
    """
    options = _options(arguments)
    sweep = read_sweep(named_file(options.sweep, "a sweep", FOLDER))
    # This loads torch, which a mistake in the file should not have to wait for.
    from attn_lightning.commands.validation import shared_validator

    parse = shared_validator().parse
    say(f"{check_sweep(sweep, parse)} commands, all accepted by `fit`")
    # One is enough: trials differ in their options, and hardly ever in what they log.
    config = parse(next(sweep.commands()))
    check_metric(sweep, config)
    if not config["run"]["wandb"]:
        raise ConfigurationError(
            f"Expected `--run.wandb=true` in the `command` of {sweep.path}, but got none; without it nothing reaches "
            "the sweep."
        )
    if options.dry_run:
        return 0
    entity = ["--entity", options.entity] if options.entity else []
    command = [sys.executable, "-m", "wandb", "sweep", "--project", options.project, *entity, str(sweep.path)]
    # Its own output and exit code are the answer; an exception here would only hide them.
    return subprocess.run(command, check=False).returncode


def check_metric(sweep: Sweep, config: dict[str, Any]) -> None:
    """Refuse a sweep whose metric its runs do not log: a search would never see a value.

    Raises:
        ConfigurationError: naming what is logged under that prefix.
    """
    from attn_lightning.study.logged import why_not_logged

    if sweep.metric is None:
        return
    # Costs are kept in the run folder alone.
    why = "costs are not logged" if sweep.metric.startswith("cost/") else why_not_logged(sweep.metric, config)
    if why is not None:
        raise ConfigurationError(
            f"Expected a `metric` in {sweep.path} that runs log, such as best/{config['run']['monitor']}, but got "
            f"{sweep.metric!r}: {why}"
        )
