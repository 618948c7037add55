"""Keeps the signal that stops a run in our hands while Lightning runs."""

import signal
import threading

from lightning.pytorch import Callback, LightningModule, Trainer


class StopSignals(Callback):
    """Puts the handler of SIGTERM back after Lightning has installed its own.

    Lightning's waits for the end of a batch, ends with exit code 0, and sends a message to the other processes in the
    middle of whatever they do. Ours raises at once: all that a run needs to go on is on the disk already.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the handler; Lightning installs its own after this."""
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handler)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it back."""
        self.on_train_start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it back."""
        self.on_train_start(trainer, pl_module)
