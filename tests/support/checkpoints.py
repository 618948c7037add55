"""Checkpoints of models that were not trained, saved as Lightning does."""

from pathlib import Path

import pytest
import torch

from attn_lightning.data.text import TextTokenizer
from attn_lightning.evaluation.prediction import Prediction
from attn_lightning.module import AttentionModule
from attn_lightning.types import DataSpec

LABELS = ("bad", "fair", "very good")


def save(tokenizer: TextTokenizer, folder: Path) -> Path:
    """A model of three classes that was not trained, saved as Lightning does."""
    torch.manual_seed(0)
    module = AttentionModule()
    module.build(DataSpec(3, len(tokenizer), 8, LABELS))
    module.tokenizer_state = tokenizer.to_str()
    contents = {
        "state_dict": module.state_dict(),
        "hyper_parameters": {},
        "pytorch-lightning_version": "2.6.0",
        "epoch": 0,
        "global_step": 0,
        "loops": {},
    }
    module.on_save_checkpoint(contents)
    path = folder / "best.ckpt"
    torch.save(contents, path)
    return path


def check(answer: Prediction) -> None:
    """What holds of every prediction of such a model."""
    assert answer.label in LABELS
    assert sum(answer.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert answer.probability == max(answer.probabilities.values()) == answer.probabilities[answer.label]
    assert sum(answer.attention) == pytest.approx(1, abs=1e-5)
    counts = {len(answer.words), len(answer.start), len(answer.end), len(answer.attention), len(answer.unknown)}
    assert len(counts) == 1
    pieces = [answer.text[start:end] for start, end in zip(answer.start, answer.end, strict=True)]
    assert pieces == answer.words
