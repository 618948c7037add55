"""Jobs as tasks of a Ray cluster: Ray finds room for them, and starts those of lost workers and nodes once more.

All nodes need the folder of the project and of the runs under the same path, and the same Python packages.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.study.engines import Ended, Job
from attn_lightning.study.engines.local import head

try:
    import ray
except ImportError as error:  # an extra: most users have one machine
    raise ConfigurationError(
        "Expected the package ray for `--on ray`, but it is not installed; run `pip install 'attn-lightning[ray]'`."
    ) from error

_REACH_SECONDS = 5.0
_STOP_SECONDS = 60.0

_HANDED_ON = ("ATTN_LIGHTNING_", "HF_", "WANDB_", "PYTHONPATH")
"""Beginnings of the variables that a job takes from here; all others are those of its node."""


class RayEngine:
    """Runs jobs wherever the cluster has room.

    Args:
        address: `ray://HOST:PORT` of a Ray client server or `HOST:PORT` of a cluster that this machine is part of; None
            joins the cluster of this machine, or starts one.
        num_cpus: cores of a job.
        num_gpus: GPUs of a job, fractions allowed; by default one where the cluster has any.
        retries: new starts of a job whose worker or node was lost.
        jobs: how many at a time; None for as many as there is room for.
        program: module that runs a command, as `python -m` does.

    Raises:
        ConfigurationError: nobody answers at the address.
    """

    queues = False

    def __init__(
        self,
        address: str | None,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        retries: int = 5,
        jobs: int | None = None,
        program: str = "attn_lightning",
    ) -> None:
        if address is not None:
            # Ray itself tries for minutes where nobody answers.
            _check_reachable(address)
        # Ray puts its own handler in the place of ours, which ends what runs in order.
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            said = str(error).strip().splitlines()[-1]
            raise ConfigurationError(
                f"Expected a Ray cluster at {address or 'this machine'}, but got: {said}; look at `ray status`."
            ) from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        gpus = ray.cluster_resources().get("GPU", 0)
        self._task = ray.remote(
            num_cpus=num_cpus,
            num_gpus=min(1, gpus) if num_gpus is None else num_gpus,
            max_retries=retries,
            retry_exceptions=[ChildProcessError],
        )(_runner())
        self.jobs, self.program = jobs, program
        self.place = f"on Ray, {ray.cluster_resources().get('CPU', 0):g} cores and {gpus:g} GPUs"
        self._running: dict[Any, str] = {}

    def has_room(self) -> bool:
        """Ray keeps a queue of its own; only `--jobs` limits it."""
        return self.jobs is None or len(self._running) < self.jobs

    def submit(self, job: Job) -> None:
        """Give a job to Ray."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
        text = head(self.program, job.arguments)
        log = str(job.log.absolute())
        reference = self._task.remote([self.program, *job.arguments], text, log, os.getcwd(), environment)
        self._running[reference] = job.name

    def ended(self, seconds: float) -> list[Ended]:
        """Wait for the first to end, but no longer than this."""
        if not self._running:
            time.sleep(min(seconds, 1.0))
            return []
        waiting = list(self._running)
        # First wait for one, then take all that have ended by then.
        ready, _ = ray.wait(waiting, num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return [self._result(reference) for reference in ready]

    def _result(self, reference: Any) -> Ended:
        name = self._running.pop(reference)
        try:
            return Ended(name, ray.get(reference))
        except ray.exceptions.TaskCancelledError:
            return Ended(name, reason="stopped")
        except ray.exceptions.RayError as error:
            return Ended(name, reason=str(error).strip().splitlines()[-1])

    def stop(self, name: str) -> None:
        """Cancel a job; its command is sent SIGTERM."""
        for reference, running in self._running.items():
            if running == name:
                ray.cancel(reference)

    def close(self) -> str:
        """Cancel what runs, wait until it has ended in order, and leave the cluster."""
        for reference in self._running:
            ray.cancel(reference)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOP_SECONDS)
        ray.shutdown()
        return ""


def _check_reachable(address: str) -> None:
    """Ray tries for half a minute and longer, and says a page about it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigurationError(f"Expected `--on` to be ray://HOST:PORT or HOST:PORT, but got {address!r}.")
    try:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"Expected a Ray cluster at {host}:{port}, but nobody answers there ({one_line(error)}); start it with "
            "`ray start --head`, or leave the address out to run on this machine."
        ) from None


def _runner() -> Callable[[Sequence[str], str, str, str, Mapping[str, str]], int]:
    """The task. Made inside a function, so that it is sent as it is and a worker need not import this package."""

    def run(arguments: Sequence[str], head: str, log: str, folder: str, environment: Mapping[str, str]) -> int:
        import os
        import subprocess
        import sys
        import time

        with open(log, "ab") as file:
            file.write(head.encode())
            file.flush()
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # A group of its own, so that a signal to the worker does not reach the run before it can be ended in
                # order.
                start_new_session=True,
            )
        try:
            # Ray interrupts the interpreter, which does not end a call of the system that waits.
            while process.poll() is None:
                time.sleep(0.2)
        except BaseException:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        if process.returncode < 0:
            # Of this kind of error alone Ray tries again.
            raise ChildProcessError(f"killed by signal {-process.returncode}")
        return process.returncode

    # The name of this module would make the worker look for it.
    run.__module__ = "__main__"
    return run
