"""The command of one cell: claimed, looked at, then skipped, resumed or run."""

import json

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.locks import Claim
from attn_lightning.study.cell_run import HELD, claim_path, holder, run_cell
from support import cells
from support.cells import based, parse, planned


@pytest.fixture
def run(tmp_path):
    def one(cell, fit=cells.fit):
        return run_cell(cell, tmp_path, parse, fit)

    return one


def starts(tmp_path, name):
    return len((tmp_path / name / "seed_0" / "starts.txt").read_text().splitlines())


def test_as_often_as_it_is_asked_it_runs_once(run, tmp_path, capsys):
    assert [run(planned("a")) for _ in range(3)] == [0, 0, 0]
    assert starts(tmp_path, "a") == 1
    assert capsys.readouterr().out == "nothing to do: a/seed_0 is complete\n" * 2
    assert holder(tmp_path, planned("a").cell) is None


def test_success_is_what_the_run_folder_says(run):
    assert run(planned("a"), lambda arguments: 0) == 1


def test_one_that_another_process_has_is_left_to_it(run, tmp_path, capsys):
    claim = Claim(claim_path(tmp_path, planned("a").cell))
    assert run(planned("a")) == HELD
    assert capsys.readouterr().out.startswith("a/seed_0 is being run by process ")
    assert not (tmp_path / "a").exists()
    claim.release()
    assert run(planned("a")) == 0


def test_a_failed_one_runs_again_only_if_asked(run, tmp_path, capsys):
    with pytest.raises(ConfigurationError, match="not finite"):
        run(planned("a", behave="fails"))
    assert run(planned("a")) == 1
    assert "NumericalError: not finite; `--retry-failed` runs it again" in capsys.readouterr().out
    assert run(planned("a", retry=True)) == 0
    kept = tmp_path / "a" / "seed_0.set_aside_0" / "metrics.json"
    assert json.loads(kept.read_text())["status"] == "failed"


def test_an_interrupted_one_goes_on_in_its_folder(run, tmp_path):
    def stopped(arguments):
        raise KeyboardInterrupt

    run(planned("a"))
    cells.write_record(tmp_path / "a" / "seed_0", status="interrupted")
    with pytest.raises(KeyboardInterrupt):
        run(planned("a"), stopped)
    assert run(planned("a")) == 0
    assert starts(tmp_path, "a") == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["seed_0"]


def test_one_that_fails_after_it_went_on_is_not_started_over(run, tmp_path):
    run(planned("a"))
    cells.write_record(tmp_path / "a" / "seed_0", status="interrupted")
    with pytest.raises(ConfigurationError, match="not finite"):
        run(planned("a", behave="fails"))
    assert starts(tmp_path, "a") == 2
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["seed_0"]


def test_without_its_base_it_is_not_begun(run, tmp_path):
    with pytest.raises(ConfigurationError, match=r"a/seed_0 to be complete, which b/seed_0 begins from"):
        run(based("b", "a"))
    assert not (tmp_path / "b").exists()
    assert run(planned("a")) == 0
    assert run(based("b", "a")) == 0
