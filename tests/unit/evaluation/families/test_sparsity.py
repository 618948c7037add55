"""Sparsity of explanations and conicity of states over a whole split, against plain loops."""

import numpy as np
import pytest
import torch
from scipy import stats

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.evaluation.families.sparsity import Geometry, Sparsity
from attn_lightning.evaluation.family import MODEL
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.types import DataSpec
from support.texts import random_texts

LENGTHS = np.array([1, 4, 9, 2, 9, 6, 3, 12, 5, 7])


def question(**options):
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, 20, 6, ("a", "b")), encoder=BiLSTM)
    rng = np.random.default_rng(0)
    weights = [rng.dirichlet(np.full(n, 0.3)) for n in LENGTHS]
    weights[3][:] = np.nan
    explanations = {
        "attention": Ragged(np.concatenate(weights).astype(np.float32), LENGTHS),
        "gradient": Ragged(rng.exponential(size=LENGTHS.sum()).astype(np.float32), LENGTHS),
        "signed": Ragged(-np.ones(LENGTHS.sum(), np.float32), LENGTHS),
    }
    explained = Explained(np.full((len(LENGTHS), 2), 0.5), np.zeros(len(LENGTHS), np.int64), explanations)
    return Subject(model, random_texts(LENGTHS.tolist(), least=1), num_classes=2, **options), explained


def test_sparsity_equals_a_loop():
    subject, explained = question()
    rows = {(row.explainer, row.metric): row for row in Sparsity().run(subject, explained, no_progress)}
    for name, skipped in (("attention", {3}), ("gradient", set())):
        shares = [explained.explanations[name][i].astype(float) for i in range(len(LENGTHS)) if i not in skipped]
        shares = [row / row.sum() for row in shares]
        entropies = [stats.entropy(row, base=2) for row in shares]
        assert rows[name, "entropy"].value == pytest.approx(np.mean(entropies))
        assert rows[name, "entropy"].std == pytest.approx(np.std(entropies))
        assert rows[name, "num_above_0.01"].value == pytest.approx(np.mean([(row > 0.01).sum() for row in shares]))
        assert rows[name, "support_size"].n_valid == len(shares)
        assert rows[name, "relative_entropy"].n_valid == len(shares) - 1
        assert rows[name, "gini"].n == len(LENGTHS)
    assert {row.value for key, row in rows.items() if key[0] == "signed"} == {None}


def test_geometry_equals_a_loop_and_leaves_the_mode_alone():
    subject, explained = question()
    subject.model.train()
    rows = Geometry().run(subject, explained, no_progress)
    assert subject.model.training
    subject.model.eval()
    found = []
    with torch.no_grad():
        for words in subject.examples.texts:
            tokens = words[None]
            states = subject.model.encode(subject.model.embed(tokens), tokens != 0)[0]
            if len(states) > 1:
                found.append(torch.cosine_similarity(states, states.mean(0, keepdim=True)))
    assert [(row.metric, row.explainer) for row in rows] == [("conicity", MODEL), ("absolute_conicity", MODEL)]
    assert rows[0].value == pytest.approx(np.mean([cosines.mean() for cosines in found]), abs=1e-6)
    assert rows[1].value == pytest.approx(np.mean([cosines.abs().mean() for cosines in found]), abs=1e-6)
    assert {(row.n_valid, row.n) for row in rows} == {(len(LENGTHS) - 1, len(LENGTHS))}


@pytest.mark.parametrize("family", [Sparsity, Geometry])
def test_the_batch_size_changes_nothing_and_the_progress_is_complete(family):
    expected = family().run(*question(), no_progress)
    for options in ({"batch_size": 1}, {"batch_size": 3, "token_budget": 15}):
        finished = []
        rows = family().run(*question(**options), finished.append)
        assert sum(finished) == len(LENGTHS)
        for row, other in zip(rows, expected, strict=True):
            assert (row.metric, row.explainer, row.n_valid) == (other.metric, other.explainer, other.n_valid)
            measure = family.measures[row.metric]
            if other.value is None:
                assert row.value is None
            else:
                assert row.value == pytest.approx(other.value, rel=1e-6)
                assert measure.minimum <= row.value <= measure.maximum
