"""The options that say where jobs run, and the engine they ask for, checked before anything runs."""

import argparse
from pathlib import Path

from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.study.engines import Engine
from attn_lightning.study.engines.local import LocalEngine, cores

_MOST_JOBS = 4
_NAMES = ("local", "ray", "slurm")


def add_engine_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--on` and the options of every engine.

    Args:
        parser: of a command.
        what: that runs, in the plural: cells or trials.
    """
    group = parser.add_argument_group(f"where {what} run")
    group.add_argument(
        "--on",
        default="local",
        metavar="ENGINE",
        help="local (this machine, the default); ray (a Ray cluster on this machine), ray://HOST:PORT (a client of "
        "one) or HOST:PORT (this machine is part of one); slurm (job arrays)",
    )
    group.add_argument("--jobs", type=int, help=f"{what} at a time (default: one per core, at most 4; slurm: all)")
    group.add_argument("--ray.num_cpus", type=float, default=1, metavar="N", help="cores of each (default: 1)")
    group.add_argument(
        "--ray.num_gpus",
        type=float,
        metavar="N",
        help="GPUs of each, 0.5 for half of one (default: 1 where there are any)",
    )
    group.add_argument(
        "--ray.retries", type=int, default=5, metavar="N", help="new starts after lost workers and nodes (default: 5)"
    )
    group.add_argument("--slurm.partition", metavar="NAME", help="partition of the jobs")
    group.add_argument("--slurm.time", type=int, default=240, metavar="MINUTES", help="limit of each (default: 240)")
    group.add_argument("--slurm.gpus", type=int, default=0, metavar="N", help="GPUs of each (default: 0)")
    group.add_argument("--slurm.cpus", type=int, default=2, metavar="N", help="cores of each (default: 2)")
    group.add_argument("--slurm.memory", type=int, default=8, metavar="GB", help="memory of each (default: 8)")
    group.add_argument(
        "--slurm.extra", action="append", default=[], metavar="KEY=VALUE", help="any other option of sbatch; repeatable"
    )


def make_engine(options: argparse.Namespace, root: Path, count: int) -> Engine:
    """The engine that the options ask for.

    Args:
        options: parsed, with those of `add_engine_options`.
        root: folder of the study or search, where an engine may keep its own files.
        count: number of jobs there can be.

    Raises:
        ConfigurationError: there is no such engine, what it needs is not installed, or it cannot be reached; or an
            option of another engine is given.
    """
    check_numbers(at_least=1, advice="leave it out", **{"--jobs": options.jobs})
    _check_of_engine(options)
    if options.on == "local":
        # No more than there are jobs, and at least one where nothing is left to do.
        engine = LocalEngine(max(1, min(options.jobs or min(_MOST_JOBS, cores()), count)))
        engine.warm_up()
        return engine
    # By name, because a dot is no part of an attribute.
    given = vars(options)
    extra = _extra(given["slurm.extra"])
    if options.on == "slurm":
        # Imported here, as submitit is an extra that most users do not have.
        from attn_lightning.study.engines.on_slurm import SlurmEngine

        return SlurmEngine(
            root / ".slurm",
            jobs=options.jobs,
            partition=given["slurm.partition"],
            minutes=given["slurm.time"],
            gpus=given["slurm.gpus"],
            cpus=given["slurm.cpus"],
            gigabytes=given["slurm.memory"],
            extra=extra,
        )
    if options.on == "ray" or ":" in options.on:
        from attn_lightning.study.engines.on_ray import RayEngine

        # None starts a cluster on this machine, which ends with this process.
        address = None if options.on == "ray" else options.on
        return RayEngine(address, given["ray.num_cpus"], given["ray.num_gpus"], given["ray.retries"], options.jobs)
    raise ConfigurationError(
        f"Expected `--on` to be local, ray, slurm, ray://HOST:PORT or HOST:PORT, but got {options.on!r}; choose one."
        f"{did_you_mean(options.on, _NAMES, most=1)}"
    )


def _check_of_engine(options: argparse.Namespace) -> None:
    """Refuse `--slurm.partition` without `--on slurm`: the cells would run here, and nothing would say so."""
    parser = argparse.ArgumentParser()
    add_engine_options(parser, "jobs")
    engine = "ray" if ":" in options.on else options.on
    for name, default in vars(parser.parse_args([])).items():
        of, dot, _ = name.partition(".")
        if dot and of != engine and vars(options).get(name, default) != default:
            raise ConfigurationError(
                f"Expected `--{name}` with `--on {of}`, but got `--on {options.on}`; change one of them."
            )


def _extra(pairs: list[str]) -> dict[str, str]:
    # Split at the first sign: values of sbatch, such as `--export=A=1`, hold others.
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(found) or not all("=" in pair for pair in pairs):
        raise ConfigurationError(f"Expected `--slurm.extra` to be KEY=VALUE, but got {pairs}; write account=mine.")
    return found
