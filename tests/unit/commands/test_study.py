"""The command `study`: what it checks before anything runs."""

import pytest

from attn_lightning.commands.study import study_command
from attn_lightning.errors import ConfigurationError
from support.studies import tiny_study


@pytest.fixture(autouse=True)
def warm(monkeypatch):
    """No server of warm workers: nothing is run here."""
    monkeypatch.setattr("attn_lightning.study.engines.local.LocalEngine.warm_up", lambda self: None)


@pytest.fixture
def study(tmp_path):
    return tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], ["test/accuracy"], trainer__max_epochs=3)


def test_a_dry_run_prints_commands_that_are_accepted(study, tmp_path, capsys):
    assert study_command([str(study), "--dry-run", "--root", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 5
    assert all(line.startswith("python -m attn_lightning fit --config ") for line in lines[:-1])
    assert "4 commands, all accepted" in lines[-1]
    assert not (tmp_path / "runs").exists()


def test_commands_that_fit_would_refuse_are_listed_before_anything_runs(study, tmp_path):
    study.write_text(study.read_text().replace("trainer.accelerator", "trainer.acelerator"))
    with pytest.raises(ConfigurationError, match=r"(?s)2 it refuses.*trainer\.acelerator"):
        study_command([str(study), "--root", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--jobs", "0"),
        ("--jobs", "two"),
        ("--dry",),
        ("--dry-run", "--publish", "results.md"),
        ("--dry-run", "--archive", "tiny.jsonl.gz"),
        ("--table", "--archive", "tiny.json"),
        ("--table", "--archive", "nowhere/tiny.jsonl.gz"),
        ("--cell", "ivat_planted/seed_0", "--archive", "tiny.jsonl.gz"),
        ("--cell", "ivat_planted/seed_0", "--table"),
        ("--on", "slrm"),
    ],
)
def test_bad_arguments_are_one_line(study, options):
    with pytest.raises(ConfigurationError) as error:
        study_command([str(study), *options])
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_published_to_is_refused_before_anything_runs(study, tmp_path):
    (tmp_path / "results.md").write_text("<!-- study tiny -->")
    options = ["--root", str(tmp_path / "runs"), "--publish", str(tmp_path / "results.md")]
    with pytest.raises(ConfigurationError, match="mend them by hand"):
        study_command([str(study), *options])
    assert not (tmp_path / "runs").exists()


def test_an_unknown_cell_names_the_nearest(study, tmp_path):
    with pytest.raises(ConfigurationError, match=r"one of the 4 cells .* Did you mean vanilla_planted/seed_1, "):
        study_command([str(study), "--cell", "vanila_planted/seed_1", "--root", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


def test_one_cell_is_run_once_however_often_it_is_asked_for(study, tmp_path, capsys):
    asked = [str(study), "--cell", "vanilla_planted/seed_0", "--root", str(tmp_path / "runs")]
    assert study_command(asked) == 0
    record = tmp_path / "runs" / "tiny" / "vanilla_planted" / "seed_0" / "metrics.json"
    written = record.stat().st_mtime_ns
    capsys.readouterr()
    assert study_command(asked) == 0
    assert capsys.readouterr().out == "nothing to do: vanilla_planted/seed_0 is complete\n"
    assert record.stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir() if path.name[0] != "."] == ["vanilla_planted"]


def test_a_study_goes_on_from_its_archive_where_its_runs_are_not(tmp_path, capsys):
    study = tiny_study(tmp_path / "tiny.yaml", ["vanilla"], ["test/accuracy"], trainer__max_epochs=1)
    archive = tmp_path / "tiny.jsonl.gz"
    cell = [str(study), "--cell", "vanilla_planted/seed_0", "--root", str(tmp_path / "here")]
    assert study_command(cell) == 0
    table = [str(study), "--table", "--no-report", "--archive", str(archive)]
    assert study_command([*table, "--root", str(tmp_path / "here")]) == 1
    assert "1 cells" in capsys.readouterr().out
    assert study_command([*table, "--root", str(tmp_path / "there")]) == 1
    assert "1 finished cells are taken" in capsys.readouterr().out
    tables = [(tmp_path / where / "tiny" / "table.csv").read_text() for where in ("here", "there")]
    assert tables[0] == tables[1]
    assert study_command([*cell[:-1], str(tmp_path / "there")]) == 0
    assert "nothing to do: vanilla_planted/seed_0 is complete" in capsys.readouterr().out
    # Another length of training is another run, and the number of this one does not stand for it.
    study.write_text(study.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    assert study_command([*table, "--root", str(tmp_path / "elsewhere")]) == 1
    assert "1 cells of" in capsys.readouterr().out
    assert not (tmp_path / "elsewhere" / "tiny" / "vanilla_planted" / "seed_0").exists()


def test_a_study_without_a_file_is_checked_and_written_only_if_it_runs(tmp_path, monkeypatch, capsys):
    data = tmp_path / "mine.yaml"
    data.write_text("data: {class_path: Planted, init_args: {train_documents: 50}}\n")
    asked = ["--methods=vanilla,ivat", "--data", str(data), "--seeds=2", "--root", str(tmp_path / "runs")]
    assert study_command([*asked, "--metrics=accuracy", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("fit --config" in line for line in lines) == 4
    assert str(data) in lines[0]
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigurationError, match=r"got 'test/acuracy': nothing logs it\. Did you mean test/accuracy"):
        study_command([*asked, "--metrics=acuracy", "--dry-run"])
    with pytest.raises(
        ConfigurationError, match=r"evaluation/faithfulness/attention/comprehensivenes.*nothing logs it"
    ):
        study_command([*asked, "--metrics=evaluation/faithfulness/attention/comprehensivenes", "--dry-run"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], r"`--methods` and `--data` \(with `--seeds`"),
        (["--methods=ivat"], "`--methods` and `--data`"),
        (["main_planted", "--seeds=3"], "leave one out"),
    ],
)
def test_a_study_and_options_of_one_exclude_each_other(options, said):
    with pytest.raises(ConfigurationError, match=said):
        study_command(options)
