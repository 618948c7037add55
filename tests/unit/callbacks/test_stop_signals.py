"""Lightning may not keep the signal that stops a run."""

import signal

import pytest

from attn_lightning.callbacks.stop_signals import StopSignals
from attn_lightning.signals import raise_stopped


@pytest.mark.parametrize("handler", [raise_stopped, signal.SIG_IGN])
def test_the_handler_that_was_there_is_put_back(handler):
    callback, before = StopSignals(), signal.signal(signal.SIGTERM, handler)
    try:
        callback.setup(None, None, "fit")
        for hook in (callback.on_train_start, callback.on_validation_start, callback.on_test_start):
            signal.signal(signal.SIGTERM, lambda number, frame: None)  # as Lightning does
            hook(None, None)
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
