"""The command `report`: its options, what it prints, and what it answers."""

import json
import shutil

import pytest

from attn_lightning.commands.report import folder_of, report_command, report_in_place
from attn_lightning.errors import ConfigurationError


@pytest.fixture
def run(tmp_path):
    """The least that is a run."""

    def make(name="ivat_mine"):
        folder = tmp_path / "runs" / name / "v"
        folder.mkdir(parents=True)
        record = {
            "name": name,
            "status": "complete",
            "seed": 0,
            "test": {"test/accuracy": 0.5},
            "data": {"name": "mine"},
        }
        (folder / "metrics.json").write_text(json.dumps(record))
        return folder

    return make


def test_a_page_is_made_and_named_last(run, tmp_path, capsys):
    folder = run()
    code = report_command([str(folder), "--no-figures", "--documents=0"])
    assert code == 0
    assert (folder / "report" / "report.html").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report' / 'report.html'}"


def test_what_cannot_be_read_is_a_line_and_an_exit_code(run, tmp_path, capsys):
    folder = run()
    code = report_command(
        [str(folder), str(tmp_path / "now\x1bhere"), "--output", str(tmp_path / "out"), "--no-figures"]
    )
    printed = capsys.readouterr().out
    assert code == 1
    assert "now here is no folder" in printed
    assert "ivat_mine/v is shown without documents" in printed
    assert (tmp_path / "out" / "report.html").is_file()


def test_metrics_are_named_as_in_a_study_and_one_that_no_run_has_is_said(run, capsys):
    folder = run()
    attacked = "evaluation/robustness/accuracy_area[where=scores,attack=pgd,target=label]"
    record = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**record, "evaluation": {attacked: 0.25}}))
    report_command([str(folder), "--no-figures", "--documents=0", f"--metrics=accuracy,{attacked},acuracy"])
    (table,) = (folder / "report" / "tables").glob("*.csv")
    header, row = table.read_text().splitlines()[:2]
    assert header.count(": mean") == 2
    assert row.split(",")[1] == "0.5"
    assert "0.25" in row
    assert "note: No finished run has 'test/acuracy'. Did you mean test/accuracy" in capsys.readouterr().out


def test_metrics_and_style_of_the_tables(run, tmp_path):
    options = ["--metrics", "cost/fit_seconds, test/accuracy", "--style=mean", "--no-figures"]
    report_command([str(run()), "--output", str(tmp_path / "out"), *options])
    table = (tmp_path / "out" / "tables" / "runs-mine.md").read_text()
    assert "| Method | Accuracy ↑ |" in table


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--style=no"], ["x", "--documents=-1"], ["x", "--documents=a"], ["x", "--no"]]
)
def test_bad_options_are_one_line(run, tmp_path, arguments):
    given = [str(run()), *arguments[1:]] if arguments else []
    with pytest.raises(ConfigurationError) as error:
        report_command(given)
    assert "\n" not in str(error.value)


def test_a_study_is_found_by_name_and_by_file(run, tmp_path):
    run()
    root = tmp_path / "runs"
    assert folder_of("ivat_mine", root) == root / "ivat_mine"
    assert folder_of("experiments/studies/ivat_mine.yaml", root) == root / "ivat_mine"
    assert folder_of(str(root / "ivat_mine"), tmp_path) == root / "ivat_mine"
    assert str(folder_of("nothing", root)) == "nothing"
    shutil.rmtree(root)
    assert str(folder_of("ivat_mine", root)) == "ivat_mine"


def test_a_report_at_the_end_of_a_run_lies_in_its_folder(run, capsys):
    folder = run()
    report_in_place(folder, figures=False)
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {folder / 'report' / 'report.html'}"
    assert (folder / "report" / "report.html").is_file()


def test_a_report_that_cannot_be_made_is_a_line_and_no_error(run, capsys):
    folder = run()
    (folder / "report").write_text("a file")
    report_in_place(folder, figures=False)
    report_in_place(folder.parent.parent / "nowhere", figures=False)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    assert all(line.startswith("no report: Expected ") for line in printed)
