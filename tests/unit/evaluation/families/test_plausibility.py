"""Plausibility and what all families that need rationales have in common, against plain loops over the documents."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.families.plausibility import Plausibility
from attn_lightning.evaluation.families.selective import Selective
from attn_lightning.evaluation.family import Family
from attn_lightning.evaluation.subject import no_progress
from support.rationales import Documents, TooLong, TooWide, Unmarked, best, judged, question, run

FAMILIES = (Plausibility, Selective)


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
