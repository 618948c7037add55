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
