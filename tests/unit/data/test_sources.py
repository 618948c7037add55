import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attn_lightning.data import sources
from attn_lightning.data.sources import Columns, Hub, Labels, Split, find, from_files, parquet_label_names, records
from attn_lightning.errors import ConfigurationError, DataFormatError

ROWS = [{"text": "a fine day", "label": 1}, {"text": 'a gray, wet\nday with "quotes"', "label": 0}]


def write(path, rows=ROWS):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ".csv" in path.name:
        with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        content = "\n".join(json.dumps(row) for row in rows)
        path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def read(path, columns=None, names=("no", "yes")):
    split = from_files({"train": path}).splits["train"]
    return list(records(split, columns or Columns(), Labels(names)))


@pytest.mark.parametrize("extension", sources.EXTENSIONS)
def test_every_format_gives_the_same_rows(extension, tmp_path):
    rows = read(write(tmp_path / f"mine{extension}"))
    assert [(row["text"], row["label"]) for row in rows] == [(row["text"], row["label"]) for row in ROWS]


def test_a_long_csv_cell_is_read(tmp_path):
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


@pytest.mark.parametrize("label", [None, float("nan"), 0.5, "", "maybe", 2, -1, [1]])
def test_labels_that_are_none_of_the_classes(label, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": label}])
    with pytest.raises(DataFormatError, match=r"label.* a\.jsonl, line 2"):
        read(path)


@pytest.mark.parametrize("label", [1, 1.0, "1", "yes", True])
def test_ways_to_write_a_label(label, tmp_path):
    assert read(write(tmp_path / "a.jsonl", [{"text": "a", "label": label}]))[0]["label"] == 1


@pytest.mark.parametrize(
    ("values", "names"),
    [(["b", "a"], ("a", "b")), ([10, 9, 2], ("2", "9", "10")), (["0", "1"], ("0", "1")), ([1.0, 0.0], ("0", "1"))],
)
def test_classes_are_taken_from_train(values, names, tmp_path):
    rows = [{"text": "x", "label": value} for value in values]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    labels = Labels.scan(split, "label")
    assert labels.names == names
    assert [row["label"] for row in records(split, Columns(), labels)] == [
        names.index(str(value).removesuffix(".0")) for value in values
    ]


def test_numbers_that_are_names_are_not_places(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": 0}])
    with pytest.raises(DataFormatError, match="got 0"):
        read(path, names=("1", "2"))


def test_a_column_that_is_not_a_class(tmp_path):
    rows = [{"text": "x", "label": f"unique {number}"} for number in range(1100)]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    with pytest.raises(DataFormatError, match="more than 1000"):
        Labels.scan(split, "label")


def test_no_rows_are_no_classes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n")
    with pytest.raises(DataFormatError, match=r"a\.csv, but got an empty file"):
        Labels.scan(from_files({"train": path}).splits["train"], "label")


@pytest.mark.parametrize("names", [("one",), ("a", "a")])
def test_fewer_than_two_classes(names):
    with pytest.raises(DataFormatError, match="two different classes"):
        Labels(names)


def test_classes_that_are_not_kept_are_left_out(tmp_path):
    rows = [{"text": name, "label": place} for place, name in enumerate("abc")]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    kept = list(records(split, Columns(), Labels(("a", "b", "c"), kept=("c", "a"))))
    assert [(row["text"], row["label"]) for row in kept] == [("a", 1), ("c", 0)]


@pytest.mark.parametrize("column", [{"text": "body"}, {"label": "stars"}, {"tokens": "words"}])
def test_a_missing_column_lists_those_there(column, tmp_path):
    with pytest.raises(DataFormatError, match=r"'text', 'label' in a\.csv, line 2"):
        read(write(tmp_path / "a.csv"), Columns(**column))


@pytest.mark.parametrize("text", [None, 5])
def test_text_must_be_text(text, tmp_path):
    with pytest.raises(DataFormatError, match="to hold text"):
        read(write(tmp_path / "a.jsonl", [{"text": text, "label": 0}]))


MARKED = Columns(tokens="tokens", annotations=(("rationale", "why"),))


def test_tokens_and_rationale():
    row = {"tokens": ["a", "b"], "label": 0, "why": [0, 1]}
    split = Split("rows", "row", lambda: iter([(1, row), (2, {**row, "why": None})]))
    first, second = records(split, MARKED, Labels(("no", "yes")))
    assert (first["text"], first["tokens"], first["rationale"]) == ("a b", ["a", "b"], [0, 1])
    assert second["rationale"] is None


def test_lists_in_csv_cells(tmp_path):
    rows = [{"tokens": '["a b", "c"]', "label": 0, "why": "[1, 0]"}, {"tokens": "x y", "label": 1, "why": "0 1"}]
    first, second = read(write(tmp_path / "a.csv", rows), MARKED)
    assert (first["tokens"], first["rationale"]) == (["a b", "c"], [1, 0])
    assert (second["tokens"], second["rationale"]) == (["x", "y"], [0, 1])


@pytest.mark.parametrize("marks", [[1], [0, 1, 1], ["x", "y"], "no", 5])
def test_a_rationale_of_another_length_names_the_row(marks, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"tokens": ["a", "b"], "label": 0, "why": marks}])
    with pytest.raises(DataFormatError, match=r"2 words .* a\.jsonl, line 1"):
        read(path, MARKED)


