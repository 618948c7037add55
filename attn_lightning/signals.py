"""Signals that ask a program to stop, turned into an exception, so that what has begun is ended in order."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)
"""What batch systems, service managers and closed terminals send."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; handled like Ctrl-C, but with an exit code of its own.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell reports of a process that a signal ended: 143 for SIGTERM."""
        return 128 + self.number


def raise_stopped(number: int, _frame: FrameType | None) -> None:
    """Signal handler: raises once; what the same signals say while the program is ending is ignored."""
    # A batch system repeats its signal: a second exception in the middle of the clean-up would leave half of it undone.
    for other in (*STOPPING, number):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


@contextmanager
def stopping_raises(numbers: Sequence[int] = STOPPING) -> Iterator[None]:
    """Let signals raise `Stopped` in the block; what `nohup` or `&` has switched off stays off.

    Only the main thread of a program may set handlers; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # All that the handler switches off is put back, whichever of them it was called for.
    before = {number: signal.getsignal(number) for number in (*STOPPING, *numbers)}
    # `nohup` works by ignoring SIGHUP before the program starts; a handler of ours would undo that.
    active = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in active:
        signal.signal(number, raise_stopped)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
