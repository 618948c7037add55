"""What a run folder says about its cell."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from attn_lightning.data.revision import Version
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState, Wanted, cell_state, comparable, resumable, without_other_data


def parse(arguments):
    return yaml.safe_load(Path(arguments[2]).read_text())


@pytest.fixture
def folder(tmp_path):
    """The run folder of a cell that was interrupted after its first epoch."""
    folder = tmp_path / "seed_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    (folder / "metrics.json").write_text('{"status": "running"}')
    return folder


WANTED = Wanted(comparable({"seed_everything": 0}))


def test_only_a_run_with_checkpoint_and_configuration_goes_on(folder):
    assert resumable(folder) == folder / "checkpoints" / "last.ckpt"
    (folder / "config.yaml").unlink()
    assert resumable(folder) is None


def test_states_that_need_no_look_into_the_configuration(folder, tmp_path):
    assert cell_state(tmp_path / "nowhere", WANTED, parse) == CellState("missing")
    (folder / "metrics.json").write_text('{"status": "failed", "error": "x"}')
    assert cell_state(folder, WANTED, parse) == CellState("failed", {"status": "failed", "error": "x"})


def test_a_base_that_was_made_again_makes_the_run_another(folder, tmp_path):
    base = tmp_path / "base.ckpt"
    base.write_text("")
    written = (folder / "config.yaml").stat().st_mtime
    os.utime(base, (written - 1, written - 1))
    files = {"method.base": base, "method.other": tmp_path / "gone.ckpt"}
    assert cell_state(folder, WANTED, parse, files).state == "unfinished"
    os.utime(base, (written + 1, written + 1))
    assert cell_state(folder, WANTED, parse, files).state == "different"


@pytest.mark.parametrize("name", ["base", "base/checkpoints/best.ckpt"])
def test_a_recorded_base_is_known_by_its_content_whatever_a_copy_did_to_its_times(folder, tmp_path, name):
    base = tmp_path / "base" / "checkpoints" / "best.ckpt"
    base.parent.mkdir(parents=True)
    base.write_text("weights")
    models = {"teacher_checkpoint": {"location": str(base), "revision": sha256(b"weights").hexdigest()}}
    (folder / "metrics.json").write_text(json.dumps({"status": "running", "models": models}))
    written, files = (folder / "config.yaml").stat().st_mtime, {"method.teacher_checkpoint": tmp_path / name}
    os.utime(base, (written + 9, written + 9))
    assert cell_state(folder, WANTED, parse, files).state == "unfinished"
    base.write_text("other weights")
    os.utime(base, (written - 9, written - 9))
    assert cell_state(folder, WANTED, parse, files).state == "different"


def test_runs_that_saw_other_files_than_the_newest_are_left_out():
    def run(revision, written):
        return CellState("complete", {"data": {"source": {"revision": revision}}}, written)

    cells = [Cell("iat", "sst", "", seed, Path("x.yaml"), (), "iat_sst", False) for seed in range(3)]
    states = without_other_data(dict(zip(cells, (run("old", 1), run("new", 3), run("new", 2)), strict=True)))
    assert [states[cell].state for cell in cells] == ["different", "complete", "complete"]


@pytest.mark.parametrize(
    ("options", "seeds", "states"),
    [
        (("negation=0", "negation=1"), (0, 0), ["complete", "complete"]),
        (("", ""), (0, 1), ["complete", "complete"]),
        (("", ""), (0, 0), ["different", "complete"]),
    ],
    ids=["options of the study", "{seed}", "methods of one table"],
)
def test_generated_data_may_differ_where_nothing_is_compared(options, seeds, states):
    def run(revision, written):
        return CellState("complete", {"data": {"source": {"kind": "embedded", "revision": revision}}}, written)

    names = ("iat", "at")
    cells = [Cell(names[k], "planted", options[k], seeds[k], Path("x.yaml"), (), f"x{k}", False) for k in range(2)]
    found = without_other_data(dict(zip(cells, (run("one", 1), run("other", 2)), strict=True)))
    assert [found[cell].state for cell in cells] == states


def test_runs_on_a_copy_of_another_kind_count_if_the_texts_are_equal():
    def run(kind, revision, digest, written):
        data = {"source": {"kind": kind, "revision": revision}, "splits": {"train": {"sha256": digest}}}
        return CellState("complete", {"data": data}, written)

    cells = [Cell("iat", "sst", "", seed, Path("x.yaml"), (), "iat_sst", False) for seed in range(3)]
    runs = (run("folder", "a", "texts", 1), run("folder", "b", "others", 2), run("hub", "c", "texts", 3))
    states = without_other_data(dict(zip(cells, runs, strict=True)))
    assert [states[cell].state for cell in cells] == ["complete", "different", "complete"]


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (Version("0f", "folder", (("train", "texts"),)), "complete"),
        (Version("1e", "folder", (("train", "texts"),)), "different"),
        (Version("c0ffee", "hub", (("train", "texts"),)), "complete"),
        (Version("c0ffee", "hub", (("train", "others"),)), "different"),
        (Version("c0ffee", "hub"), "complete"),
    ],
)
def test_a_run_is_held_to_the_data_that_is_there(folder, now, state):
    data = {"source": {"kind": "folder", "revision": "0f"}, "splits": {"train": {"sha256": "texts"}}}
    (folder / "metrics.json").write_text(json.dumps({"status": "complete", "data": data}))
    wanted = Wanted(WANTED.config, {}, {"": now})
    assert cell_state(folder, wanted, parse).state == state


def test_variants_with_pools_or_vectors_of_their_own_stay_beside_one_another():
    def run(location, revision, written):
        parts = {"source": {"revision": "texts"}, "unlabeled": {"source": {"location": location, "revision": revision}}}
        return CellState("complete", {"data": parts}, written)

    cells = [Cell("iat", "sst", name, 0, Path("x.yaml"), (), f"iat_sst_{name}", False) for name in ("a", "b", "c")]
    runs = (run("imdb", "old", 1), run("ag", "another", 2), run("imdb", "new", 3))
    states = without_other_data(dict(zip(cells, runs, strict=True)))
    assert [states[cell].state for cell in cells] == ["different", "complete", "complete"]


def test_trained_but_not_tested_is_not_complete(folder):
    metrics = folder / "metrics.json"
    metrics.write_text('{"status": "complete"}')
    tested = Wanted(comparable({"seed_everything": 0}), {"test": {}})
    (metrics.parent / "config.yaml").write_text("seed_everything: 0\nrun: {test: true}\n")
    assert cell_state(metrics.parent, tested, parse).state == "unfinished"
    metrics.write_text('{"status": "complete", "test": {}}')
    assert cell_state(metrics.parent, tested, parse).state == "complete"
    metrics.write_text('{"status": "comp')
    assert cell_state(metrics.parent, tested, parse).state == "unfinished"


@pytest.mark.parametrize(("monitor", "written"), [("val/accuracy", "max"), ("val/log_loss", "min"), ("epoch", "max")])
def test_a_run_that_wrote_its_direction_down_is_the_one_that_a_study_leaves_to_the_declaration(monitor, written):
    left = comparable({"run": {"monitor": monitor, "monitor_mode": None}})
    assert comparable({"run": {"monitor": monitor, "monitor_mode": written}}) == left
    other = "min" if written == "max" else "max"
    assert comparable({"run": {"monitor": monitor, "monitor_mode": other}}) != left


@pytest.mark.parametrize("root", ["runs/tried", "/home/ada/runs/tried", "../tried/"])
def test_a_run_of_the_same_study_is_named_by_its_place_there(root):
    """Where the folder of a study lies decides nothing, but which of its runs another one begins from does."""

    def begun_from(folder, of, **trainer):
        method = {"class_path": "L2X", "init_args": {"teacher_checkpoint": f"{folder.rstrip('/')}/{of}/best.ckpt"}}
        return comparable({"run": {"root": folder}, "method": method, "trainer": trainer})

    found = begun_from(root, "vanilla", callbacks=[{"init_args": {"path": f"{root.rstrip('/')}/x"}}])
    assert found == begun_from("elsewhere", "vanilla", callbacks=[{"init_args": {"path": "elsewhere/x"}}])
    assert "ada" not in str(found)
    assert found != begun_from("elsewhere", "at", callbacks=[{"init_args": {"path": "elsewhere/x"}}])
    # As an archive has it: without `run.root`.
    assert comparable(found) == found


def test_a_file_outside_of_the_study_is_named_in_full():
    method = {"init_args": {"teacher_checkpoint": "/models/best.ckpt"}}
    assert comparable({"run": {"root": "/models2"}, "method": method})["method"] == method