@pytest.mark.parametrize("tokens", [None, 5, ["a", 1], "[1"])
def test_tokens_must_be_words(tokens, tmp_path):
    with pytest.raises(DataFormatError, match="list of words"):
        read(write(tmp_path / "a.jsonl", [{"tokens": tokens, "label": 0, "why": [0]}]), MARKED)


def test_a_no_break_space_does_not_split_a_word(tmp_path):
    rows = read(write(tmp_path / "a.jsonl", [{"text": "a 9\xa01/2 b", "label": 0}]), Columns(split_at_spaces=True))
    assert rows[0]["tokens"] == ["a", "9\xa01/2", "b"]


def test_class_names_that_datasets_wrote(tmp_path):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_list(ROWS, features=features).to_parquet(str(path))
    assert parquet_label_names(path, "label") == ("neg", "pos")
    assert parquet_label_names(path, "text") is None
    assert parquet_label_names(write(tmp_path / "b.parquet"), "label") is None
    assert parquet_label_names(write(tmp_path / "b.csv"), "label") is None


def test_the_folder_comes_first_and_is_identified_by_its_content(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.csv")
    write(folder / "test.jsonl")
    source = find("toy", tmp_path, None, ("train", "test"))
    assert source.kind == "folder"
    assert set(source.splits) == {"train", "test"}
    assert source.revision == find("toy", tmp_path, None, ("train",)).revision
    write(folder / "test.jsonl", ROWS[:1])
    assert source.revision != find("toy", tmp_path, None, ("train",)).revision


def test_a_folder_without_a_split_lists_its_files(tmp_path):
    (tmp_path / "toy").mkdir()
    write(tmp_path / "toy" / "train.csv")
    with pytest.raises(ConfigurationError, match=r"to hold test .*train\.csv"):
        find("toy", tmp_path, None, ("train", "test"))


def test_a_root_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--data\.root"):
        find("toy", tmp_path / "nowhere", None, ("train",))


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.tar.gz", "a.parquet.gz"])
def test_an_unknown_extension(name, tmp_path):
    (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationError, match="to end in"):
        from_files({"train": tmp_path / name})


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigurationError, match="correct the path"):
        from_files({"train": tmp_path / "a.csv"})


def test_without_any_source_both_ways_out_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"train\.jsonl.*EXP=ivat_planted"):
        find("toy", tmp_path, None, ("train",))


class TestHub:
    hub = Hub("someone/toy", "0" * 40)

    @pytest.fixture
    def calls(self, monkeypatch):
        """Replace the two functions that reach the network."""
        import datasets
        import huggingface_hub

        calls = []

        def info(self, repository, revision, timeout):
            calls.append(("info", repository, revision, timeout))
            raise OSError("no route")

        def load(repository, revision):
            calls.append(("load", repository, revision, datasets.config.HF_HUB_OFFLINE))
            raise ConnectionError("nothing cached")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    def test_nothing_is_downloaded_before_rows_are_read(self, calls):
        assert find("toy", None, self.hub, ("train",)).revision == "0" * 40
        assert calls == []

    def test_a_hub_that_does_not_answer_is_asked_once_and_only_the_cache_after_it(self, calls):
        import datasets

        offline = datasets.config.HF_HUB_OFFLINE
        split = find("toy", None, self.hub, ("train",)).splits["train"]
        with pytest.raises(ConfigurationError, match=r"(no route|nothing cached).*--data\.root.*EXP=ivat_planted"):
            next(split.rows())
        assert calls[-1] == ("load", "someone/toy", "0" * 40, True)
        assert len(calls) == (1 if offline else 2)
        assert offline == datasets.config.HF_HUB_OFFLINE

    def test_a_missing_folder_is_logged(self, tmp_path, caplog):
        find("toy", tmp_path, self.hub, ("train",))
        assert "has no folder toy" in caplog.text

    def test_rows_of_the_hub(self, monkeypatch):
        import datasets

        monkeypatch.setattr(
            sources, "download", lambda hub, name: datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
        )
        split = find("toy", None, self.hub, ("train",)).splits["train"]
        assert [row["label"] for row in records(split, Columns(), Labels(("no", "yes")))] == [1, 0]
        assert split.place(2) == "someone/toy train, row 2"
