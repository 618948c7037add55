"""Whether a run is the one that a command asks for."""

import json

import pytest
import yaml

from attn_lightning.commands.same_run import DATA_FILES, SameRun, differing
from attn_lightning.data.revision import Version, model_place

CONFIG = {
    "seed_everything": 0,
    "method": {"class_path": "A", "init_args": {"weight": 1.0}},
    "trainer": {"max_epochs": 3, "enable_progress_bar": None},
    "run": {"root": "runs", "monitor": "val/accuracy", "monitor_mode": "max"},
    "data": {"class_path": "B", "init_args": {"batch_size": 4, "cache": "x"}},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "metrics.json").write_text(json.dumps({"data": {"source": {"revision": "a"}}}))
    return tmp_path


def refuse(path):
    raise SystemExit(2)


def same(revision="a", parse=refuse, **changes):
    return SameRun(lambda: {**CONFIG, **changes}, parse, lambda: {"": Version(revision)})


def test_the_same_configuration_and_data(folder):
    assert same().differences(folder) == []


def test_where_it_lies_and_what_it_shows_is_no_difference(folder):
    run = {"root": "elsewhere", "monitor": "val/accuracy", "monitor_mode": None}
    trainer = {"max_epochs": 3, "enable_progress_bar": True, "logger": False}
    data = {"class_path": "B", "init_args": {"batch_size": 4, "cache": "y"}}
    assert same(run=run, trainer=trainer, data=data).differences(folder) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"seed_everything": 1}, ["seed_everything"]),
        ({"method": {"class_path": "A", "init_args": {"weight": 2.0}}}, ["method.weight"]),
        ({"method": None}, ["method"]),
        ({"trainer": {"max_epochs": 4, "enable_progress_bar": None}}, ["trainer.max_epochs"]),
        ({"data": {"class_path": "B", "init_args": {"batch_size": 8}}}, ["data.batch_size"]),
    ],
)
def test_what_decides_about_the_result_is_named(folder, change, names):
    assert same(parse=lambda path: yaml.safe_load(path.read_text()), **change).differences(folder) == names


def test_files_that_have_changed_are_a_difference(folder):
    assert same(revision="b").differences(folder) == [DATA_FILES]


@pytest.mark.parametrize("now", ["1", "2"])
def test_a_model_that_has_changed_is_named_by_its_option(folder, now):
    models = {"teacher_checkpoint": {"revision": "1"}}
    (folder / "metrics.json").write_text(json.dumps({"data": {"source": {"revision": "a"}}, "models": models}))
    run = SameRun(lambda: CONFIG, refuse, lambda: {"": Version("a"), model_place("teacher_checkpoint"): Version(now)})
    assert run.differences(folder) == ([] if now == "1" else ["the file of method.teacher_checkpoint"])


def test_an_older_configuration_gets_the_defaults_of_today(folder):
    newer = {"class_path": "A", "init_args": {"weight": 1.0, "new": 0}}
    parsed = {**CONFIG, "method": newer}
    assert same(method=newer, parse=lambda path: parsed).differences(folder) == []
    assert same(method=newer).differences(folder) == ["its configuration, which cannot be read"]


def test_a_folder_without_configuration_is_another_run(tmp_path):
    assert same().differences(tmp_path) == ["its configuration, which is missing"]


def test_names_of_nested_values():
    one = {"a": {"b": 1, "init_args": {"c": 2}}, "d": 3}
    assert differing(one, {"a": {"b": 1, "init_args": {"c": 3}}}) == ["a.c", "d"]
