"""Small models, texts and steps that tests of methods and perturbations share."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average, BiLSTM
from attn_lightning.backbone.normalizers import Softmax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec
from support.training import QUIET, planted

per_example = partial(F.cross_entropy, reduction="none")

VOCABULARY = 40


def strengthened(model: AttentionClassifier) -> AttentionClassifier:
    """The model with weights three times as large, so that a perturbation of length 1 matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def recurrent_model(**options: Any) -> AttentionClassifier:
    """Two classes, weights drawn from the current random numbers."""
    spec = DataSpec(2, VOCABULARY, 5, ("a", "b"))
    return strengthened(AttentionClassifier(spec, **{"encoder": partial(BiLSTM, hidden_size=3), **options}))


def random_step(model: Backbone, mask: Tensor) -> TrainStep:
    """A step on random words at the places of the mask, with labels of both classes."""
    tokens = torch.randint(2, VOCABULARY, mask.shape) * mask
    batch = Batch(tokens, mask, torch.tensor([0, 1, 1, 0]), torch.arange(len(mask)))
    return TrainStep(model, batch, model(tokens, mask), per_example, 0.0)


def constant_step(mask: Tensor, tokens: int = 1, labels: tuple[int, ...] = (0, 1, 1)) -> TrainStep:
    """A step of an averaging model on texts of one and the same word."""
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, 10, 4, ("a", "b")), encoder=Average)
    batch = Batch(mask * tokens, mask, torch.tensor(labels), torch.tensor([4, 0, 2]))
    return TrainStep(model, batch, model(batch.tokens, batch.mask), per_example, progress=0.0)


def averaging_fit(
    folder: Path, *callbacks: Callback, max_epochs: int, resume: Path | None = None, **options: Any
) -> AttentionModule:
    """Train an averaging model on 48 planted texts; checkpoints only where a callback writes them.

    Args:
        folder: for the prepared data and for checkpoints.
        *callbacks: methods and others.
        max_epochs: epochs.
        resume: a checkpoint to go on from.
        **options: of the data, and `encoder`.
    """
    torch.manual_seed(0)
    encoder = options.pop("encoder", Average)
    data = planted(**{"train_documents": 48, "max_length": 40, "cache": folder / "cache", **options})
    module = AttentionModule(lambda spec: AttentionClassifier(spec, encoder=encoder), num_probe_examples=0)
    writes = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = Trainer(
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        default_root_dir=folder,
        use_distributed_sampler=False,
        **{**QUIET, "enable_checkpointing": writes},
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return module


def recurrent_classifier(encoder: Any = None, num_classes: int = 3, normalizer: Any = Softmax) -> AttentionClassifier:
    """A model in eval mode, always with the same weights."""
    torch.manual_seed(0)
    spec = DataSpec(num_classes, 20, 6, tuple(f"class {c}" for c in range(num_classes)))
    encoder = encoder or partial(BiLSTM, hidden_size=8)
    return strengthened(AttentionClassifier(spec, encoder=encoder, normalizer=normalizer)).eval()


def random_texts(lengths: tuple[int, ...], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Tokens and mask of texts of these lengths, for `recurrent_classifier`."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return torch.randint(2, 20, mask.shape, generator=generator).masked_fill(~mask, 0), mask
