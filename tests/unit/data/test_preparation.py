"""From files to a folder: what is kept, counted, cut and refused."""

import csv
import json
import logging

import datasets
import pytest

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError


def test_vocabulary_comes_from_the_training_part_only(files, write, prepared):
    write(files["test"], [{"text": "neverseen word", "label": 0}, {"text": "a day", "label": 1}])
    module = prepared(TextFiles(**files))
    words = set(module.tokenizer.vocabulary)
    assert "neverseen" not in words
    held_out = {word for text in module.texts("validation") for word in text.split() if word.endswith(".")}
    assert not {word.rstrip(".") for word in held_out} & words


def test_manifest(files, rows, write, prepared):
    write(files["test"], [*rows(3), {"text": "", "label": 0}, {"text": "zzz qqq", "label": 1}])
    module = prepared(TextFiles(**files, max_length=5, min_count=2, validation_fraction=0.5))
    manifest = module.manifest
    assert json.loads(json.dumps(manifest)) == manifest
    test = manifest["splits"]["test"]
    assert test["rows"] == 5
    assert test["classes"] == {"0": 3, "1": 2}
    assert test["unknown"] == 2
    assert test["truncated"] == 3
    assert test["longest"] == 5
    assert test["overlap"] == sum(row["text"] in module.texts("train") for row in rows(3))
    assert len(test["sha256"]) == 64
    assert manifest["vocabulary_size"] == len(module.tokenizer)
    assert manifest["source"]["kind"] == "files"


def test_the_digest_is_of_the_content_not_of_the_format(files, tmp_path, rows, prepared):
    with (tmp_path / "same.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows(80))
    first, second = (
        prepared(TextFiles(**{**files, "train": path})) for path in (files["train"], tmp_path / "same.csv")
    )
    assert first.manifest["splits"]["train"]["sha256"] == second.manifest["splits"]["train"]["sha256"]


def test_lengths_are_filtered_and_counted(files, prepared):
    module = prepared(TextFiles(**files, min_length=10))
    for split in ("train", "validation", "test"):
        assert all(count >= 10 for count in TextTokenizer(["<pad>", "<unk>"]).count_words(module.texts(split)))
    content = module.manifest["splits"]
    assert sum(part["rows"] + part["filtered"] for part in content.values()) == 101
    with pytest.raises(DataFormatError, match="min_length"):
        prepared(TextFiles(**files, min_length=1000))


def test_a_very_long_text_is_cut_off_and_logged(files, caplog, write, prepared):
    write(files["test"], [{"text": "dull " * 100_000, "label": 0}, {"text": "warm", "label": 1}])
    with caplog.at_level(logging.INFO):
        module = prepared(TextFiles(**files, max_length=50))
    assert "the longest text has 50 words (`--data.max_length` cuts longer ones off)" in caplog.text
    assert "0 / 0 / 1 cut off" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        prepared(TextFiles(**files, max_length=50))
    assert "72 / 8 / 2 texts (train / validation / test); 2 classes" in caplog.text, "said at every start"
    assert module.manifest["splits"]["test"]["longest"] == 50


def test_a_subset_for_quick_runs_keeps_the_shares(files, prepared):
    module = prepared(TextFiles(**files, max_examples=20))
    assert module.manifest["splits"]["train"]["classes"] == {"0": 10, "1": 10}
    assert len(module.dataset("test")) == 21
    fewer = prepared(TextFiles(**files, max_test_examples=8))
    assert fewer.manifest["splits"]["test"]["rows"] == len(fewer.dataset("test")) == 8
    assert max(fewer.manifest["splits"]["test"]["classes"].values()) <= 5
    assert len(fewer.dataset("train")) > 20
    assert fewer.manifest["splits"]["test"] != prepared(TextFiles(**files)).manifest["splits"]["test"]


@pytest.mark.parametrize("most", [24, 33, 30])
def test_a_subset_has_just_the_size_that_was_asked_for(files, prepared, most):
    """A share of the rows is not exact in binary: rounded up, it may cut off one too many."""
    assert prepared(TextFiles(**files, max_examples=most)).manifest["splits"]["train"]["rows"] == most


def test_a_failed_preparation_leaves_nothing(files, write):
    write(files["test"], [{"text": "a", "label": "x"}])
    with pytest.raises(DataFormatError):
        TextFiles(**files).prepare_data()
    assert list(files["cache"].iterdir()) == []


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            [{"text": "a", "label": 0}, {"text": "b", "label": 2}],
            r"out of 0, 1, but got 2 in test\.jsonl, line 2",
        ),
        ([{"text": "a", "label": 0}], "two classes in the test split"),
        ([], "empty file"),
        ([{"content": "a", "label": 0}], "'content', 'label'"),
    ],
)
def test_bad_splits(files, test, message, write):
    write(files["test"], test)
    with pytest.raises(DataFormatError, match=message):
        TextFiles(**files).prepare_data()


