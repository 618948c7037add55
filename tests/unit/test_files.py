"""Files: names that are safe whatever they are made of, and JSON that every reader takes."""

import json
import math
import re
from pathlib import Path

import pytest

import attn_lightning
from attn_lightning.files import file_name, to_json, write_json


def test_names_of_files_have_safe_signs_only():
    made = file_name("strip", "", "evaluation/a/b[where=scores,epsilon=1.0]")
    assert made == "strip-evaluation-a-b-where=scores-epsilon=1.0"
    assert "/" not in file_name("../../etc")
    assert file_name("\x1b[31m<script>\u202e") == "31m-script"
    assert len(file_name("x" * 500)) == 150


def test_json_has_no_word_for_numbers_that_are_not_finite(tmp_path):
    contents = {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, {"c": math.nan, "d": 3})], "e": None, "f": "NaN é"}
    expected = {"a": None, "b": [None, 1.5, [None, {"c": None, "d": 3}]], "e": None, "f": "NaN é"}
    write_json(tmp_path / "a.json", contents)
    for text in ((tmp_path / "a.json").read_text("utf-8"), to_json(contents)):
        assert json.loads(text, parse_constant=pytest.fail) == expected
    assert "\n" not in to_json(contents)


def test_this_is_the_only_writer_of_json_files():
    """Another would have to know of such numbers too; what is hashed, sent or embedded is no file."""
    package = Path(attn_lightning.__file__).parent
    writers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"json\.dump\(|write\(.*json\.dumps|write_text\(.*json\.dumps", path.read_text("utf-8"))
    }
    assert writers <= {"data/cifar.py"}  # names and sizes of files, whole numbers
