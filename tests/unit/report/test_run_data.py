"""Run folders: what they say, and how damaged ones are met."""

import json

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.report.run_data import is_run, numbers, only_run, read_run, runs_below


def test_a_run_says_what_was_run(make_run):
    run = read_run(make_run())
    assert run.label == "ivat_mine/v"
    assert run.method == "AttentionIVAT(epsilon=1.0)"
    assert run.class_names == ["bad", "good"]
    assert run.values("test")["test/accuracy"] == 0.8
    assert list(run.suites) == ["best-mine-test"]
    assert run.notes == ()


def test_what_is_no_finite_number_is_left_out():
    assert numbers({"a": 1, "b": None, "c": "x", "d": float("inf"), "e": 0.5}) == {"a": 1.0, "e": 0.5}
    assert numbers("no mapping") == {}


@pytest.mark.parametrize("contents", ["", "{", "[1, 2]", "\x00"])
def test_a_damaged_record_is_one_line(make_run, contents):
    folder = make_run()
    (folder / "metrics.json").write_text(contents)
    with pytest.raises(ConfigurationError, match=r"Expected .*metrics\.json to be") as error:
        read_run(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_record_is_no_run(tmp_path):
    assert not is_run(tmp_path)
    with pytest.raises(ConfigurationError, match=r"Expected a run folder with a metrics\.json"):
        read_run(tmp_path)


def test_a_record_of_other_shapes_is_read_as_far_as_it_goes(make_run):
    run = read_run(make_run(seed=0, methods=3, data="mine", history={"epoch": 1}, test=[1], status=None))
    assert run.method == "none"
    assert run.history == []
    assert run.values("test") == {}
    assert run.status == "unknown"


def test_other_damaged_files_become_notes(make_run):
    folder = make_run()
    (folder / "config.yaml").write_text("a: [")
    (folder / "evaluation" / "best-mine-test" / "summary.json").write_text("{")
    run = read_run(folder)
    assert run.config == {}
    assert run.suites == {}
    assert len(run.notes) == 2
    assert all("\n" not in note for note in run.notes)


def test_runs_are_found_below_a_study_and_those_set_aside_are_not(make_run, tmp_path):
    kept = [make_run("a", "seed_0"), make_run("a", "seed_1"), make_run("b", "seed_0")]
    make_run("a", "seed_0.set_aside_0")
    hidden = make_run(".claims", "v")
    (tmp_path / "runs" / "logs").mkdir()
    assert runs_below(tmp_path / "runs") == kept
    assert hidden not in kept


def test_a_run_below_a_run_is_not_another(make_run, tmp_path):
    folder = make_run()
    inner = folder / "evaluations" / "test_0"
    inner.mkdir(parents=True)
    (inner / "metrics.json").write_text(json.dumps({}))
    assert runs_below(tmp_path) == [folder]


def test_the_folder_of_an_experiment_stands_for_its_only_run(make_run):
    run = make_run()
    assert only_run(run.parent) == run
    assert only_run(run) == run
    (run.parent / "study.json").write_text("{}")
    assert only_run(run.parent) == run.parent, "a study that has just begun"
    (run.parent / "study.json").unlink()
    again = make_run(version="w")
    assert only_run(run.parent) == run.parent
    with pytest.raises(ConfigurationError, match=r"with 2 runs in it, such as .*; name the folder of one run"):
        read_run(run.parent)
    assert only_run(again / "nowhere") == again / "nowhere"
