"""Is attention worth something without its encoder? A model of single tokens, guided by attention that is given.

The test of Wiegreffe and Pinter 2019, section 3.4 (https://aclanthology.org/D19-1002): token-level models that differ
in nothing but the weights they are given. Weights that say which words matter make such a model better than uniform
ones do.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.random_attention import random_soft_attention
from attn_lightning.backbone.scorers import AdditiveScorer
from attn_lightning.data.buckets import LengthBatches, Rows
from attn_lightning.evaluation.subject import Examples, ProgressCallback, Ragged, Split, Subject, on_device
from attn_lightning.metrics.prediction import prediction_metrics
from attn_lightning.numerics import masked_softmax
from attn_lightning.types import UNLABELED, Batch


@dataclass(frozen=True)
class Recipe:
    """How a guided model is trained; the same for all that are compared.

    Attributes:
        num_epochs: the most epochs.
        num_steps: the most steps; long training splits reach them before the epochs are over.
        batch_size: examples per step; independent of the memory, which `Subject.token_budget` bounds.
        learning_rate: of Adam.
        embedding_size: of the word vectors, which start from zero.
        hidden_size: of the layer per token.
    """

    num_epochs: int = 5
    num_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 0.005
    embedding_size: int = 64
    hidden_size: int = 128


def random_weights(lengths: Rows, generator: torch.Generator) -> Ragged:
    """Weights drawn uniformly from all attention a text can get; see `random_soft_attention`."""
    weights = Ragged.empty(lengths)
    for row, length in enumerate(weights.lengths):
        weights[row][:] = random_soft_attention(torch.ones(1, int(length), dtype=torch.bool), generator)[0].numpy()
    return weights


def uniform_weights(lengths: Rows) -> Ragged:
    """`1 / n` for every token."""
    lengths = np.asarray(lengths, np.int64)
    return Ragged(np.repeat(1 / lengths, lengths).astype(np.float32), lengths)


class GuidedModel(nn.Module):
    """`logits = W sum_t a_t tanh(U x_t + u) + b`: every token is read alone, and the weights a are given.

    Args:
        num_classes: C.
        vocabulary_size: rows of its own word vectors, which start from zero; 0 for segments that are not words.
        segment_size: entries of a segment that is not a word.
        recipe: sizes.
        learns_weights: whether it has a scorer of its own for where no weights are given.
    """

    def __init__(
        self, num_classes: int, vocabulary_size: int, segment_size: int, recipe: Recipe, learns_weights: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, recipe.embedding_size) if vocabulary_size else None
        if self.embedding is not None:
            # From zero: a word that training never saw then has no say, whatever the draws.
            nn.init.zeros_(self.embedding.weight)
        self.hidden = nn.Linear(recipe.embedding_size if vocabulary_size else segment_size, recipe.hidden_size)
        self.classifier = nn.Linear(recipe.hidden_size, num_classes)
        self.scorer = AdditiveScorer(recipe.hidden_size) if learns_weights else None

    def forward(self, tokens: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
        """(B, C) logits.

        Args:
            tokens: (B, T) word ids, of which those beyond the vocabulary are taken as padding is, or (B, T, ...).
            mask: (B, T) bool.
            weights: (B, T), 0 at padding; None for those of its own scorer.
        """
        if self.embedding is None:
            inputs = tokens.flatten(2)
        else:
            # Words of the test split may have higher ids than any in training.
            inputs = self.embedding(tokens.where(tokens < self.embedding.num_embeddings, 0))
        hidden = torch.tanh(self.hidden(inputs))
        if weights is None:
            assert self.scorer is not None
            weights = masked_softmax(self.scorer(hidden, mask), mask)
        logits: Tensor = self.classifier(torch.bmm(weights.unsqueeze(1), hidden).squeeze(1))
        return logits


def steps_of(examples: Examples, recipe: Recipe) -> int:
    """How many steps a guided model is trained for on a split."""
    return min(recipe.num_steps, recipe.num_epochs * math.ceil(len(examples) / recipe.batch_size))


def guided_metrics(
    subject: Subject, train: Split, test: Split, guide: str | None, recipe: Recipe, advance: ProgressCallback
) -> dict[str, float]:
    """Train a guided model on one split and measure it on another.

    The start and the order of the examples depend on the seed alone, so they are the same for every guide. Nothing
    is taken from the examined model but its attention.

    Args:
        subject: classes, seed, token budget and device.
        train: to learn from; unlabelled examples are left out.
        test: to measure on; unlabelled examples are left out.
        guide: whose weights; None for weights that the guided model learns itself.
        recipe: of the training.
        advance: told of every example that a step or the measurement has used.

    Returns:
        `accuracy`, `macro_f1`, `f1` for two classes, and the other metrics of `attn_lightning.metrics.prediction`;
        NaN all of them if a split has no labels.
    """
    rows = np.flatnonzero(train.labels != UNLABELED)
    measured = np.flatnonzero(test.labels != UNLABELED)
    metrics = prediction_metrics(subject.num_classes)
    if not len(rows) or not len(measured):
        return {str(name): math.nan for name in metrics}
    # Forked, so that a run goes on with its own numbers; and called where autograd is off, with which nothing is
    # learned.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(subject.seed)
        segment_size = 0 if train.largest_id >= 0 else train.examples[[0]].tokens[0, 0].numel()
        model = GuidedModel(subject.num_classes, train.largest_id + 1, segment_size, recipe, guide is None)
        model.to(subject.device)
        _fit(model, subject, train, rows, guide, recipe, advance)
    with torch.no_grad():
        lengths = np.asarray(test.examples.lengths)[measured]
        for chosen in LengthBatches(lengths, subject.batch_size, token_budget=subject.token_budget):
            batch, weights = _guided_batch(subject, test, measured[chosen], guide)
            metrics.update(model(batch.tokens, batch.mask, weights).cpu(), batch.labels.cpu())
            advance(len(chosen))
    return {name: float(value) for name, value in metrics.compute().items()}


def _fit(
    model: GuidedModel,
    subject: Subject,
    train: Split,
    rows: Rows,
    guide: str | None,
    recipe: Recipe,
    advance: ProgressCallback,
) -> None:
    lengths = np.asarray(train.examples.lengths)
    # Without the token budget, which cuts a step into pieces only: what is learned must not depend on the memory.
    plan = LengthBatches(lengths[rows], recipe.batch_size, shuffle=True, seed=subject.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, fused=True)
    left = recipe.num_steps
    for epoch in range(recipe.num_epochs):
        plan.set_epoch(epoch)
        for chosen in plan:
            if left == 0:
                return
            left -= 1
            optimizer.zero_grad()
            for part in _pieces(lengths, rows[chosen], subject):
                batch, weights = _guided_batch(subject, train, part, guide)
                logits = model(batch.tokens, batch.mask, weights)
                # Summed over the pieces of a step and divided by its size: the gradient does not depend on the token
                # budget.
                (F.cross_entropy(logits, batch.labels, reduction="sum") / len(chosen)).backward()
            optimizer.step()
            advance(len(chosen))


def _guided_batch(subject: Subject, split: Split, rows: Rows, guide: str | None) -> tuple[Batch, Tensor | None]:
    batch = on_device(split.examples[rows.tolist()], subject.device)
    if guide is None:
        return batch, None
    # As wide as the batch, which is wider than its longest text where second texts stand behind it.
    return batch, torch.from_numpy(split.weights[guide].pad(rows, batch.mask.shape[1])).to(subject.device)


def _pieces(lengths: Rows, rows: Rows, subject: Subject) -> Iterator[Rows]:
    """The rows in parts of at most the token budget."""
    size = max(1, subject.token_budget // int(np.asarray(lengths)[rows].max()))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
