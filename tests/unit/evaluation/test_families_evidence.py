"""The families that need rationales, against plain loops over the documents."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.families.plausibility import Plausibility
from attn_lightning.evaluation.families.selective import Selective
from attn_lightning.evaluation.family import Family
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.types import Batch

FAMILIES = (Plausibility, Selective)


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


@pytest.mark.parametrize("name", ["attention", "signed", "rationale"])
def test_plausibility_equals_a_loop(name):
    subject, explained = question()
    documents = subject.examples
    rows = run(Plausibility(), subject, explained)
    k = round(np.mean([r.sum() for r in documents.rationales if r.any()]))
    counted, two_classes, token_f1, hits = 0, [], [], []
    for _, scores, rationale in judged(documents, explained, name):
        marked, chosen = set(np.flatnonzero(rationale)), best(scores, k)
        token_f1.append(2 * len(marked & chosen) / (len(marked) + len(chosen)))
        hits.append(rationale[scores.argmax()])
        counted += 1
        if not rationale.all():
            two_classes.append((rationale, scores))
    assert rows[name, "k"].value == k > 1
    for metric, values in (
        ("average_precision", [average_precision_score(*pair) for pair in two_classes]),
        ("roc_auc", [roc_auc_score(*pair) for pair in two_classes]),
        ("token_f1", token_f1),
        ("top_1_hit", hits),
    ):
        row = rows[name, metric]
        assert row.value == pytest.approx(np.mean(values), abs=1e-9)
        assert row.std == pytest.approx(np.std(values), abs=1e-9)
        assert (row.n_valid, row.n) == (len(values), len(documents))
    for metric in ("token_f1_micro", "iou_f1", "iou_f1_micro"):
        assert 0 < rows[name, metric].value <= 1
        assert rows[name, metric].std is None
        assert rows[name, metric].n_valid == counted


def test_the_gold_rationale_is_perfect_at_its_own_length():
    documents = Documents()
    for rationale in documents.rationales[3:]:
        rationale[:] = np.arange(len(rationale)) < 2
    documents.lengths[3:] = [len(rationale) for rationale in documents.rationales[3:]]
    subject, explained = question(documents)
    rows = run(Plausibility(k=2), subject, replace(explained, labels=documents.labels))
    kept = [rationale for rationale in documents.rationales if rationale.any()]
    for metric in ("auprc", "average_precision", "roc_auc", "rationale_mass", "top_1_hit"):
        assert rows["rationale", metric].value == 1
    # Only row 1, marked as a whole, has more or fewer marks than 2 (documents of one token have 1 of 1).
    longest = len(documents.rationales[1])
    expected = (sum(1 for _ in kept) - 1 + 2 * 2 / (2 + longest)) / len(kept)
    assert rows["rationale", "token_f1"].value == pytest.approx(expected)


def test_signed_scores_have_ranks_but_no_mass():
    rows = run(Plausibility(), *question())
    assert rows["signed", "rationale_mass"].n_valid < rows["signed", "top_1_hit"].n_valid
    only_negative = question()[1].explanations["signed"]
    only_negative.values[:] = -np.abs(only_negative.values)
    subject, explained = question()
    rows = run(Plausibility(), subject, replace(explained, explanations={"signed": only_negative}))
    mass = rows["signed", "rationale_mass"]
    assert (mass.value, mass.std, mass.n_valid) == (None, None, 0)


@pytest.mark.parametrize("name", ["attention", "signed", "rationale"])
def test_selective_equals_a_loop(name):
    subject, explained = question()
    documents = subject.examples
    rows = run(Selective(), subject, explained)
    counts = dict.fromkeys(("ftpt", "ffpt", "ftpf", "ffpf"), 0)
    dominant, weights = 0, []
    for row, scores, rationale in judged(documents, explained, name):
        if documents.labels[row] == -1:
            continue
        focus = "ft" if rationale[scores.argmax()] else "ff"
        counts[focus + ("pt" if explained.probabilities[row].argmax() == documents.labels[row] else "pf")] += 1
        if (scores >= 0).all():
            dominant += scores.max() >= 0.5 * scores.sum()
            weights.append(scores[rationale].sum() / scores.sum())
    total, right = sum(counts.values()), counts["ftpt"] + counts["ffpt"]
    assert 25 < total < 37
    for outcome, count in counts.items():
        assert rows[name, outcome].value == pytest.approx(count / total)
        assert rows[name, outcome].n_valid == total
    assert rows[name, "accuracy"].value == pytest.approx(right / total)
    assert rows[name, "interpretability"].value == pytest.approx(counts["ftpt"] / right)
    assert rows[name, "interpretability"].n_valid == right
    assert rows[name, "evidence_weight"].value == pytest.approx(np.mean(weights), rel=1e-6)
    assert rows[name, "evidence_weight"].n_valid == len(weights) == rows[name, "dominant"].n_valid
    assert rows[name, "dominant"].value == dominant > 0


def test_interpretability_of_a_model_that_is_never_right_has_no_value():
    subject, explained = question()
    wrong = np.eye(2)[1 - explained.labels.clip(0)]
    row = run(Selective(), subject, replace(explained, probabilities=wrong))["attention", "interpretability"]
    assert (row.value, row.n_valid) == (None, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_size_changes_nothing(family: type[Family]):
    expected = run(family(), *question())
    for options in ({"batch_size": 3}, {"batch_size": 7, "token_budget": 20}):
        found = run(family(), *question(**options))
        assert list(found) == list(expected)
        for key, row in found.items():
            assert (row.n_valid, row.n) == (expected[key].n_valid, expected[key].n)
            assert row.value == pytest.approx(expected[key].value, rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_described_in_range_and_the_progress_is_complete(family: type[Family]):
    finished: list[int] = []
    subject, explained = question()
    rows = family().run(subject, explained, finished.append)
    assert sum(finished) == len(subject.examples)
    assert {row.metric for row in rows} == set(family.measures)
    for row in rows:
        measure = family.measures[row.metric]
        assert measure.minimum <= row.value <= measure.maximum
        assert row.n == len(subject.examples)


@pytest.mark.parametrize("family", FAMILIES)
def test_data_without_rationales_is_turned_away(family: type[Family]):
    subject, _ = question(Unmarked())
    assert family().unavailable(subject) == "the data has no rationales"
    assert family().unavailable(question()[0]) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_data_where_no_rationale_is_marked_gives_rows_without_values(family: type[Family]):
    documents = Documents()
    for rationale in documents.rationales:
        rationale[:] = False
    for row in family().run(*question(documents), no_progress):
        assert (row.value, row.n_valid) == (None, 0)


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


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rationale_of_another_length_names_the_row(family: type[Family]):
    documents = TooLong()
    documents.lengths[7], documents.rationales[7] = 3, np.array([True, False, False])
    with pytest.raises(DataFormatError, match=r"rationale of row 7 .* of its 3 tokens"):
        run(family(), *question(documents))
    wide = TooWide()
    longest = int(wide.lengths.argmax())
    with pytest.raises(DataFormatError, match=f"rationale of row {longest} .* but got {wide.lengths.max() + 1} marks"):
        run(family(), *question(wide))


@pytest.mark.parametrize("options", [{"k": 0}, {"threshold": 0.0}, {"threshold": 1.1}])
def test_options_out_of_range(options):
    with pytest.raises(ConfigurationError, match=f"Expected `{next(iter(options))}`"):
        Plausibility(**options)
