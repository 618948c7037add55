"""Trainings of a second, on planted data and without files."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from attn_lightning.data import Planted, RandomEmbeddings

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Options of a trainer that shows nothing and leaves nothing behind."""


def planted(**options: Any) -> Planted:
    """A few planted texts; the last batch of an epoch is smaller than the others."""
    sizes = {"train_documents": 41, "validation_documents": 16, "test_documents": 16, "max_length": 20}
    loaders = {"batch_size": 16, "eval_batch_size": 6, "embeddings": RandomEmbeddings(8)}
    return Planted(**{**sizes, **loaders, **options})


def fit(module: LightningModule, data: Any, *callbacks: Callback, **options: Any) -> Trainer:
    """One epoch, unless the options say otherwise, always from the same random numbers."""
    torch.manual_seed(0)
    trainer = Trainer(callbacks=list(callbacks), **{"max_epochs": 1, **QUIET, **options})
    trainer.fit(module, data)
    return trainer
