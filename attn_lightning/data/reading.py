"""What a frozen encoder reads once, before a training."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor, nn

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.data.buckets import length_batches
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.text import PADDING_ID

_TOKENS = 2**14
"""The most tokens of a pass: the attention of a transformer grows with the square of the length."""


def all_texts(data: TextDataModule, together: bool = False) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Ids and masks of every text of every split.

    Args:
        data: after `setup`.
        together: the third of a batch is the mask of the second text of each pair; otherwise it is None, and each
            second text comes as a text of its own.
    """
    for split in data.manifest["splits"]:
        examples = data.examples(split)
        for rows in length_batches(examples.lengths, data.eval_batch_size, _TOKENS):
            batch = examples[rows.tolist()]
            second = ~batch.mask & (batch.tokens != PADDING_ID)
            second[:, second.shape[1] - len(data.tokenizer.candidates) :] = False  # no part of the question
            if together:
                yield batch.tokens, batch.mask, second
                continue
            yield batch.tokens, batch.mask, None
            if data.has_question:
                yield batch.tokens, second, None


def prepare_encoder(model: nn.Module, trainer: Trainer) -> None:
    """Let the encoder of a model read every text once (`Encoder.prepare`); the other processes then find the result.

    Args:
        model: the backbone.
        trainer: whose data module has the texts, and a `digest` that results are kept under; nothing is done without.
    """
    encoder: Any = getattr(model, "encoder", None)
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(encoder, Encoder) or not hasattr(data, "digest"):
        return
    # States of one text alone are not those of a text that reads the other.
    together = bool(getattr(getattr(model, "pair", None), "joint", False))
    name = f"{data.digest}-joint" if together else data.digest
    # In turns: the first process reads and stores, the others find the file instead of doing the same work at once.
    for is_turn in (trainer.is_global_zero, not trainer.is_global_zero):
        if is_turn:
            encoder.prepare(all_texts(data, together), data.cache / "states", name)
        trainer.strategy.barrier()
