"""The command `study`: what it checks before anything runs."""

import pytest

from attn_lightning.commands.study import study_command
from attn_lightning.errors import ConfigurationError
from support.studies import tiny_study


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
    "options", [("--jobs", "0"), ("--jobs", "two"), ("--dry",), ("--dry-run", "--publish", "results.md")]
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
