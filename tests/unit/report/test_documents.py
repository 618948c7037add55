"""Documents of a run: order, offsets as browsers count them, explanations and rationales."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.errors import DataFormatError
from attn_lightning.report.documents import read_documents
from attn_lightning.report.run_data import read_run

EMOJI = ("so 😂😂 good", "\u05e9\u05dc\u05d5\u05dd 👩\u200d👩 ok")


def utf16(text: str, start: int, end: int) -> str:
    """What JavaScript's `text.slice(start, end)` gives."""
    return text.encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le")


def test_documents_are_in_the_order_of_the_split(make_run):
    found = read_documents(read_run(make_run()), 100)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.texts == ["a dull film", "what a fine film", "fine"]
    assert found.lengths.tolist() == [3, 4, 1]
    assert found.labels.tolist() == [0, 1, 0]
    assert list(found.explanations) == ["attention", "gradient", "hidden"]
    assert found.explanations["attention"][:3].sum() == pytest.approx(1, abs=1e-6)
    assert found.rationale.tolist() == [True, False, False, True, False, False, False, False]
    assert found.has_rationale.tolist() == [True, True, False]
    assert not found.segments


def test_candidates_are_those_of_the_examples_and_one_per_class(make_run):
    folder = make_run()
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    assert read_documents(read_run(folder), 100).candidates is None
    # Of rows 2, 0 and 1, as they stand in the file.
    pq.write_table(table.append_column("candidates", pa.array([[True, True], [True, False], [False, True]])), path)
    found = read_documents(read_run(folder), 100).candidates
    assert found.tolist() == [[True, False], [False, True], [True, True]]
    pq.write_table(table.append_column("candidates", pa.array([[True]] * 3)), path)
    with pytest.raises(DataFormatError, match="candidates are not one per class"):
        read_documents(read_run(folder), 100)


@pytest.mark.parametrize("texts", [EMOJI, ("plain words", "café è")])
def test_offsets_count_as_browsers_do(make_run, texts):
    found = read_documents(read_run(make_run(texts=texts)), 100)
    firsts = np.concatenate([[0], np.cumsum(found.lengths)])
    for place, text in enumerate(texts):
        tokens = slice(firsts[place], firsts[place + 1])
        pairs = zip(found.starts[tokens].tolist(), found.ends[tokens].tolist(), strict=True)
        assert [utf16(text, start, end) for start, end in pairs] == text.split()


def test_of_too_many_documents_a_random_choice_is_kept(make_run):
    texts = [f"document number {k}" for k in range(20)]
    folder = make_run(texts=texts)
    found, again = (read_documents(read_run(folder), 5) for _ in range(2))
    assert len(found.texts) == 5
    assert found.left_out == 15
    assert found.texts == [texts[row] for row in found.rows.tolist()]
    assert found.rows.tolist() == again.rows.tolist() == sorted(found.rows.tolist())
    assert len(found.explanations["attention"]) == 15


def test_examples_without_text_are_numbered_segments(make_run):
    folder = make_run()
    table = pq.read_table(folder / "predictions.parquet").drop_columns(["text", "start", "end"])
    pq.write_table(table, folder / "predictions.parquet")
    found = read_documents(read_run(folder), 100)
    assert found.segments
    assert found.texts == ["1 2 3", "1 2 3 4", "1"]
    assert [found.texts[1][a:b] for a, b in zip(found.starts[3:7], found.ends[3:7], strict=True)] == list("1234")


def test_explanations_of_a_later_evaluation_come_along(make_run):
    folder = make_run()
    target = folder / "evaluation" / "best-mine-test" / "explanations"
    target.mkdir()
    summary = json.loads((target.parent / "summary.json").read_text())
    (target.parent / "summary.json").write_text(json.dumps({**summary, "examples": 2, "seed": 0}))
    kept = np.sort(np.random.default_rng(0).permutation(3)[:2])
    lengths = np.array([3, 4, 1])
    scores = np.arange(lengths[kept].sum(), dtype=np.float32)
    np.save(target / "loo-0123abcd.npy", scores)
    np.save(target / "random.npy", scores)
    np.save(target / "lime.npy", scores[:-1])
    found = read_documents(read_run(folder), 100)
    assert list(found.explanations) == ["attention", "gradient", "hidden", "loo"]
    inside = np.repeat(np.isin(np.arange(3), kept), lengths)
    assert found.explanations["loo"][inside].tolist() == scores.tolist()
    assert np.isnan(found.explanations["loo"][~inside]).all()


def damaged(folder, kind):
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "flipped":
        contents = bytearray(path.read_bytes())
        contents[-6] ^= 0xFF
        path.write_bytes(bytes(contents))
    elif kind == "other lengths":
        lists = pa.array([[1.0]] * len(table))
        pq.write_table(table.set_column(table.column_names.index("gradient"), "gradient", lists), path)
    elif kind == "no lists":
        column = pa.array([1.0] * len(table))
        pq.write_table(table.set_column(table.column_names.index("attention"), "attention", column), path)
    elif kind == "no attention":
        pq.write_table(table.drop_columns(["attention"]), path)
    elif kind == "other types":
        column = pa.array(["x"] * len(table))
        pq.write_table(table.set_column(table.column_names.index("prediction"), "prediction", column), path)
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["cut", "flipped", "other lengths", "no lists", "no attention", "other types", "gone"])
def test_a_damaged_file_is_one_line(make_run, kind):
    folder = make_run()
    damaged(folder, kind)
    with pytest.raises(DataFormatError, match=r"Expected .*predictions\.parquet") as error:
        read_documents(read_run(folder), 100)
    assert "\n" not in str(error.value)


def test_offsets_beyond_the_text_are_cut(make_run):
    folder = make_run(texts=("one two",))
    table = pq.read_table(folder / "predictions.parquet")
    ends = pa.array([[3, 999]])
    pq.write_table(table.set_column(table.column_names.index("end"), "end", ends), folder / "predictions.parquet")
    assert read_documents(read_run(folder), 100).ends.tolist() == [3, 7]
