"""Signals that ask a program to stop become an exception with the exit code that a shell expects."""

import os
import signal
import threading

import pytest

from attn_lightning.signals import Stopped, raise_stopped, stopping_raises


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_once_and_everything_is_put_back(number, code):
    # Under `nohup` a closed terminal is ignored from the start, and then it is left alone.
    inherited = signal.signal(number, signal.SIG_DFL)
    before = signal.getsignal(number)

    @stopping_raises()
    def stopped():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # while it ends, a second one is ignored

    with pytest.raises(Stopped, match=signal.Signals(number).name) as caught:
        stopped()
    assert caught.value.exit_code == code
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) == before
    signal.signal(number, inherited)


def test_what_the_handler_switches_off_is_put_back_too():
    @stopping_raises((signal.SIGUSR1,))
    def stopped():
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        stopped()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_switched_off_stays_off():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_raises():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) is raise_stopped
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_change_nothing():
    seen = []

    def work():
        with stopping_raises():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
