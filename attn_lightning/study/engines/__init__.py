"""What runs commands somewhere: on this machine, on a Ray cluster, or in the queue of SLURM.

An engine runs a command at least once, and no more is asked of it. That every cell of a study is done exactly once
comes from the command itself, which claims its cell and looks at the run folder first; so whether a command succeeded
is read from the run folder too, and never from what an engine says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        name: what it is called; one job at a time has it.
        arguments: the command line after `python -m attn_lightning`.
        log: where its output is added.
        after: names of the jobs that have to succeed first; only engines with `queues` look at it.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A job that runs no more.

    Attributes:
        name: of the job.
        code: exit code of the command, where the engine knows it; never taken for success.
        reason: what the engine knows about an unusual end, such as `killed by SIGSEGV`; empty otherwise.
    """

    name: str
    code: int | None = None
    reason: str = ""


class Engine(Protocol):
    """What all engines can do.

    Attributes:
        queues: it takes all jobs at once and lets each wait for those in `after`; otherwise a job is only handed over
            when those have ended, and when there is room.
        place: where jobs run, for people.
    """

    queues: bool
    place: str

    def has_room(self) -> bool:
        """Whether another job would start now."""

    def submit(self, job: Job) -> None:
        """Take a job over."""

    def ended(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since it was last asked; waits for one, but no longer than this."""

    def stop(self, name: str) -> None:
        """Ask a job to end in order; `ended` tells when it has."""

    def close(self) -> str:
        """End what still runs, as far as it should not outlive this process; what is to be said about the rest."""
