"""Texts, words and annotations of a row."""

import pytest

from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import Split, from_files
from attn_lightning.errors import DataFormatError

ROWS = [{"text": "a fine day", "label": 1}, {"text": 'a gray, wet\nday with "quotes"', "label": 0}]


def read(path, columns=None, names=("no", "yes")):
    split = from_files({"train": path}).splits["train"]
    return list(records(split, columns or Columns(), Labels(names)))


@pytest.mark.parametrize("column", [{"text": "body"}, {"label": "stars"}, {"tokens": "words"}])
def test_a_missing_column_lists_those_there(column, tmp_path, write):
    with pytest.raises(DataFormatError, match=r"'text', 'label' in a\.csv, line 2"):
        read(write(tmp_path / "a.csv", ROWS), Columns(**column))


@pytest.mark.parametrize("text", [None, 5])
def test_text_must_be_text(text, tmp_path, write):
    with pytest.raises(DataFormatError, match="to hold text"):
        read(write(tmp_path / "a.jsonl", [{"text": text, "label": 0}]))


MARKED = Columns(tokens="tokens", annotations=(("rationale", "why"),))


def test_tokens_and_rationale():
    row = {"tokens": ["a", "b"], "label": 0, "why": [0, 1]}
    split = Split("rows", "row", lambda: iter([(1, row), (2, {**row, "why": None})]))
    first, second = records(split, MARKED, Labels(("no", "yes")))
    assert (first["text"], first["tokens"], first["rationale"]) == ("a b", ["a", "b"], [0, 1])
    assert second["rationale"] is None


def test_lists_in_csv_cells(tmp_path, write):
    rows = [{"tokens": '["a b", "c"]', "label": 0, "why": "[1, 0]"}, {"tokens": "x y", "label": 1, "why": "0 1"}]
    first, second = read(write(tmp_path / "a.csv", rows), MARKED)
    assert (first["tokens"], first["rationale"]) == (["a b", "c"], [1, 0])
    assert (second["tokens"], second["rationale"]) == (["x", "y"], [0, 1])


@pytest.mark.parametrize("marks", [[1], [0, 1, 1], ["x", "y"], "no", 5])
def test_a_rationale_of_another_length_names_the_row(marks, tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"tokens": ["a", "b"], "label": 0, "why": marks}])
    with pytest.raises(DataFormatError, match=r"2 words .* a\.jsonl, line 1"):
        read(path, MARKED)


@pytest.mark.parametrize("tokens", [None, 5, ["a", 1], "[1"])
def test_tokens_must_be_words(tokens, tmp_path, write):
    with pytest.raises(DataFormatError, match="list of words"):
        read(write(tmp_path / "a.jsonl", [{"tokens": tokens, "label": 0, "why": [0]}]), MARKED)


def test_a_no_break_space_does_not_split_a_word(tmp_path, write):
    rows = read(write(tmp_path / "a.jsonl", [{"text": "a 9\xa01/2 b", "label": 0}]), Columns(split_at_spaces=True))
    assert rows[0]["tokens"] == ["a", "9\xa01/2", "b"]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, [1, 1, 0, 1]), (0.67, [0, 1, 0, 1]), (0.01, [1, 1, 1, 1])])
def test_a_share_of_annotators_is_a_mark_from_the_threshold_on(threshold, expected, tmp_path, write):
    row = {"tokens": ["a", "b", "c", "d"], "label": 0, "why": [0.5, 0.67, 0.33, 1]}
    columns = Columns(tokens="tokens", annotations=(("rationale", "why"),), rationale_threshold=threshold)
    assert read(write(tmp_path / "a.jsonl", [row]), columns)[0]["rationale"] == expected


@pytest.mark.parametrize("mark", [-1, 300, float("inf"), float("nan"), 1.01, "2", 10**400])
def test_a_mark_out_of_range_names_the_row(mark, tmp_path, write):
    good = {"tokens": ["a", "b"], "label": 0, "why": [0, 1]}
    path = write(tmp_path / "a.jsonl", [good, {**good, "why": [mark, 0]}])
    with pytest.raises(DataFormatError, match=r"'why' .* a\.jsonl, line 2"):
        read(path, MARKED)


@pytest.mark.parametrize("mark", [-1, 128, 0.5])
def test_other_annotations_are_small_whole_numbers(mark, tmp_path, write):
    columns = Columns(tokens="tokens", annotations=(("shortcut", "why"),))
    path = write(tmp_path / "a.jsonl", [{"tokens": ["a"], "label": 0, "why": [mark]}])
    with pytest.raises(DataFormatError, match=r"0 to 127, but got .* a\.jsonl, line 1"):
        read(path, columns)


def test_half_a_surrogate_pair_is_replaced_and_said(tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"text": "a \ud83d b", "label": "ye\ude00s"}, {"text": "a 😀", "label": "no"}])
    first, second = read(path, names=("no", "ye\ufffds"))
    assert (first["text"], first["replaced"], first["label"]) == ("a \ufffd b", True, 1)
    assert (second["text"], second["replaced"]) == ("a 😀", False)
    words = read(write(tmp_path / "b.jsonl", [{"tokens": ["\ude00", "b"], "label": 0, "why": None}]), MARKED)
    assert words[0]["tokens"] == ["\ufffd", "b"]


def test_a_class_that_training_did_not_see_names_the_row(tmp_path, write):
    split = from_files({"test": write(tmp_path / "a.jsonl", ROWS)}).splits["test"]
    with pytest.raises(DataFormatError, match=r"training texts, but got 0 in a\.jsonl, line 2"):
        list(records(split, Columns(), Labels(("no", "yes")), seen={1}))
