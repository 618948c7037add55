"""Two processes never work in one place: a lock that the system gives back when its holders are dead."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems answer that know no `flock`: Lustre without its option, some FUSE, NFS before version 4."""


_POLL_SECONDS = 0.2


class Claim:
    """The right to work in a place, held by this process and by those it starts, until all have ended.

    An advisory `flock` on a file: it is inherited through `descriptor`, so that a run that outlives its study still
    holds it, and no killed process can leave it behind. Works between machines where the shared file system supports
    `flock` (NFS from version 4 on). Elsewhere a marker file beside it stands for the lock, and it is said so; the
    marker of a dead process of this machine is taken over, that of another machine must be removed by hand.

    Args:
        path: the lock file; made if missing.

    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._marker: Path | None = None
        self.descriptor = self._locked()
        # Who holds it, for people: written after the lock is ours, so that it never names a loser.
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, _this_process(), 0)

    def _locked(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                # Without waiting: the caller knows better whether to wait, skip or say who works there.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    os.close(descriptor)
                    raise
                self._mark(error, descriptor)
                return descriptor
            # The holder before us may have removed the file after we had opened it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            os.close(descriptor)

    def _mark(self, error: OSError, descriptor: int) -> None:
        marker = _marker(self.path)
        _say_without_locks(self.path.parent, str(error), marker.name)
        # Twice: once more after the marker of a dead process has been taken away.
        for _ in range(2):
            try:
                # "x" makes the file or fails, in one step, also on file systems without locks.
                with marker.open("xb") as file:
                    file.write(_this_process())
            except FileExistsError:
                if not _is_left_behind(marker):
                    break
                marker.unlink(missing_ok=True)
            else:
                self._marker = marker
                return
        os.close(descriptor)
        raise BlockingIOError(errno.EAGAIN, "held", str(marker))

    def release(self, remove: bool = False) -> None:
        """Give the place back, unless a process that inherited the claim goes on.

        Args:
            remove: take the lock file away too.
        """
        if self._marker is not None:
            self._marker.unlink(missing_ok=True)
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def patient_claim(path: Path) -> Claim:
    """A claim as soon as it can be had, however long another process works there.

    Args:
        path: the lock file; made if missing.
    """
    while True:
        try:
            return Claim(path)
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)


def owner(path: Path) -> str:
    """Who holds a claim, for people: `process 123 on host since ...`."""
    marker = _marker(path)
    found = _read(marker if marker.exists() else path)
    if not {"pid", "host", "started"} <= found.keys():
        return "another process"
    hint = f" (if it has ended, remove {marker})" if marker.exists() else ""
    return f"process {found['pid']} on {found['host']} since {found['started']}{hint}"


def is_held(path: Path) -> bool:
    """Whether anybody holds a claim now; makes no file where there is none."""
    if not path.exists():
        return False
    try:
        Claim(path).release()
    except BlockingIOError:
        return True
    return False


@cache
def _say_without_locks(folder: Path, reason: str, marker: str) -> None:
    """Once per place, as who waits for it asks several times a second."""
    logger.warning("%s: the file system has no locks (%s); %s stands for one", folder, reason, marker)


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _this_process() -> bytes:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}).encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_left_behind(marker: Path) -> bool:
    """Whether the process of a marker ran on this machine and has ended."""
    found = _read(marker)
    # A process number means something on its own machine only.
    if found.get("host") != socket.gethostname() or not isinstance(found.get("pid"), int):
        return False
    try:
        # Signal 0 only asks whether the process is there.
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
