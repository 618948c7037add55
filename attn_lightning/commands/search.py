"""`search`: the best values of a sweep file, found with Optuna; needs no account and resumes where it stopped."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from attn_lightning.checks import check_numbers
from attn_lightning.commands.bars import no_bars_in_logs
from attn_lightning.commands.one_line import OneLineArguments
from attn_lightning.commands.sweep import FOLDER as SWEEPS
from attn_lightning.commands.sweep import check_metric
from attn_lightning.console import say
from attn_lightning.experiments import named_file
from attn_lightning.study.engines.choice import add_engine_options, make_engine
from attn_lightning.study.sweeps import check_sweep, read_sweep

FOLDER = Path("experiments/searches")

_MOST_JOBS = 4
"""Trials at a time: each learns from those that have ended, so that many at once are little better than drawing."""


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineArguments(
        "search",
        description="Search for the best values of a sweep file with Optuna. Safe to stop and to repeat: trials that "
        "ended are kept, one that was interrupted goes on in its own run folder.",
    )
    parser.add_argument("sweep", help="a YAML file in the format of W&B sweeps, or the name of one in the two folders")
    parser.add_argument("--trials", type=int, default=20, help="trials in all, earlier ones included (default: 20)")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampler (default: 0)")
    add_engine_options(parser, "trials")
    options = parser.parse_args(arguments)
    check_numbers(at_least=1, advice="leave it out", **{"--trials": options.trials})
    return options


def search_command(arguments: Sequence[str]) -> int:
    """Run `search`.

    Args:
        arguments: the options of the command.

    Returns:
        0 if a trial is complete, else 1.
    """
    options = _options(arguments)
    no_bars_in_logs()
    sweep = read_sweep(named_file(options.sweep, "a sweep", FOLDER, SWEEPS))
    # First: an unreachable cluster is known in a second, the commands of a sweep take longer to check.
    engine = make_engine(options, options.root / f"search_{sweep.path.stem}", options.trials)
    # Imported late, because it loads torch: a mistake in an option is answered at once.
    from attn_lightning.commands.preparation import Preparation, check_data
    from attn_lightning.commands.validation import shared_validator
    from attn_lightning.study.search import Search

    validator = shared_validator()
    check_sweep(sweep, validator.parse)
    check_metric(sweep, validator.parse(next(sweep.commands())))
    if options.on == "local":
        # On a cluster the data may lie on the nodes alone.
        check_data(map(validator.options, sweep.commands()), Preparation(validator.parser), say)
    search = Search(sweep, options.root, options.seed)
    try:
        search.run(options.trials, engine, options.jobs or _MOST_JOBS, say)
    except KeyboardInterrupt:
        say(f"{search.num_ended()} of {options.trials} trials have ended; the same command goes on from here")
        raise
    files = search.write_results()
    for path in files:
        say(f"file: {path}")
    best = search.folder / "best.yaml"
    # No trial has ended with a value, so that there is nothing to recommend.
    if best not in files:
        return 1
    say(best.read_text("utf-8").rstrip())
    return 0
