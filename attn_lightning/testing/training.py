"""A method in a real training: `Trainer`, module and planted data, on one process and in DDP."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.methods.base import Method
from attn_lightning.module import AttentionModule
from attn_lightning.testing.small import settings_of

Precision = Literal["32-true", "bf16-mixed"]


def train(
    method: Method | None, folder: Path, num_epochs: int = 2, precision: Precision = "32-true", **options: Any
) -> tuple[AttentionModule, Trainer]:
    """Train on a few planted texts, which have rationales.

    Args:
        method: None for the baseline.
        folder: for everything that is written.
        num_epochs: number of epochs.
        precision: of the trainer.
        **options: of the trainer.
    """
    torch.manual_seed(0)
    data = Planted(
        train_documents=32,
        validation_documents=8,
        test_documents=8,
        max_length=18,
        batch_size=8,
        embeddings=RandomEmbeddings(4),
        cache=folder / "cache",
    )
    wanted: Any = AttentionClassifier
    if method is not None and not issubclass(AttentionClassifier, method.requires_backbone):
        wanted = method.requires_backbone
    small = partial(wanted, encoder=Average) if issubclass(wanted, AttentionClassifier) else wanted
    module = AttentionModule(small, num_probe_examples=0)
    trainer = Trainer(
        callbacks=[] if method is None else [method],
        max_epochs=num_epochs,
        accelerator="cpu",
        precision=precision,
        default_root_dir=folder,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, data)
    return module, trainer


def check_training(make: Callable[..., Method], options: Mapping[str, Any] | None = None) -> None:
    """It trains in float32 and in bfloat16: the loss and the weights stay finite.

    Args:
        make: see `check_method`.
        options: of the method.
    """
    settings = settings_of(make)
    for precision in ("32-true", "bf16-mixed"):
        method = make(**{**settings.options, **(options or {})})
        with tempfile.TemporaryDirectory() as folder:
            module, trainer = train(method, Path(folder), settings.num_epochs, precision)
        loss = trainer.callback_metrics["train/loss"]
        sound = bool(torch.isfinite(loss)) and all(bool(torch.isfinite(p).all()) for p in module.parameters())
        if not sound:
            name = type(method).__name__
            raise AssertionError(f"Expected a finite training of {name} in {precision}, but got a loss of {loss}.")
