"""Studies from their folders: by their record, by the names of the runs, and with runs that do not belong."""

import json

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.report.study_data import cost_metric, read_study_folder, seconds, wanting
from attn_lightning.study.configuration import Study
from attn_lightning.study.record import bare_cell, bare_variant, write_record
from attn_lightning.study.table import tables


@pytest.fixture
def folder(make_run, tmp_path):
    """Two methods by two seeds without a record."""
    for method, gain in (("vanilla", 0.0), ("ivat", 0.1)):
        for seed in range(2):
            make_run(f"{method}_mine", f"seed_{seed}", seed=seed, accuracy=0.7 + gain + seed / 100)
    return tmp_path / "runs"


def recorded(folder, *cells, **changes):
    study = Study(
        name="mine",
        experiments=folder,
        methods=(bare_variant("plain"), bare_variant("virtual")),
        data=(bare_variant("texts"),),
        options=(bare_variant(""),),
        seeds=(0, 1),
        metrics=("test/accuracy",),
        baseline="plain",
    )
    write_record(folder, study, cells)


def test_without_a_record_names_say_what_was_compared(folder):
    found = read_study_folder(folder)
    assert [variant.label for variant in found.study.methods] == ["ivat", "vanilla"]
    assert [variant.label for variant in found.study.data] == ["mine"]
    assert found.study.baseline == "vanilla"
    assert found.study.seeds == (0, 1)
    accuracy = tables(found.study, found.results)[0]
    assert accuracy.metric == "test/accuracy"
    assert {row.method: row.summary.mean for row in accuracy.rows if row.asked} == {
        "ivat": pytest.approx(0.805),
        "vanilla": pytest.approx(0.705),
    }
    assert seconds(found) == 2 * (2.0 + 3.0)
    assert wanting(found) == []


def test_time_is_that_of_the_cpu_where_all_runs_have_it(folder):
    records = sorted(folder.rglob("metrics.json"))
    for place, path in enumerate(records):
        contents = json.loads(path.read_text())
        contents["cost"]["cpu_seconds"] = 10.0
        path.write_text(json.dumps(contents))
        found = read_study_folder(folder)
        whole = place == len(records) - 1
        assert cost_metric(found) == ("cost/cpu_seconds" if whole else "cost/fit_seconds")
        assert seconds(found) == (40.0 if whole else 10.0)


def test_the_record_of_the_study_says_more(folder):
    cells = [bare_cell("plain", "texts", "", seed, "vanilla_mine") for seed in (0, 1)]
    cells += [bare_cell("virtual", "texts", "", seed, "ivat_mine") for seed in (0, 1, 2)]
    recorded(folder, *cells)
    found = read_study_folder(folder)
    assert found.study.metrics == ("test/accuracy",)
    assert [state.state for _, state in found.results] == ["complete"] * 4 + ["missing"]
    assert wanting(found) == ["mine: 4 of 5 runs are complete (1 missing)"]


def test_a_damaged_record_is_a_note(folder):
    (folder / "study.json").write_text("{")
    found = read_study_folder(folder)
    assert len(found.runs) == 4
    assert "the names of the runs are used" in found.notes[0]


def test_a_damaged_run_is_a_note(folder):
    (folder / "ivat_mine" / "seed_1" / "metrics.json").write_text("{")
    found = read_study_folder(folder)
    assert len(found.runs) == 3
    assert found.notes[0].startswith("left out: Expected")


def test_runs_on_other_examples_are_left_out(folder, make_run):
    splits = {"test": {"rows": 3, "sha256": "another"}}
    make_run("other_mine", "seed_0", data="mine")
    path = make_run("changed_mine", "seed_0")
    record = json.loads((path / "metrics.json").read_text())
    record["data"]["splits"] = splits
    (path / "metrics.json").write_text(json.dumps(record))
    found = read_study_folder(folder)
    states = {cell.method: state.state for cell, state in found.results}
    assert states["changed"] == "missing"
    assert states["other"] == "complete"
    assert any("was tested on other examples" in note for note in found.notes)


@pytest.mark.parametrize(("kind", "left_out"), [("files", True), ("embedded", False)])
def test_runs_on_files_that_have_changed_since_are_left_out(folder, make_run, kind, left_out):
    sources = {"other": "a", "more": "a", "ivat": "a", "vanilla": "a", "changed": "b"}
    for name in ("other_mine", "more_mine", "changed_mine"):
        make_run(name, "seed_0", data="mine")
    for path in folder.glob("*/*/metrics.json"):
        record = json.loads(path.read_text())
        revision = sources[path.parent.parent.name.removesuffix("_mine")]
        record["data"]["source"] = {"kind": kind, "revision": revision}
        path.write_text(json.dumps(record))
    found = read_study_folder(folder)
    states = {cell.method: state.state for cell, state in found.results}
    assert states["other"] == "complete"
    assert states["changed"] == ("missing" if left_out else "complete")
    assert any("was trained on other files" in note for note in found.notes) == left_out


def test_generated_test_examples_may_follow_the_seed(folder):
    for path in folder.glob("*/*/metrics.json"):
        record = json.loads(path.read_text())
        revision = "noisy" if path.parent.parent.name == "ivat_mine" else f"seed {record['seed']}"
        record["data"]["source"] = {"kind": "embedded", "revision": revision}
        record["data"]["splits"]["test"]["sha256"] = f"digest of seed {record['seed']}"
        path.write_text(json.dumps(record))
    found = read_study_folder(folder)
    assert [state.state for _, state in found.results] == ["complete"] * 4
    assert found.notes == ()


def test_runs_on_copies_of_two_kinds_stay_together_where_their_texts_are_equal(folder, make_run):
    make_run("changed_mine", "seed_0", data="mine")
    copies = {
        "vanilla_mine": ("folder", "digest", "texts"),
        "ivat_mine": ("hub", "commit", "texts"),
        "changed_mine": ("hub", "another commit", "others"),
    }
    for path in folder.glob("*/*/metrics.json"):
        record = json.loads(path.read_text())
        kind, revision, digest = copies[path.parent.parent.name]
        record["data"]["source"] = {"kind": kind, "revision": revision}
        record["data"]["splits"]["train"] = {"sha256": digest}
        path.write_text(json.dumps(record))
    found = read_study_folder(folder)
    states = {cell.method: state.state for cell, state in found.results}
    assert states == {"vanilla": "complete", "ivat": "complete", "changed": "missing"}


def test_failed_and_unfinished_runs_are_shown(folder, make_run):
    make_run("vat_mine", "seed_0", status="failed", error="oh")
    make_run("vat_mine", "seed_1", seed=1, status="running")
    found = read_study_folder(folder)
    assert [state.state for cell, state in found.results if cell.method == "vat"] == ["failed", "unfinished"]
    assert wanting(found) == ["runs: 4 of 6 runs are complete (1 failed, 1 unfinished)"]


def test_versions_of_one_seed_are_told_apart(make_run, tmp_path):
    make_run("ivat_mine", "version_0")
    make_run("ivat_mine", "version_1")
    found = read_study_folder(tmp_path / "runs" / "ivat_mine")
    assert [variant.label for variant in found.study.methods] == ["ivat", "ivat version_1"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no run in it"):
        read_study_folder(tmp_path)
