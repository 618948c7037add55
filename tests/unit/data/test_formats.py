"""Rows of files of every format, whole and damaged."""

import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.data.formats import FileOptions, class_names, rows_of
from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import from_files
from attn_lightning.errors import ConfigurationError, DataFormatError

ROWS = [{"text": "a fine day", "label": 1}, {"text": 'a gray, wet\nday with "quotes"', "label": 0}]


def read(path, columns=None, names=("no", "yes")):
    split = from_files({"train": path}).splits["train"]
    return list(records(split, columns or Columns(), Labels(names)))


TABLES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz")


@pytest.mark.parametrize("extension", TABLES)
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
        ("a.csv", gzip.compress(b"text,label\na,1\n", mtime=0), r"hold text, but got a gzip file; .* `\.gz`"),
        ("a.jsonl", b"PK\x03\x04\x14\x00", "got a zip archive or a spreadsheet"),
        ("a.csv", b"PAR1\x15\x04\x15", r"got a Parquet file; .* `\.parquet`"),
        (
            "a.csv",
            "text,label\na,1\n".encode("utf-16-le"),
            r"15 zero bytes in its first 30; .*encoding`.*utf-16-",
        ),
        ("a.jsonl", '{"text": "a", "label": 1}'.encode("utf-16-be"), "25 zero bytes"),
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
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(str(path))
    assert class_names(path) == {"label": ("neg", "pos")}
    assert class_names(write(tmp_path / "b.parquet", ROWS)) == {}
    assert class_names(write(tmp_path / "b.csv", ROWS)) == {}


def test_numbers_of_parquet_classes_become_the_names_of_their_own_file(tmp_path):
    for name, order in (("a", ["neg", "pos"]), ("b", ["pos", "neg"])):
        features = datasets.Features({"label": datasets.ClassLabel(names=order)})
        made = datasets.Dataset.from_dict({"label": [0, 1, -1]}, features=features)
        made.to_parquet(str(tmp_path / f"{name}.parquet"))
        assert values(tmp_path / f"{name}.parquet", "label") == [*order, None]


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": 5}}}'])
def test_a_note_of_another_program_is_no_class_name(stored, tmp_path):
    table = pa.table({"label": [0]}).replace_schema_metadata({b"huggingface": stored})
    pq.write_table(table, tmp_path / "a.parquet")
    assert class_names(tmp_path / "a.parquet") == {}
    assert values(tmp_path / "a.parquet", "label") == [0]


def values(path, column, **options):
    return [row[column] for _, row in rows_of(path, FileOptions(**options))]


def put(path, content, encoding="utf-8"):
    data = content if isinstance(content, bytes) else content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_is_found_whatever_else_stands_in_the_texts(name, delimiter, end, tmp_path):
    others = [mark for mark in ",;|" if mark != delimiter]
    lines = [["text", "label"], *([f"so{mark} well{mark * 2}", "1"] for mark in others), ["a fine day", "0"]]
    path = put(tmp_path / name, end.join(delimiter.join(fields) for fields in lines) + end)
    assert values(path, "text") == [fields[0] for fields in lines[1:]]
    assert values(path, "label", delimiter=delimiter) == [fields[1] for fields in lines[1:]]


@pytest.mark.parametrize("delimiter", ["\\t", "tab"])
def test_a_tab_may_be_written_as_a_shell_passes_it(delimiter, tmp_path):
    assert values(put(tmp_path / "a.csv", "text\tlabel\nb\t1\n"), "label", delimiter=delimiter) == ["1"]


@pytest.mark.parametrize("options", [{"delimiter": ""}, {"delimiter": ";;"}, {"delimiter": '"'}, {"encoding": "utf-9"}])
@pytest.mark.parametrize("more", [{}, {"columns": ("a", "a")}])
def test_impossible_file_options_are_refused_by_name(options, more):
    with pytest.raises(ConfigurationError, match=f"`--data.{next(iter(options))}`"):
        FileOptions(**options, **more)
    for columns in (("a", "a"), ("a", "")):
        with pytest.raises(ConfigurationError, match=r"`--data\.columns`"):
            FileOptions(columns=columns)
    with pytest.raises(ConfigurationError, match=r"`--data\.encoding`"):
        FileOptions(encoding="base64")


def test_columns_without_a_header(tmp_path):
    path = put(tmp_path / "a.csv", '"1","A, b","c"\n"2","d","e"\n')
    assert values(path, "body", columns=("label", "title", "body")) == ["c", "e"]
    with pytest.raises(DataFormatError, match=r"2 fields as in `--data\.columns`, but got 3 in .*a\.csv, line 1"):
        values(path, "body", columns=("label", "body"))
    with pytest.raises(DataFormatError, match=r"c twice .* `--data\.columns`"):
        values(put(tmp_path / "b.csv", "1,c,c\n2,d,e\n"), "c")