def test_string_labels_take_their_declared_order(files, rows, write, prepared):
    for split in ("train", "test"):
        write(files[split], [{**row, "label": ["down", "up"][row["label"]]} for row in rows(20)])
    assert prepared(TextFiles(**files)).label_names == ("down", "up")
    module = prepared(TextFiles(**files, label_names=["up", "down"]))
    assert module.label_names == ("up", "down")
    assert module.dataset("test")["label"][:2] == [1, 0]


def test_too_few_examples_to_cut_a_validation_split(files, rows, write):
    write(files["train"], rows(2))
    with pytest.raises(DataFormatError, match="validation_fraction"):
        TextFiles(**files).prepare_data()


def test_texts_without_a_word_are_no_training_texts(files, write, rows):
    write(files["train"], [{**row, "text": " "} for row in rows(20)])
    with pytest.raises(DataFormatError, match="words in the training texts, but got none"):
        TextFiles(**files).prepare_data()


@pytest.mark.parametrize("option", ["min_count", "split_seed"])
def test_numbers_that_a_library_cannot_take_are_refused(files, option):
    with pytest.raises(ConfigurationError, match=f"`{option}`"):
        TextFiles(**files, **{option: 2**70})


def classes_of(path, names, values):
    made = {"text": ["a fine day", "a grim day"] * 10, "label": values * 10}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    datasets.Dataset.from_dict(made, features=features).to_parquet(str(path))
    return path


def test_class_names_of_parquet_files_are_aligned_by_name(files, prepared, tmp_path):
    train = classes_of(tmp_path / "train.parquet", ["bad", "good"], [1, 0])
    test = classes_of(tmp_path / "test.parquet", ["good", "bad"], [0, 1])
    for names in (None, ["bad", "good"], ["no", "yes"]):
        module = prepared(TextFiles(**{**files, "train": train, "test": test}, label_names=names))
        assert module.label_names == tuple(names or ["bad", "good"])
        assert module.dataset("test")["label"][:2] == module.dataset("train")["label"][:2] == [1, 0]
    other = classes_of(tmp_path / "other.parquet", ["good", "poor"], [0, 1])
    with pytest.raises(DataFormatError, match=r"out of bad, good .* got 'poor' in other\.parquet, row 2"):
        prepared(TextFiles(**{**files, "train": train, "test": other}))


def test_labels_of_two_files_are_matched_by_value(files, prepared, tmp_path, write, rows):
    write(files["train"], [{**row, "label": f"{row['label'] * 2 - 1:+d}.0"} for row in rows(40)])
    write(files["test"], [{**row, "label": row["label"] * 2 - 1} for row in rows(8)])
    module = prepared(TextFiles(**files))
    assert module.label_names == ("-1", "1")
    assert module.dataset("test")["label"][:] == [row["label"] for row in rows(8)]
    write(files["test"], [{"text": "a", "label": 0}])
    with pytest.raises(DataFormatError, match=r"got 0 in test\.jsonl, line 1"):
        prepared(TextFiles(**files))


def test_replaced_characters_are_counted_in_manifest_and_log(files, prepared, write, rows, caplog):
    write(files["train"], [{**row, "text": row["text"] + "\ud83d" * (row["label"])} for row in rows(20)])
    assert prepared(TextFiles(**files)).manifest["replaced"] == {"train": 10, "test": 0}
    assert "train: characters that are no Unicode were replaced in 10 texts" in caplog.text


def test_a_rationale_column_that_no_row_has_is_refused_and_one_that_some_lack_is_read(files, prepared, write):
    lines = [{"words": ["a", "b"], "label": place % 2} for place in range(20)]
    write(files["train"], [*lines, {"words": ["a", "b"], "label": 0, "why": [0, 1]}])
    write(files["test"], lines)
    columns = {"tokens_column": "words", "rationale_column": "why"}
    batches = list(prepared(TextFiles(**files, **columns, split_seed=1)).train_dataloader())
    assert sum(int(batch.has_rationale.sum()) for batch in batches) == sum(int(b.rationale.sum()) for b in batches) == 1
    with pytest.raises(DataFormatError, match=r"'wy'"):
        prepared(TextFiles(**files, tokens_column="words", rationale_column="wy"))


def test_a_language_without_spaces_is_warned_of(files, prepared, write, caplog):
    texts = ["这部电影非常难看我讨厌这个故事", "这部电影非常好看我喜欢这个故事"]
    write(files["train"], [{"text": texts[place % 2], "label": place % 2} for place in range(20)])
    module = prepared(TextFiles(**{**files, "test": None}))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    for words in ("hardly more words than sentences", "`--data.tokenizer=unicode`", "`--data.tokens_column`"):
        assert words in warning.message
        assert words in module.manifest["notes"][0]
