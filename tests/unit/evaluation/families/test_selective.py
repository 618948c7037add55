"""Selective measurements, against plain loops over the documents."""

from dataclasses import replace

import numpy as np
import pytest

from attn_lightning.evaluation.families.selective import Selective
from support.rationales import judged, question, run


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