def test_a_header_is_no_example(tmp_path):
    path = put(tmp_path / "a.csv", "Text, label\nfine,1\n")
    with pytest.raises(DataFormatError, match=r"names of `--data\.columns` in .*a\.csv, line 1; leave that option out"):
        values(path, "label", columns=("text", "label"))


def test_no_encoding_reads_a_file_that_holds_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(gzip.compress(b"text,label\na,1\n"))
    with pytest.raises(DataFormatError, match="a gzip file"):
        values(tmp_path / "a.csv", "text", encoding="latin-1", columns=("text", "label"))


def test_columns_without_a_name_are_left_out(tmp_path):
    path = put(tmp_path / "a.csv", ",text, label,\n0,fine,1,\n1,poor,0,\n")
    assert [row for _, row in rows_of(path, FileOptions())] == [
        {"text": "fine", "label": "1"},
        {"text": "poor", "label": "0"},
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_what_a_byte_order_mark_says_is_believed(encoding, name, tmp_path):
    assert values(put(tmp_path / name, "text,label\ncafé,1\n", encoding), "text") == ["café"]


def test_another_encoding_is_named_by_option(tmp_path):
    path = put(tmp_path / "a.csv", "text,label\n" + "fine,1\n" * 3000 + "café,1\n", "latin-1")
    with pytest.raises(DataFormatError, match=r"byte 0xe9 in line 3002; .* `--data\.encoding`"):
        values(path, "text")
    assert values(path, "text", encoding="latin-1")[-1] == "café"


def test_lines_of_a_label_and_a_text(tmp_path):
    path = put(tmp_path / "a.txt", "__label__good A fine , day\n\n__label__bad\tA grim day\n")
    assert (values(path, "label"), values(path, "text")) == (["good", "bad"], ["A fine , day", "A grim day"])
    path = put(tmp_path / "a.label", "LOC:city Where is it ?\nNUM:date When ?\n")
    assert values(path, "label") == ["LOC:city", "NUM:date"]
    path = put(tmp_path / "b.txt", "A fine day\t1\n")
    assert values(path, "label", columns=("text", "label")) == ["1"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("good\n", "one word"),
        ("__label__a __label__b text\n", "two labels"),
        ("__label__a text __label__b\n", "two labels"),
        ("A fine day __label__good\n", "a label behind the text"),
        ("A fine day\t1\n", "a TAB after several"),
    ],
)
def test_other_lines_are_refused_with_the_way_to_read_them(content, found, tmp_path):
    with pytest.raises(DataFormatError, match=rf"{found}.*a\.txt, line 1; .*`--data\.columns`"):
        values(put(tmp_path / "a.txt", content), "label")


@pytest.mark.parametrize("content", ['[{"text": "a"}, {"text": "b"}]', '{"text": "a"}\n{"text": "b"}\n'])
def test_a_json_file_is_a_list_or_lines(content, tmp_path):
    assert values(put(tmp_path / "a.json", content), "text") == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "found"),
    [('{"text": {"0": "a"}}', "an object with 'text'"), ("[1]", "int"), ("5", "5"), ("{", "line 1")],
)
def test_other_json_is_refused(content, found, tmp_path):
    with pytest.raises(DataFormatError, match=rf"a\.json.*{found}|{found}.*a\.json"):
        values(put(tmp_path / "a.json", content), "text")


def post(labels, rationales, tokens=("a", "b", "c")):
    annotators = [{"label": label, "annotator_id": 0} for label in labels]
    return {"post_id": "x", "annotators": annotators, "rationales": rationales, "post_tokens": list(tokens)}


def test_posts_as_hatexplain_publishes_them(tmp_path):
    posts = {
        "one": post(["normal", "offensive", "offensive"], [[0, 1, 0], [0, 1, 1]]),
        "undecided": post(["normal", "offensive", "hatespeech"], []),
        "two": post(["normal"] * 3, []),
    }
    path = put(tmp_path / "dataset.json", json.dumps(posts))
    assert values(path, "label") == ["offensive", "normal"]
    assert values(path, "rationale") == [[0, 1, 0.5], None]
    assert values(path, "tokens") == [["a", "b", "c"]] * 2
    broken = put(tmp_path / "a.json", json.dumps({"one": post(["normal"], [[0, 1], [1]])}))
    with pytest.raises(DataFormatError, match="post 'one'"):
        values(broken, "label")
