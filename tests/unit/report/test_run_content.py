"""What the page carries of runs."""

import base64
import json
import zlib
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.report.blocks import Blocks
from attn_lightning.report.run_content import LONGEST_HISTORY, Corpora, facts, groups_content, history, run_content
from attn_lightning.report.run_data import read_run


def unpacked(blocks, reference):
    raw = zlib.decompress(base64.b64decode(blocks.contents[reference["block"]]))
    return json.loads(raw) if reference["type"] == "json" else np.frombuffer(raw, f"<{reference['type']}").tolist()


def content_of(run, most=100):
    blocks = Blocks()
    corpora = Corpora(blocks)
    return *run_content(run, blocks, corpora, most), blocks, corpora


def test_facts_say_what_on_what_and_how_long(make_run):
    found = dict(facts(read_run(make_run())))
    assert found["Method"] == "AttentionIVAT(epsilon=1.0)"
    assert found["Documents"] == "train 10, test 3"
    assert found["Time of fitting"] == "2.0 s"
    assert found["Model"] == "Net: encoder BiLSTM"
    assert "Error" not in found
    assert dict(facts(read_run(make_run("b", status="failed", error="oh"))))["Error"] == "oh"


def test_documents_name_their_texts(make_run):
    content, notes, blocks, corpora = content_of(read_run(make_run(texts=("a b", "c d", "a b"))))
    documents = content["documents"]
    (corpus,) = corpora.content()
    texts = unpacked(blocks, corpus["texts"])
    assert [texts[number] for number in unpacked(blocks, documents["texts"])] == ["a b", "c d", "a b"]
    assert unpacked(blocks, documents["texts"]) == [0, 1, 2]
    assert unpacked(blocks, documents["labels"]) == [0, 1, 0]
    assert unpacked(blocks, documents["rationale"]["known"]) == [1, 1, 0]
    assert notes == []


def test_two_runs_share_texts_and_places(make_run):
    blocks = Blocks()
    corpora = Corpora(blocks)
    runs = [read_run(make_run(name, seed=seed)) for seed, name in enumerate(("a_mine", "b_mine"))]
    first, second = (run_content(run, blocks, corpora, 100)[0]["documents"] for run in runs)
    assert first["corpus"] == second["corpus"] == 0
    assert first["texts"] == second["texts"]
    assert first["gaps"] == second["gaps"]
    assert first["explanations"]["attention"] != second["explanations"]["attention"]


def test_a_run_without_predictions_is_a_note(make_run):
    content, notes, *_ = content_of(read_run(make_run(texts=None)))
    assert content["documents"] is None
    assert len(notes) == 1
    assert notes[0].startswith("ivat_mine/v is shown without documents: Expected")


def test_documents_that_were_left_out_are_a_note(make_run):
    _, notes, *_ = content_of(read_run(make_run(texts=[f"text {k}" for k in range(9)])), most=4)
    assert notes == ["ivat_mine/v: 4 of 9 documents, a random choice"]
    content, notes, *_ = content_of(read_run(make_run("b")), most=0)
    assert (content["documents"], notes) == (None, [])


def test_learning_curves_keep_the_last_epoch(make_run):
    rows = [
        {"epoch": k, "val/accuracy": k / 1000, "val/x_std": 1.0, "train/loss": None if k < 500 else 0.5}
        for k in range(730)
    ]
    blocks = Blocks()
    found = unpacked(blocks, history(read_run(make_run(history=rows)), blocks))
    assert len(found["epochs"]) <= LONGEST_HISTORY
    assert found["epochs"][-1] == 730
    assert found["series"]["val/accuracy"][-1] == pytest.approx(0.729)
    assert set(found["series"]) == {"val/accuracy", "train/loss"}
    assert found["series"]["train/loss"][0] is None
    assert history(read_run(make_run("b", history=[])), blocks) is None


@pytest.mark.parametrize("every", [3, 10])
def test_learning_curves_keep_the_validated_epochs(make_run, every):
    """Evenly spaced epochs of a run that validates every tenth one are hardly ever among those."""
    rows = [{"epoch": k, "train/loss": 1.0} for k in range(504)]
    for row in rows[every - 1 :: every]:
        row["val/accuracy"] = 0.5
    rows[29]["val/probed"] = 0.25
    blocks = Blocks()
    found = unpacked(blocks, history(read_run(make_run(history=rows)), blocks))
    assert len(found["epochs"]) <= LONGEST_HISTORY
    assert found["epochs"][-1] == 504
    validated = [epoch for epoch, value in zip(found["epochs"], found["series"]["val/accuracy"], strict=True) if value]
    # All of them, where there is room.
    assert len(validated) >= 50
    assert max(b - a for a, b in pairwise(found["epochs"])) <= 12
    assert 0.25 in found["series"]["val/probed"]


def test_groups_have_the_numbers_of_their_runs(make_run):
    runs = [read_run(make_run(version=f"v{seed}", seed=seed, accuracy=0.7 + seed / 10)) for seed in range(2)]
    (group,) = groups_content({"ivat (2 seeds)": list(enumerate(runs))})
    assert group["runs"] == [0, 1]
    accuracy = group["numbers"][0]
    assert accuracy["metric"] == "test/accuracy"
    assert accuracy["value"] == pytest.approx(0.75)
    assert accuracy["over"] == "seeds"
    json.dumps(group, allow_nan=False)


def test_two_runs_of_pairs_meet_by_both_texts(make_run):
    """The same paragraph stands in several rows, each with a question of its own."""
    blocks = Blocks()
    corpora = Corpora(blocks)
    found = []
    for name, order in (("a_mine", ["who", "where", "when"]), ("b_mine", ["when", "who", "where"])):
        folder = make_run(name, texts=("one text", "one text", "one text"))
        table = pq.read_table(folder / "predictions.parquet")
        asked = [order[row] for row in table.column("row").to_pylist()]
        pq.write_table(table.append_column("question", pa.array(asked)), folder / "predictions.parquet")
        documents = run_content(read_run(folder), blocks, corpora, 100)[0]["documents"]
        found.append(unpacked(blocks, documents["texts"]))
    (corpus,) = corpora.content()
    questions = unpacked(blocks, corpus["questions"])
    assert [[questions[number] for number in numbers] for numbers in found] == [
        ["who", "where", "when"],
        ["when", "who", "where"],
    ]
    assert sorted(found[0]) == sorted(found[1]) == [0, 1, 2]


def test_single_texts_have_no_second_ones(make_run):
    *_, corpora = content_of(read_run(make_run()))
    assert corpora.content()[0]["questions"] is None
