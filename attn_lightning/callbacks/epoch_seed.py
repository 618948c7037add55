"""Random numbers that depend on the seed and the epoch alone."""

import hashlib
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class EpochSeed(Callback):
    """Seeds torch anew at the start of every epoch, so that a resumed run draws what the uninterrupted one would have.

    Dropout and the random directions of virtual adversarial training draw from torch's generator, whose state is not
    in a checkpoint. Every process draws its own numbers.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the epoch at its first batch: before it a resumed run draws less, because fewer iterators are made."""
        if batch_idx > 0:
            return
        content = f"{self.seed} {trainer.current_epoch} {trainer.global_rank}"
        digest = hashlib.sha256(content.encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
