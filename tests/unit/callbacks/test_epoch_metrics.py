"""What is of an epoch and what Lightning still has of an earlier one."""

import lightning as L
import torch

from attn_lightning.callbacks.epoch_metrics import EpochMetrics
from attn_lightning.module import AttentionModule
from support.training import fit, planted


def test_validated_values_are_of_the_epoch_that_measured_them():
    metrics, accuracy = EpochMetrics(), torch.tensor(0.5)
    assert set(metrics.of({"train/loss": accuracy, "val/accuracy": accuracy})) == {"train/loss", "val/accuracy"}
    assert set(metrics.of({"train/loss": accuracy, "val/accuracy": accuracy})) == {"train/loss"}
    assert set(metrics.of({"val/accuracy": accuracy.clone()})) == {"val/accuracy"}, "the same value, measured again"


class Sometimes(L.Callback):
    """Logs in every second validation, and keeps what is said of each epoch."""

    def __init__(self):
        self.metrics, self.epochs, self.validations = EpochMetrics(), [], 0

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validations += 1
        if self.validations % 2 == 0:
            pl_module.log("val/sometimes", 1.0)

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({name for name in self.metrics.of(trainer.callback_metrics) if name.startswith("val/")})


def test_lightning_renews_every_value_that_is_logged_again():
    """Also values that do not change, as those of a model that learns nothing; and a validation within an epoch."""
    every_epoch, every_fourth_step = Sometimes(), Sometimes()
    options = {"max_epochs": 4, "limit_val_batches": 1}
    fit(AttentionModule(), planted(), every_epoch, **options)
    assert ["val/accuracy" in epoch for epoch in every_epoch.epochs] == [True] * 4
    assert ["val/sometimes" in epoch for epoch in every_epoch.epochs] == [False, True, False, True]
    fit(AttentionModule(), planted(), every_fourth_step, check_val_every_n_epoch=None, val_check_interval=4, **options)
    assert ["val/accuracy" in epoch for epoch in every_fourth_step.epochs] == [False, True, True, True]
