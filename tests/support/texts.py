"""A split in memory and a small model, for tests that explain or erase."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.types import Batch, DataSpec


class Texts:
    """Texts of word ids in random access, all of class 0."""

    def __init__(self, texts: Iterable[Sequence[int] | Tensor]) -> None:
        self.texts = [torch.as_tensor(text) for text in texts]
        self.lengths = np.array([len(text) for text in self.texts])

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        tokens = nn.utils.rnn.pad_sequence([self.texts[row] for row in rows], batch_first=True)
        return Batch(tokens, tokens > 0, torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows))


def random_texts(lengths: Sequence[int], seed: int = 0, least: int = 2) -> Texts:
    """Words from `least` to 19."""
    generator = torch.Generator().manual_seed(seed)
    return Texts([torch.randint(least, 20, (length,), generator=generator) for length in lengths])


def small_model(encoder: type[nn.Module] = BiLSTM, num_classes: int = 3) -> AttentionClassifier:
    """Weights are larger than at the start of a training, so that every token matters."""
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(num_classes, 20, 6, ("class",) * num_classes), encoder=encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight.mul_(3)
    return model.eval()
