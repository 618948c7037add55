"""Rows of files of every format, whole and damaged."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.data.formats import EXTENSIONS, parquet_label_names
from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import from_files
from attn_lightning.errors import DataFormatError

ROWS = [{"text": "a fine day", "label": 1}, {"text": 'a gray, wet\nday with "quotes"', "label": 0}]


def read(path, columns=None, names=("no", "yes")):
    split = from_files({"train": path}).splits["train"]
    return list(records(split, columns or Columns(), Labels(names)))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_format_gives_the_same_rows(extension, tmp_path, write):
    rows = read(write(tmp_path / f"mine{extension}", ROWS))
    assert [(row["text"], row["label"]) for row in rows] == [(row["text"], row["label"]) for row in ROWS]


def test_a_long_csv_cell_is_read(tmp_path, write):
    text = "word " * 100_000
    assert read(write(tmp_path / "a.csv", [{"text": text, "label": 0}]))[0]["text"] == text


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\nfine,1\n")
    assert read(path)[0]["text"] == "fine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "\xff", "label": 1}', r"UTF-8, but got byte 0xff in line 2"),
        ("a.csv", b"text,label\na,1\n\xfe,0\n", "line 3"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n' * 9, mtime=0)[:-12], "whole gzip file"),
        ("a.jsonl.gz", b"this is not gzip", "whole gzip file"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": ', r"a\.jsonl, line 2"),
        ("a.jsonl", b"[1, 2]\n", "got list .* line 1"),
        ("a.jsonl", b'{"text": "a", "text": "b", "label": 1}', "a key twice"),
        ("a.csv", b"text,label\na,1\nb,c,0\n", "Expected 2 fields .* got 3 .* line 3"),
        ("a.csv", b'text,label\n"a,1\n', "CSV file"),
        ("a.csv", b"text,label,text\na,1,b\n", "text twice"),
        ("a.parquet", b"this is not parquet", "Parquet file"),
        ("a.jsonl", b"", "empty file"),
        ("a.csv", b"text,label\n", "empty file"),
    ],
)
def test_damaged_files_name_file_and_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=message) as raised:
        read(path)
    assert name in str(raised.value)


def test_parquet_with_a_column_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array([1]), pa.array(["b"])], names=["text", "label", "text"]), path)
    with pytest.raises(DataFormatError, match="text twice"):
        read(path)


def test_class_names_that_datasets_wrote(tmp_path, write):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(str(path))
    assert parquet_label_names(path, "label") == ("neg", "pos")
    assert parquet_label_names(path, "text") is None
    assert parquet_label_names(write(tmp_path / "b.parquet", ROWS), "label") is None
    assert parquet_label_names(write(tmp_path / "b.csv", ROWS), "label") is None
