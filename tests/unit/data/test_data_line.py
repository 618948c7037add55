"""The line of a run about its data: a wrong column shows there first."""

import pytest

from attn_lightning.data.data_line import data_line


def manifest(kind, names):
    split = {"rows": 1200, "longest": 7, "truncated": 3}
    return {
        "name": "files",
        "source": {"kind": kind},
        "label_names": names,
        "splits": {"train": split, "test": {**split, "longest": 20_000, "truncated": 0}},
        "notes": ["a note"],
    }


def test_sizes_lengths_and_what_was_done():
    assert data_line(manifest("folder", ["no", "yes"])) == (
        "files: 1,200 / 1,200 texts (train / test); 2 classes; the longest text has 20,000 words (`--data.max_length` cuts "
        "longer ones off); 3 / 0 cut off; a note"
    )


@pytest.mark.parametrize(
    ("kind", "names", "shown"),
    [
        ("files", ["I", "this"], "; 2 classes (I, this); "),
        ("files", ["x" * 90, "y"], f"; 2 classes ({'x' * 30}, y); "),
        ("files", [str(number) for number in range(11)], "; 11 classes; "),
        ("embedded", ["I", "this"], "; 2 classes; "),
    ],
)
def test_the_classes_of_own_files_are_named(kind, names, shown):
    assert shown in data_line(manifest(kind, names))
