"""Jobs on this machine, each in a process of its own that has torch and Lightning imported before it begins.

A server (`multiprocessing`'s forkserver) imports everything once. Every job is a fresh fork of it: nothing of one job
can reach the next, and none pays for the imports, which take longer than a small run. The server never computes
anything, because threads and devices do not survive a fork.
"""

import atexit
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import TextIO

from attn_lightning.study.engines import Ended, Job

WARM = ("attn_lightning.commands.warm",)
"""Modules that the server imports."""

_THREADS = "OMP_NUM_THREADS"
_STOP_SECONDS = 30.0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Runs some jobs at a time and shares the cores out among them.

    A job that crashes, or that the system kills, takes no other with it. One that runs when this process is killed goes
    on and keeps its claim.

    Args:
        jobs: how many at a time; each may use its share of the cores, unless `OMP_NUM_THREADS` says otherwise.
        program: module that runs a command, as `python -m` does.
        preload: what the server imports.
    """

    queues = False

    def __init__(self, jobs: int, program: str = "attn_lightning", preload: Sequence[str] = WARM) -> None:
        self.jobs, self.program = jobs, program
        self.place = f"{jobs} at a time"
        # A server that has imported torch once forks in milliseconds; a fresh interpreter takes seconds per cell.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._running: dict[str, ForkServerProcess] = {}
        self._stopped: dict[str, float] = {}

    @property
    def threads(self) -> str:
        """Threads of a job."""
        return os.environ.get(_THREADS) or str(max(1, cores() // self.jobs))

    def warm_up(self) -> None:
        """Let the server begin its imports now, beside whatever this process does before the first job."""
        before = os.environ.get(_THREADS)
        # The libraries of numpy read it once, when they are loaded.
        os.environ[_THREADS] = self.threads
        try:
            ensure_running()
        finally:
            if before is None:
                del os.environ[_THREADS]

    def has_room(self) -> bool:
        """Whether fewer jobs run than may."""
        return len(self._running) < self.jobs

    def submit(self, job: Job) -> None:
        """Start a job."""
        self.warm_up()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, _THREADS: self.threads}
        process = self._context.Process(
            target=_work, args=(self.program, job.arguments, str(job.log), os.getcwd(), environment), name=job.name
        )
        process.start()
        self._running[job.name] = process

    def ended(self, seconds: float) -> list[Ended]:
        """Wait for the first to end, but no longer than this."""
        if self._stopped:
            # A job that does not listen is killed when its time is up, whatever else happens.
            seconds = min(seconds, max(0.0, min(self._stopped.values()) - time.monotonic()))
        # Wakes at the first that ends, without looking at all of them again and again.
        connection.wait([process.sentinel for process in self._running.values()], seconds)
        for name, deadline in self._stopped.items():
            if time.monotonic() > deadline:
                _signal(self._running[name], signal.SIGKILL)
        over = [name for name, process in self._running.items() if not process.is_alive()]
        return [self._reap(name) for name in over]

    def _reap(self, name: str) -> Ended:
        process = self._running.pop(name)
        self._stopped.pop(name, None)
        process.join()
        code = process.exitcode or 0
        process.close()
        return Ended(name, code, f"killed by {signal.Signals(-code).name}" if code < 0 else "")

    def stop(self, name: str) -> None:
        """Send SIGTERM, which every command ends in order for."""
        if name in self._running and name not in self._stopped:
            self._stopped[name] = time.monotonic() + _STOP_SECONDS
            _signal(self._running[name], signal.SIGTERM)

    def close(self) -> str:
        """Interrupt what runs, so that it records that, and kill what does not end in time."""
        for process in self._running.values():
            # As Ctrl-C, so that runs save and record that they were interrupted, before SIGKILL after a while.
            _signal(process, signal.SIGINT)
        deadline = time.monotonic() + _STOP_SECONDS
        try:
            while (alive := [p for p in self._running.values() if p.is_alive()]) and time.monotonic() < deadline:
                connection.wait([process.sentinel for process in alive], deadline - time.monotonic())
        finally:
            for name, process in list(self._running.items()):
                _signal(process, signal.SIGKILL)
                self._reap(name)
        return ""


def _signal(process: ForkServerProcess, number: int) -> None:
    """Send a signal to a job and to all that it has started."""
    if process.is_alive() and process.pid is not None:
        with suppress(ProcessLookupError):
            # The whole group: a cell may have started processes of its own, which would go on without it.
            os.killpg(process.pid, number)


def _work(program: str, arguments: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> None:
    """Run a command in this process, which was forked for it, as if a shell had started it."""
    # A session of its own: Ctrl-C reaches the study alone, which then stops its jobs in order.
    os.setsid()
    # Where a shell ignores Ctrl-C for what it runs in the background, this has to hear it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    write_to_log(Path(log), head(program, arguments))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(int(environment[_THREADS]))
    try:
        run_as_program(program, arguments)
    finally:
        # A forked process skips what others do at their end, such as removing temporary folders.
        atexit._run_exitfuncs()


def head(program: str, arguments: Sequence[str]) -> str:
    """The line of a log above the output of a command."""
    return f"$ {shlex.join(['python', '-m', program, *arguments])}\n"


def run_as_program(program: str, arguments: Sequence[str]) -> None:
    """Do in this process what `python -m` does.

    Under the name of a program, so that Lightning can start the other processes of a job with the same command.
    """
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


def write_to_log(log: Path, head: str) -> None:
    """Add all that this process and its children say from now on to a file, and give it no input."""
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, head.encode())
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(file)
    sys.stdout, sys.stderr = _stream(1), _stream(2)


def _stream(descriptor: int) -> TextIO:
    """Text for a log that somebody may be following: line by line."""
    return open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
