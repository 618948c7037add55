"""Texts, every third without a rationale, and a small model that the tests of explainers share."""

import numpy as np
import torch
from torch import nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.transformer import Transformer
from attn_lightning.evaluation.subject import Subject
from attn_lightning.types import Batch, DataSpec

ENCODERS = {"lstm": BiLSTM, "cnn": CNN, "average": Average}
LENGTHS = (5, 1, 7, 3, 7, 2)


class Texts:
    """A split in memory, every third text without a rationale."""

    def __init__(self, lengths=LENGTHS, has_rationales=True, order=None):
        generator = torch.Generator().manual_seed(0)
        texts = [torch.randint(2, 20, (length,), generator=generator) for length in lengths]
        self.order = list(range(len(lengths))) if order is None else list(order)
        self.texts = [texts[row] for row in self.order]
        self.lengths = np.array(lengths)[self.order]
        self.has_rationales = has_rationales

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, rows):
        tokens = nn.utils.rnn.pad_sequence([self.texts[row] for row in rows], batch_first=True)
        originals = torch.tensor([self.order[row] for row in rows])
        marks = {}
        if self.has_rationales:
            has = originals % 3 != 0
            marks = {"rationale": (tokens % 2 == 1) & has.unsqueeze(1), "has_rationale": has}
        return Batch(tokens, tokens > 0, originals % 3 - 1, torch.tensor(rows), **marks)


def small_model(encoder="lstm"):
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(3, 20, 6, ("no", "maybe", "yes")), encoder=ENCODERS.get(encoder, Transformer))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def subject(encoder="lstm", texts=None, **options):
    return Subject(small_model(encoder), texts or Texts(), 3, erased=1, **options)


def alone(examined, row):
    """The output for one text without padding."""
    tokens = examined.examples.texts[row].unsqueeze(0)
    with torch.no_grad():
        return examined.model(tokens, torch.ones_like(tokens, dtype=torch.bool))
