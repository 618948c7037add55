"""What the processes of a job say when one of them dies: which it was and why, instead of what the network reports."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.strategies.launchers import subprocess_script
from torch import distributed

from attn_lightning.console import say
from attn_lightning.errors import AttnLightningError, one_line

_LOST = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket timeout|recvValue failed|peer", re.IGNORECASE
)
"""What libraries write when the other end of a connection is gone; none of them says who that was."""

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0
"""Time for the main thread to end by itself, which it does at its next word with the dead process."""


class ProcessLost(AttnLightningError):
    """Another process of the job has ended before its work was done."""


class Watch:
    """Knows the processes that Lightning has started for this one.

    Lightning's own observer kills this process too as soon as one of them has died, without a message and before the
    record of the run could be written.
    """

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._parent = os.getppid()
        self.ended = threading.Event()

    def start(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        """Observe processes, the first of which has rank 1."""
        self._processes = list(processes)
        # A daemon: a thread that waits for others must not keep a process alive that has ended.
        threading.Thread(target=self._observe, daemon=True, name="lost-processes").start()

    def _observe(self) -> None:
        while not self.ended.wait(_POLL_SECONDS):
            if (lost := self._dead()) is None:
                continue
            if not self.ended.wait(_PATIENCE_SECONDS):
                # It waits inside a library for the dead one, where no exception can reach it.
                say(f"error: {lost}", error=True)
                self._kill_others()
                os._exit(1)

    def _dead(self) -> str | None:
        for rank, process in enumerate(self._processes, start=1):
            # Neither None, which runs, nor 0, which has ended as it should.
            if process.poll():
                return _sentence(rank, process.returncode)
        return None

    def _kill_others(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()

    def explained(self, error: BaseException) -> BaseException:
        """The error that names the dead process, where that is the cause; otherwise the same error.

        Args:
            error: that ends the run.
        """
        lost = isinstance(error, RuntimeError) and _LOST.search(str(error))
        if isinstance(error, AttnLightningError) or not lost or not distributed.is_available():
            return error
        found, sentence = self._who()
        # A wrong set-up has the same words in it ("Duplicate GPU detected"), and nobody has ended then.
        return ProcessLost(sentence if found else f"{sentence} What was reported: {one_line(error)}")

    def _who(self) -> tuple[bool, str]:
        """Whether a dead process was found, and the sentence about it or about what is likely."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while self._processes and time.monotonic() < until:
            if (found := self._dead()) is not None:
                self._kill_others()
                return True, found
            time.sleep(_POLL_SECONDS)
        # An orphan gets another parent, which is how a child learns that rank 0, which started it, is gone.
        if os.getppid() != self._parent and "LOCAL_RANK" in os.environ:
            return True, _sentence(0)
        size = int(os.environ.get("WORLD_SIZE") or 0)
        rank = int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)
        # Of two processes the other one; of more nobody can say from here.
        return False, _sentence(1 - rank if size == 2 else None)


def _sentence(rank: int | None, code: int | None = None) -> str:
    who = "one of the other processes" if rank is None else f"the process of rank {rank}"
    if code is None:
        how = "ended or was killed"
    elif code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    else:
        how = f"ended with code {code}, as it says itself"
    return (
        f"Expected all processes of this job to work until its end, but {who} {how}; the run goes on from its last "
        "epoch with `--run.resume=auto`."
    )


@contextmanager
def watched() -> Iterator[Watch]:
    """Let our watch take the place of Lightning's observer in the block."""
    # The one place where Lightning says which processes it has started; it has no setting for what observes them.
    launcher: Any = subprocess_script
    original = launcher._launch_process_observer
    watch = Watch()
    launcher._launch_process_observer = watch.start
    try:
        yield watch
    finally:
        watch.ended.set()
        launcher._launch_process_observer = original
