"""Small models and texts that the tests of attention tests share."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck, NoiseGate
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.normalizers import Sparsemax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.evaluation.diagnostic import uniform_weights
from attn_lightning.evaluation.subject import Ragged, Split, Subject
from attn_lightning.types import AttentionOutput, Batch, DataSpec

VOCABULARY = 30
LENGTHS = (5, 1, 7, 3, 2, 7, 4, 1, 6)


class Documents:
    """Random words in memory."""

    def __init__(self, lengths=LENGTHS, num_classes=2, seed=0, tokens=None, labels=None):
        generator = np.random.default_rng(seed)
        self.lengths = np.asarray(lengths)
        self.tokens = tokens or [generator.integers(1, VOCABULARY, n) for n in self.lengths]
        self.labels = generator.integers(0, num_classes, len(lengths)) if labels is None else np.asarray(labels)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows):
        lengths = self.lengths[rows]
        tokens = np.zeros((len(rows), lengths.max(), *self.tokens[0].shape[1:]), self.tokens[0].dtype)
        for line, row in zip(tokens, rows, strict=True):
            line[: self.lengths[row]] = self.tokens[row]
        mask = np.arange(lengths.max()) < lengths[:, None]
        parts = (tokens, mask, self.labels[rows], np.asarray(rows))
        return Batch(*(torch.from_numpy(part) for part in parts))


class OwnBackbone(Backbone):
    """A head that is not linear in the weights."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 6)
        self.scorer = nn.Linear(6, 1)
        self.layer = nn.Linear(6, 5)
        self.classifier = nn.Linear(5, num_classes)

    def embed(self, tokens):
        return self.words(tokens)

    def encode(self, embeddings, mask):
        return embeddings.masked_fill(~mask.unsqueeze(-1), 0.0)

    def score(self, hidden, mask):
        return self.scorer(hidden).squeeze(-1)

    def attend(self, hidden, scores, mask, attention=None):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.classifier(self.layer(context).tanh()), weights, scores, hidden, context, mask)


class OtherHead(AttentionClassifier):
    """Known by its classifier, but with a head of its own."""

    def attend(self, hidden, scores, mask, attention=None):
        output = super().attend(hidden, scores, mask, attention)
        return replace(output, logits=output.logits.square())


def small_model(num_classes=2, encoder=BiLSTM, kind=AttentionClassifier, seed=0, **options):
    torch.manual_seed(seed)
    spec = DataSpec(num_classes, VOCABULARY, 6, tuple(f"class {c}" for c in range(num_classes)))
    model = kind(spec, encoder=encoder, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def own_model(num_classes=2):
    torch.manual_seed(0)
    return OwnBackbone(num_classes).eval()


MODELS = {
    "two classes": small_model,
    "three classes": lambda: small_model(3),
    "sparse": lambda: small_model(3, normalizer=Sparsemax),
    "noise gate": lambda: small_model(3, kind=BottleneckClassifier, compressor=NoiseGate),
    "gaussian": lambda: small_model(3, kind=BottleneckClassifier, compressor=GaussianBottleneck),
    "own head": lambda: small_model(3, kind=OtherHead),
    "own backbone": own_model,
}


def passed(model, lengths=LENGTHS, seed=0):
    batch = Documents(lengths, seed=seed)[list(range(len(lengths)))]
    with torch.no_grad():
        return batch, model(batch.tokens, batch.mask)


def subject_of(model, examples=None, **options):
    return Subject(model, examples or Documents(), options.pop("num_classes", 2), **options)


def marked_texts(count, seed):
    """Texts with one word for each class among others: which of them counts is known to the weights only."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    tokens, weights = [], []
    for label in labels:
        text = np.concatenate([[1, 2], generator.integers(3, VOCABULARY, 4)])
        generator.shuffle(text)
        tokens.append(text)
        weights.append((text == label + 1).astype(np.float32))
    lengths = np.full(count, 6)
    documents = Documents(lengths, tokens=tokens, labels=labels)
    guides = {"marks": Ragged(np.concatenate(weights), lengths), "uniform": uniform_weights(lengths)}
    return Split(documents, labels, guides, VOCABULARY - 1)
