"""Data files in the place of a class of data: which values are some, and what they are short for."""

import pytest
import yaml

from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import Experiments
from attn_lightning.study.data_files import data_name, file_options, is_data_file, method_without_data, split_files
from support.experiments import make_experiments

ROWS = "text,label\ngood,1\nbad,0\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("mine.csv", True),
        ("mine.csv.gz", True),
        ("nowhere/mine.parquet", True),
        ("./folder", True),
        ("folder/", True),
        ("lines.train", True),
        ("absent.train", False),
        ("folder", False),
        ("IMDB", False),
        ("my_package.MyData", False),
        ("mine.yaml", False),
        ("./mine.yml", False),
        ("options.json", False),
        ("", False),
    ],
)
def test_a_value_is_a_data_file_where_it_can_be_nothing_else(here, value, is_one):
    (here / "folder").mkdir()
    (here / "lines.train").write_text("__label__a b\n")
    assert is_data_file(value) is is_one


def test_names_come_from_the_file(here):
    assert [data_name(value) for value in ("a/mine.csv.gz", "mine.tsv", "reviews.v2/", ".")] == [
        "mine",
        "mine",
        "reviews.v2",
        here.name,
    ]


def test_one_file_is_for_training_and_a_folder_says_the_rest(here):
    (here / "mine.csv").write_text(ROWS)
    assert split_files("mine.csv") == {"train": here / "mine.csv"}
    folder = here / "folder"
    folder.mkdir()
    for name in ("train.csv", "test.jsonl", "meta.json"):
        (folder / name).write_text(ROWS)
    assert split_files("./folder") == {"train": folder / "train.csv", "test": folder / "test.jsonl"}


def test_the_options_reset_the_splits_that_other_files_may_have_set(here):
    (here / "mine.csv").write_text(ROWS)
    options = {"class_path": "TextFiles", "train": str(here / "mine.csv")}
    assert file_options("mine.csv") == {**options, "validation": "null", "test": "null"}
    assert file_options("mine.csv", ["test", "max_length"]) == {**options, "validation": "null"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["reviews.csv"], "one file each for train"),
        ([], "no data file"),
        (["train.csv", "dev.csv"], "got dev.csv, train.csv; rename them"),
        (["train.csv", "train.jsonl"], "got train.csv, train.jsonl"),
    ],
)
def test_a_folder_that_does_not_say_which_file_is_which_is_one_line_with_the_yaml(here, names, said):
    (here / "folder").mkdir()
    for name in names:
        (here / "folder" / name).write_text(ROWS)
    with pytest.raises(ConfigurationError) as error:
        file_options("folder/")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert _yaml_in(str(error.value))["data"]["init_args"].keys() == {"train", "validation", "test"}


def test_other_columns_are_named_and_written_into_the_yaml(here):
    (here / "mine.csv").write_text("review,stars\ngood,1\n")
    with pytest.raises(ConfigurationError, match="but got 'review', 'stars'") as error:
        file_options("mine.csv")
    assert _yaml_in(str(error.value)) == {
        "data": {
            "class_path": "TextFiles",
            "init_args": {"train": str(here / "mine.csv"), "text_column": "TEXT", "label_column": "LABEL"},
        }
    }
    assert file_options("mine.csv", ["text_column", "label_column"])["train"] == str(here / "mine.csv")


@pytest.mark.parametrize(("value", "said"), [("none.csv", "does not exist"), ("./mine.doc", "to end in .jsonl")])
def test_what_is_not_there_or_of_another_kind(here, value, said):
    (here / "mine.doc").write_text("x")
    with pytest.raises(ConfigurationError, match=said):
        file_options(value)


def test_a_method_alone_stands_on_the_base(here):
    make_experiments(here, ("base", "method/ivat"), "trainer: {max_epochs: 2}\n")
    experiments = Experiments()
    assert [path.stem for path in method_without_data(experiments, "ivat").files] == ["base", "ivat"]
    with pytest.raises(ConfigurationError, match="Did you mean ivat"):
        method_without_data(experiments, "ivta")


def _yaml_in(message):
    return yaml.safe_load(message.split("`")[-2])
