"""Parts of a split: stratified as scikit-learn has it, by shares where it refuses, and spread over it."""

import math

import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit, train_test_split

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.cutting import spread
from attn_lightning.errors import DataFormatError


def test_validation_is_cut_as_scikit_learn_cuts_it(files, rows, prepared):
    module = prepared(TextFiles(**files, validation_fraction=0.25, split_seed=7))
    labels = [row["label"] for row in rows(80)]
    _, wanted = train_test_split(np.arange(80), test_size=0.25, random_state=7, stratify=labels)
    assert module.texts("validation") == [rows(80)[place]["text"] for place in sorted(wanted)]
    assert module.manifest["splits"]["validation"]["classes"] == {"0": 10, "1": 10}
    assert module.manifest["recipe"]["split_seed"] == 7


def test_the_only_example_of_a_class_is_learned_from_and_the_others_are_stratified(
    files, rows, write, prepared, caplog
):
    sizes = {f"class {place:02}": max(1, 200 // (place + 1) ** 2) for place in range(20)}
    labels = [name for name, size in sizes.items() for _ in range(size)]
    write(files["train"], [{"text": f"word {place}", "label": label} for place, label in enumerate(labels)])
    write(files["test"], [{"text": "word", "label": f"class 0{place}"} for place in range(2)])
    alone = [name for name, size in sizes.items() if size == 1]
    assert len(alone) > 3
    module = prepared(TextFiles(**files, validation_fraction=0.2, split_seed=7, max_examples=100))
    splits = {name: module.manifest["splits"][name]["classes"] for name in ("train", "validation")}
    assert all(splits["validation"][name] == 0 and splits["train"][name] == 1 for name in alone)
    assert f"{len(alone)} classes have a single example" in caplog.text
    assert sum(splits["validation"].values()) == math.ceil(0.2 * len(labels))
    several = [place for place, label in enumerate(labels) if sizes[label] > 1]
    stratified = StratifiedShuffleSplit(1, test_size=math.ceil(0.2 * len(labels)), random_state=7)
    _, wanted = next(stratified.split(several, [labels[place] for place in several]))
    assert module.texts("validation") == [f"word {several[place]}" for place in sorted(wanted)]
    assert sum(splits["train"].values()) == 100
    assert min(splits["train"].values()) == 1, "no class is lost by `max_examples`"


def test_more_classes_than_examples_of_a_part_are_cut_by_their_shares(files, write, prepared, caplog):
    """scikit-learn refuses such a part, and with it every file of few texts per class."""
    sizes = {f"class {place:02}": 12 if place < 3 else 3 for place in range(33)}
    labels = [name for name, size in sizes.items() for _ in range(size)]
    write(files["train"], [{"text": f"word {place}", "label": label} for place, label in enumerate(labels)])
    write(files["test"], [{"text": f"word {place}", "label": f"class {place:02}"} for place in range(30)])
    parts = [prepared(TextFiles(**files, split_seed=seed, max_test_examples=8)) for seed in (7, 7, 8)]
    counts = parts[0].manifest["splits"]["validation"]["classes"]
    assert sum(counts.values()) == math.ceil(0.1 * len(labels)) < len(sizes)
    for name, size in sizes.items():
        share = size * sum(counts.values()) / len(labels)
        assert counts[name] in (math.floor(share), math.ceil(share))
    assert parts[0].texts("validation") == parts[1].texts("validation") != parts[2].texts("validation")
    assert sorted(parts[0].texts("train") + parts[0].texts("validation")) == sorted(map("word {}".format, range(126)))
    assert len(parts[0].texts("test")) == 8
    assert "a part of 13 texts cannot have one of each of 33 classes" in caplog.text
    write(files["train"], [{"text": f"word {place}", "label": f"class {place}"} for place in range(2)])
    with pytest.raises(DataFormatError, match="2 of them the only one of their class; give splits of your own"):
        prepared(TextFiles(**files | {"test": None}))


def test_a_subset_of_many_uneven_classes_keeps_their_shares(files, write, prepared):
    counts = {"a": 80, "b": 40, "c": 20, "d": 10, "e": 10}
    rows = [{"text": f"text {number}", "label": name} for name, count in counts.items() for number in range(count)]
    for split in ("train", "test"):
        write(files[split], rows)
    found = prepared(TextFiles(**files, max_examples=36)).manifest["splits"]["train"]["classes"]
    assert sum(found.values()) == 36
    for name, count in counts.items():
        assert abs(found[name] - 36 * count / len(rows)) < 1, name
    with pytest.raises(DataFormatError, match=r"raise `max_examples`"):
        prepared(TextFiles(**files, max_examples=3))


def test_no_order_of_classes_in_a_file_decides_which_of_them_a_limited_pool_has():
    for labels in (np.repeat([0, 1], 500), np.tile([0, 1], 500), np.repeat(np.tile([0, 1], 50), 10)):
        for most in (50, 100, 250, 300, 500):
            taken = labels[spread(len(labels), most)]
            assert len(taken) == most
            assert 0.35 < taken.mean() < 0.65
    assert np.array_equal(spread(1000, 100), spread(1000, 100))
    assert [spread(rows, 10).sum() for rows in (0, 9, 10, 11)] == [0, 9, 10, 10]
