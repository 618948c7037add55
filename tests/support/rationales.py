"""Documents with rationales, and what the tests of the families that need them share."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.types import Batch


class Documents:
    """Documents of random lengths with a rationale each, but rows 0 (none), 1 (full) and 2 (marked as absent)."""

    def __init__(self, size=40, seed=0):
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(1, 15, size)
        self.rationales = [rng.random(length) < 0.4 for length in self.lengths]
        self.rationales[0][:] = False
        self.rationales[1][:] = True
        self.rationales[2][:] = False
        self.has_rationale = np.arange(size) != 2
        self.labels = rng.integers(0, 2, size)
        self.labels[3] = -1

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        mask = torch.arange(max(self.lengths[rows])) < torch.tensor(self.lengths[rows]).unsqueeze(1)
        rationale = torch.zeros_like(mask)
        for line, row in zip(rationale, rows, strict=True):
            line[: self.lengths[row]] = torch.from_numpy(self.rationales[row])
        return Batch(
            mask.long(),
            mask,
            torch.from_numpy(self.labels[rows]),
            torch.tensor(rows),
            rationale,
            torch.from_numpy(self.has_rationale[rows]),
        )


class Unmarked(Documents):
    def __getitem__(self, rows):
        return super().__getitem__(rows)._replace(rationale=None, has_rationale=None)


def ragged(rows):
    return Ragged(np.concatenate(rows).astype(np.float32), np.array([len(row) for row in rows]))


def question(documents=None, seed=0, **options):
    """a subject and explanations with attention (ties, row 5 not finite), signed scores and the gold rationale."""
    documents = documents or Documents()
    rng = np.random.default_rng(seed)
    attention = [rng.dirichlet(np.full(n, 0.3)).round(2) + 0.01 for n in documents.lengths]
    attention[5][-1] = np.nan
    explanations = {
        "attention": ragged(attention),
        "signed": ragged([rng.normal(size=n) for n in documents.lengths]),
        "rationale": ragged(documents.rationales),
    }
    probabilities = rng.dirichlet(np.ones(2), len(documents))
    explained = Explained(probabilities, documents.labels, explanations)
    return Subject(nn.Identity(), documents, num_classes=2, **options), explained


def run(family, subject, explained, advance=no_progress):
    return {(row.explainer, row.metric): row for row in family.run(subject, explained, advance)}


def judged(documents, explained, name):
    """(row, scores, rationale) of the documents that count."""
    for row, rationale in enumerate(documents.rationales):
        scores = explained.explanations[name][row]
        if rationale.any() and np.isfinite(scores).all():
            yield row, scores, rationale


def best(scores, k):
    order = sorted(range(len(scores)), key=lambda t: (-scores[t], t))[:k]
    return {int(t) for t in order}


class TooLong(Documents):
    """A mark after the end of row 7."""

    def __getitem__(self, rows):
        batch = super().__getitem__(rows)
        if 7 in rows:
            batch.rationale[rows.index(7), self.lengths[7] :] = True
        return batch


class TooWide(Documents):
    """A mark more than the longest text of the batch has tokens."""

    def __getitem__(self, rows):
        batch = super().__getitem__(rows)
        return batch._replace(rationale=torch.nn.functional.pad(batch.rationale, (0, 1)))
