"""Commands in processes that can be killed at any moment and start at once.

A server loads the package once and forks itself for every command, so that a killed attempt costs what the command
costs and not the fifteen seconds of loading torch.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LOADED = ("attn_lightning.commands.fit", "sklearn.linear_model", "sklearn.feature_extraction.text")
"""What the server imports; it must not compute anything, because threads do not survive a fork."""


def run(arguments: Sequence[str], log: Path, variables: dict[str, str]) -> None:
    """Run a command of the package with everything that it says in a file, and end with its exit code."""
    os.environ.update(variables)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from attn_lightning.cli import main

    code = main(list(arguments))
    sys.stdout.flush()
    os._exit(code)


class Server:
    """Forks a process per command.

    Args:
        log: the file where commands say what they say.
        variables: of their environment.
    """

    def __init__(self, log: Path, **variables: str) -> None:
        self.log, self.variables = log, variables
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(LOADED))

    def __call__(self, arguments: Sequence[str], kill_after: float | None = None) -> tuple[int, float]:
        """Run a command to its end, or kill it (SIGKILL) after some seconds.

        Returns:
            Its exit code, -9 if it was killed, and the seconds that it ran.
        """
        process = self._context.Process(target=run, args=(list(arguments), self.log, self.variables))
        process.start()
        started = time.monotonic()
        process.join(kill_after)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return process.exitcode, time.monotonic() - started
