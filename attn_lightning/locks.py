"""Two studies on one folder never run the same cell: a lock that the system gives back when its holders are dead."""

import fcntl
import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any


class Claim:
    """The right to run a cell, held by this process and by the run it starts, until both have ended.

    An advisory `flock` on a file that stays: it is inherited through `descriptor`, so that a run that outlives its
    study still holds it, and no killed process can leave it behind. Works between machines where the shared file
    system supports `flock` (NFS from version 4 on).

    Args:
        path: the lock file; made if missing.

    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.descriptor)
            raise
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Give the cell back, unless a run that inherited the claim goes on."""
        os.close(self.descriptor)


def owner(path: Path) -> str:
    """Who holds a claim, for people: `process 123 on host since ...`."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']} since {found['started']}"
    except (OSError, ValueError, KeyError):
        return "another process"
