"""A study from its cells to tables, with run folders that are there already."""

import json
import os
from unittest import mock

from attn_lightning.report.study_data import read_study_folder
from attn_lightning.study.expansion import expand
from attn_lightning.study.running import StudyRun

STUDY = "methods: [vanilla, iat]\ndata: [planted]\nseeds: 1\nmetrics: [test/accuracy]\n"
RUN = {"test": True, "control": False, "suite": "none"}


def parse(arguments):
    return {"seed_everything": 0, "method": None, "run": RUN}


def made(study, root):
    return StudyRun(study(STUDY), expand(study(STUDY)), root, parse, lambda config: {})


def ended(run, name, **record):
    folder = run.root / name / "seed_0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(parse([])))
    (folder / "metrics.json").write_text(json.dumps(record))


def test_tables_of_what_is_there_and_a_code_for_what_is_missing(study, tmp_path, capsys):
    run = made(study, tmp_path / "tried")
    ended(run, "vanilla_planted", status="complete", finished={"test": {}}, test={"test/accuracy": 0.75})
    assert [state.state for _, state in run.states()] == ["complete", "missing"]
    assert run.show() == 1
    assert "0.7500" in (run.root / "table.md").read_text()
    assert "vanilla" in (run.root / "table.csv").read_text()
    ended(run, "iat_planted", status="complete", finished={"test": {}}, test={"test/accuracy": 0.5})
    assert run.show() == 0
    assert "tables: " in capsys.readouterr().out


def test_a_report_leaves_out_what_the_tables_do_not_count(study, tmp_path):
    """A run of an earlier version of the study lies in the place of a cell until that is run again."""
    run = made(study, tmp_path / "tried")
    # As the parser reads the file of a run: it has another method than the study.
    run.parse = lambda arguments: {**parse(arguments), "method": "another"}
    ended(run, "vanilla_planted", status="complete", finished={"test": {}}, test={"test/accuracy": 0.75})
    ended(run, "iat_planted", status="complete", finished={"test": {}}, test={"test/accuracy": 0.5})
    earlier = run.root / "iat_planted" / "seed_0" / "config.yaml"
    earlier.write_text(json.dumps({**parse([]), "method": "another"}))
    run.show()
    assert "INCOMPLETE: 1 missing" in (run.root / "table.md").read_text()
    found = read_study_folder(run.root)
    assert [state.state for _, state in found.results] == ["complete", "missing"]
    assert found.notes[0].startswith("left out: iat_planted/seed_0: runs of other options or data than tried asks for")
    # A new run in its place counts before anybody has asked the study again.
    earlier.with_name("metrics.json").write_text(json.dumps({"status": "complete", "test": {"test/accuracy": 0.6}}))
    assert [state.state for _, state in read_study_folder(run.root).results] == ["complete", "complete"]


def test_runs_that_saw_other_data_are_named_with_the_reason(study, tmp_path, capsys):
    """A method that sets an option of generated data is compared with nothing, however often it is run."""
    run = made(study, tmp_path / "tried")
    done = {"status": "complete", "finished": {"test": {}}, "test": {"test/accuracy": 0.75}}
    for name, revision in (("vanilla_planted", "without noise"), ("iat_planted", "with noise")):
        ended(run, name, **done, data={"source": {"kind": "embedded", "revision": revision}})
    os.utime(run.root / "vanilla_planted" / "seed_0" / "config.yaml", (1, 1))
    assert run.show() == 1
    printed = capsys.readouterr().out
    assert "left out: vanilla_planted/seed_0: of other data than the newest run of the same table; " in printed
    assert "left out: vanilla_planted/seed_0: of other data" in (run.root / "table.md").read_text()


def test_failed_cells_are_named_with_what_happened(study, tmp_path, capsys):
    run = made(study, tmp_path / "tried")
    ended(run, "iat_planted", status="failed", error="NumericalError: not finite")
    assert run.show() == 1
    printed = capsys.readouterr().out
    assert "failed: iat_planted/seed_0: NumericalError: not finite" in printed
    assert "--retry-failed" in printed


def test_a_study_without_anything_to_do_starts_nothing(study, tmp_path, capsys):
    run = made(study, tmp_path / "tried")
    for name in ("vanilla_planted", "iat_planted"):
        ended(run, name, status="complete", finished={"test": {}}, test={})

    engine = mock.Mock(place="here", **{"close.return_value": ""})
    run.run(engine, lambda planned: [], retry_failed=False)
    assert run.errors == {}
    engine.submit.assert_not_called()
    engine.close.assert_called_once_with()
    assert capsys.readouterr().out == "tried: 2 cells (2 complete); here\n"
