"""Naming, making and finding run folders."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json


def test_versions_count_up_and_gaps_are_not_filled(tmp_path):
    assert run_folder.create(tmp_path, "a", None).name == "version_0"
    (tmp_path / "a" / "version_7").mkdir()
    (tmp_path / "a" / "version_x").mkdir()
    (tmp_path / "a" / "mine").mkdir()
    assert run_folder.create(tmp_path, "a", None).name == "version_8"
    assert run_folder.create(tmp_path, "b", None).name == "version_0"


def test_runs_started_together_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: run_folder.create(tmp_path, "a", None), range(24)))
    assert len(set(folders)) == 24


def test_a_named_version_is_made_once(tmp_path):
    folder = run_folder.create(tmp_path, "a", "seed=3")
    assert folder == tmp_path / "a" / "seed=3"
    with pytest.raises(ConfigurationError, match=r"never overwritten.*last\.ckpt"):
        run_folder.create(tmp_path, "a", "seed=3")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a b", "a\n", "\x1b[31m"])
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match=r"run\.name"):
        run_folder.create(tmp_path, name, None)
    with pytest.raises(ConfigurationError, match=r"run\.version"):
        run_folder.create(tmp_path, "a", name)


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"--run\.root"):
        run_folder.create(tmp_path / "file", "a", None)


def test_an_unused_folder_is_removed_and_a_used_one_kept(tmp_path):
    unused, used = (run_folder.create(tmp_path, "a", None) for _ in range(2))
    write_json(used / run_folder.METRICS, {})
    run_folder.remove_unused(unused)
    run_folder.remove_unused(used)
    assert not unused.exists()
    assert used.exists()


def test_the_last_unused_folder_takes_its_empty_parent_along_but_not_the_root(tmp_path):
    run_folder.remove_unused(run_folder.create(tmp_path, "a", None))
    assert list(tmp_path.iterdir()) == []


def test_the_run_of_a_checkpoint(tmp_path):
    inside = tmp_path / "run" / "checkpoints" / "best.ckpt"
    assert run_folder.of_checkpoint(inside) == tmp_path / "run"
    assert run_folder.of_checkpoint(tmp_path / "moved" / "best.ckpt") == tmp_path / "moved"


def test_the_newest_last_checkpoint_is_found(tmp_path):
    for name, age in (("version_0", 100), ("version_1", 300), ("version_10", 200), ("version_1.set_aside_0", 400)):
        path = tmp_path / "a" / name / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.write_text("")
        os.utime(path, (age, age))
    assert run_folder.last_checkpoint(tmp_path, "a").parts[-3] == "version_1"
    with pytest.raises(ConfigurationError, match="without `--ckpt_path`"):
        run_folder.last_checkpoint(tmp_path, "b")


def test_metrics_are_read_back(tmp_path):
    assert run_folder.read_metrics(tmp_path) == {}
    contents = {"a": 1.5, "name": "ü", "none": None}
    write_json(tmp_path / run_folder.METRICS, contents)
    assert run_folder.read_metrics(tmp_path) == contents
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.METRICS]


def test_numbers_that_json_has_no_word_for_become_null(tmp_path):
    write_json(tmp_path / run_folder.METRICS, {"a": float("nan"), "b": [float("inf"), 1.0]})
    assert run_folder.read_metrics(tmp_path) == {"a": None, "b": [None, 1.0]}


def test_a_damaged_record(tmp_path):
    (tmp_path / run_folder.METRICS).write_text('{"a": ')
    with pytest.raises(ConfigurationError, match="remove the file"):
        run_folder.read_metrics(tmp_path)


def test_nothing_is_set_aside_twice_to_one_place_and_empty_folders_go(tmp_path):
    for expected in ("run.set_aside_0", "run.set_aside_1"):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "file").write_text("")
        assert run_folder.set_aside(tmp_path / "run") == tmp_path / expected
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert run_folder.set_aside(tmp_path / "run") is None
    assert not (tmp_path / "run").exists()


RUN = {"test": True, "control": True, "suite": "fast", "suite_untrained": True, "suite_examples": 5,
       "suite_explainers": "gradient"}  # fmt: skip


def test_a_run_is_finished_when_all_is_there_that_was_asked_for():
    parts = run_folder.asked(RUN)
    assert set(parts) == {"test", "control", "suite"}
    assert run_folder.asked({**RUN, "test": False}) == {}
    assert set(run_folder.asked({**RUN, "control": False, "suite": "none"})) == {"test"}
    record = {"status": "complete", "finished": parts}
    assert run_folder.is_finished(record, parts)
    assert run_folder.is_finished(record, {})
    assert not run_folder.is_finished({**record, "status": "running"}, parts)
    assert not run_folder.is_finished({**record, "finished": {"test": {}}}, parts)
    assert not run_folder.is_finished(record, run_folder.asked({**RUN, "suite": "all"}))


def test_records_of_older_versions_are_finished_when_they_are_tested():
    assert run_folder.is_finished({"status": "complete", "test": {}}, run_folder.asked(RUN))
    assert not run_folder.is_finished({"status": "complete"}, run_folder.asked(RUN))


def test_the_newest_runs_come_first_and_those_that_were_set_aside_do_not_come(tmp_path):
    for number, name in enumerate(["version_0", "version_1", "version_0.set_aside_0", "none"]):
        (tmp_path / name).mkdir()
        if name != "none":
            (tmp_path / name / "config.yaml").write_text("")
            os.utime(tmp_path / name / "config.yaml", (number, number))
    assert [path.name for path in run_folder.runs(tmp_path)] == ["version_1", "version_0"]


def test_the_newest_configuration_is_that_of_the_last_continuation(tmp_path):
    assert run_folder.newest_config(tmp_path) is None
    for name in ("config.yaml", "config_resumed_1.yaml", "config_resumed_2.yaml"):
        (tmp_path / name).write_text("")
        assert run_folder.newest_config(tmp_path) == tmp_path / name
