"""The page of one's own texts: what the documents view reads of answers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.prediction import Prediction
from attn_lightning.report.prediction_page import (
    AnsweringModel,
    documents_of,
    prediction_content,
    write_prediction_page,
)


def answer(text, label, chances, truncated=False):
    words = text.split()
    ends = [text.index(word) + len(word) for word in words]
    return Prediction(
        text=text,
        label=label,
        probability=max(chances),
        probabilities=dict(zip(("bad", "good"), chances, strict=True)),
        words=words,
        start=[end - len(word) for end, word in zip(ends, words, strict=True)],
        end=ends,
        attention=[1 / len(words)] * len(words),
        unknown=[False] * len(words),
        truncated=truncated,
    )


def model(label="ivat_mine/v", checkpoint="runs/ivat_mine/v/checkpoints/best.ckpt", truncated=False):
    answers = [answer("a 😀 film", "good", (0.25, 0.75)), answer("dull", "bad", (0.9, 0.1), truncated)]
    return AnsweringModel(label, checkpoint, ("bad", "good"), answers)


def test_answers_become_documents_without_labels():
    found = documents_of(model())
    assert found.labels.tolist() == [-1, -1]
    assert found.predictions.tolist() == [1, 0]
    assert found.lengths.tolist() == [3, 1]
    # An emoji takes two of the units in which browsers count.
    assert found.starts.tolist() == [0, 2, 5, 0]
    assert found.ends.tolist() == [1, 4, 9, 4]
    assert found.explanations["attention"] == pytest.approx([1 / 3] * 3 + [1.0])
    assert found.probabilities == pytest.approx(np.array([[0.25, 0.75], [0.9, 0.1]]))


def test_candidates_of_answers_come_along():
    plain = model()
    assert documents_of(plain).candidates is None
    named = [
        replace(one, candidates=names) for one, names in zip(plain.answers, (["good"], ["bad", "good"]), strict=True)
    ]
    assert documents_of(replace(plain, answers=named)).candidates.tolist() == [[False, True], [True, True]]


def test_models_share_the_texts_and_keep_apart():
    content = prediction_content([model(), model(), model("vanilla_mine/v")], ["a note"])
    assert [run["label"] for run in content["runs"]] == [
        "ivat_mine/v best.ckpt (1)",
        "ivat_mine/v best.ckpt (2)",
        "vanilla_mine/v",
    ]
    assert len(content["corpora"]) == 1
    assert content["notes"] == ["a note"]
    json.dumps(content, allow_nan=False)


def test_truncated_texts_are_said():
    (note,) = prediction_content([model(truncated=True)])["notes"]
    assert note.startswith("ivat_mine/v: 1 texts are longer")


def test_a_page_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="choose another `--html`"):
        write_prediction_page([model()], tmp_path / "file" / "page.html")
