"""Classes by their names and numbers."""

import pytest

from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import from_files
from attn_lightning.errors import DataFormatError


def read(path, columns=None, names=("no", "yes")):
    split = from_files({"train": path}).splits["train"]
    return list(records(split, columns or Columns(), Labels(names)))


@pytest.mark.parametrize("label", [None, float("nan"), 0.5, "", "maybe", 2, -1, [1]])
def test_labels_that_are_none_of_the_classes(label, tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": label}])
    with pytest.raises(DataFormatError, match=r"label.* a\.jsonl, line 2"):
        read(path)


@pytest.mark.parametrize("label", [1, 1.0, "1", "yes", True])
def test_ways_to_write_a_label(label, tmp_path, write):
    assert read(write(tmp_path / "a.jsonl", [{"text": "a", "label": label}]))[0]["label"] == 1


@pytest.mark.parametrize(
    ("values", "names"),
    [(["b", "a"], ("a", "b")), ([10, 9, 2], ("2", "9", "10")), (["0", "1"], ("0", "1")), ([1.0, 0.0], ("0", "1"))],
)
def test_classes_are_taken_from_train(values, names, tmp_path, write):
    rows = [{"text": "x", "label": value} for value in values]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    labels = Labels.scan(split, "label")
    assert labels.names == names
    assert [row["label"] for row in records(split, Columns(), labels)] == [
        names.index(str(value).removesuffix(".0")) for value in values
    ]


def test_numbers_that_are_names_are_not_places(tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"text": "a", "label": 0}])
    with pytest.raises(DataFormatError, match="got 0"):
        read(path, names=("1", "2"))


def test_a_column_that_is_not_a_class(tmp_path, write):
    rows = [{"text": "x", "label": f"unique {number}"} for number in range(1100)]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    with pytest.raises(DataFormatError, match="more than 1000"):
        Labels.scan(split, "label")


def test_no_rows_are_no_classes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n")
    with pytest.raises(DataFormatError, match=r"a\.csv, but got an empty file"):
        Labels.scan(from_files({"train": path}).splits["train"], "label")


@pytest.mark.parametrize("names", [("one",), ("a", "a"), ("a", " ")])
def test_fewer_than_two_classes(names):
    with pytest.raises(DataFormatError, match="two different classes"):
        Labels(names)


def test_classes_that_are_not_kept_are_left_out(tmp_path, write):
    rows = [{"text": name, "label": place} for place, name in enumerate("abc")]
    split = from_files({"train": write(tmp_path / "a.jsonl", rows)}).splits["train"]
    kept = list(records(split, Columns(), Labels(("a", "b", "c"), kept=("c", "a"))))
    assert [(row["text"], row["label"]) for row in kept] == [("a", 1), ("c", 0)]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["1.0", "2.0", "10.0", "2", 10], ("1", "2", "10")),
        (["+1", "-1", "0", -1.0, "-0"], ("-1", "0", "1")),
        (["b", "2", "01", "a", 1, True], ("1", "2", "a", "b")),
        ([0.5, "1.50", "0.50", 1.5], ("0.5", "1.5")),
        ([".5", "1.", "0.5", 1, "-.0"], ("0", "0.5", "1")),
        ([".", "-", "+", "-.", "1.2.3"], ("+", "-", "-.", ".", "1.2.3")),
        ([" a", "b ", "a"], ("a", "b")),
    ],
)
def test_classes_are_what_labels_say_however_they_are_written(written, names, tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"text": "x", "label": value} for value in written])
    split = from_files({"train": path}).splits["train"]
    labels = Labels.scan(split, "label")
    assert labels.names == names
    said = [names[labels.index(value, split, 1)] for value in written]
    for value, name in zip(written, said, strict=True):
        number = name.strip("-").replace(".", "", 1).isdigit()
        same = float(value) == float(name) if number else str(value).strip() == name
        assert same, (value, name)


@pytest.mark.parametrize(("names", "label"), [(("1", "2", "other"), 0), (("-1", "0", "1"), 2), (("no", "yes"), 1)])
def test_no_number_is_a_place_among_classes_that_were_only_seen(names, label, tmp_path, write):
    split = from_files({"train": write(tmp_path / "a.jsonl", [{"text": "x", "label": label}])}).splits["train"]
    with pytest.raises(DataFormatError, match=rf"got {label} in a\.jsonl, line 1"):
        Labels(names, numbered=False).index(label, split, 1)


def test_blanks_around_declared_names_do_not_count(tmp_path, write):
    assert Labels([" no", "yes "]).names == ("no", "yes")
    assert read(write(tmp_path / "a.jsonl", [{"text": "x", "label": " yes  "}]), names=("no ", " yes"))[0]["label"] == 1


def test_one_number_written_twice_is_no_two_classes():
    with pytest.raises(DataFormatError, match="two different classes"):
        Labels(["1", "1.0"])


def test_other_names_of_the_same_classes(tmp_path, write):
    path = write(tmp_path / "a.jsonl", [{"text": "x", "label": "neg"}])
    split = from_files({"train": path}).splits["train"]
    labels = Labels(["negative", "positive"], aliases=["pos", "neg"])
    assert [labels.index(value, split, 1) for value in ("neg", "positive", 0)] == [1, 1, 0]


def test_a_message_names_a_few_of_many_classes(tmp_path, write):
    split = from_files({"train": write(tmp_path / "a.jsonl", [{"text": "x", "label": "z" * 500}])}).splits["train"]
    labels = Labels([f"class {number} {'y' * 100}" for number in range(900)])
    with pytest.raises(DataFormatError, match="and 880 more") as caught:
        labels.index("z" * 500, split, 1)
    assert len(str(caught.value)) < 1500
