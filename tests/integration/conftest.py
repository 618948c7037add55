"""Fixtures of the tests that run commands."""

import pytest

from attn_lightning.callbacks.run_record import RunRecord


@pytest.fixture
def interrupt(monkeypatch):
    """Raise an exception in the second step of an epoch."""

    def at(epoch: int, exception: type[BaseException]) -> None:
        def stop(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (epoch, 1):
                raise exception

        monkeypatch.setattr(RunRecord, "on_train_batch_start", stop)

    yield at
    monkeypatch.undo()
