"""The list of experiments."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attn_lightning.experiments import Experiments
from attn_lightning.study.named import STUDIES, study_names

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def listed(cli):
    def run(*arguments):
        return cli("experiments", "--folder", REPOSITORY / "experiments", *arguments)

    return run


def test_methods_data_and_special_experiments_have_a_line_each(listed):
    outcome = listed()
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    known = Experiments(REPOSITORY / "experiments")
    for title, named in (("methods:", known.methods), ("data:", known.data), ("special experiments:", known.special)):
        below = lines[lines.index(title) + 1 :]
        assert [line.split()[0] for line in below[: below.index("")]] == sorted(named)
        assert all(len(line.split()) > 1 for line in below[: below.index("")])


def test_studies_are_listed_by_name(listed):
    text = listed().out.partition("\nstudies: ")[2].partition("\n\n")[0]
    assert [name.strip() for name in text.split(",")] == study_names(REPOSITORY / STUDIES)


def test_one_of_them_is_shown_as_a_command(listed):
    outcome = listed("vib_joint_imdb")
    assert outcome.code == 0
    folder = REPOSITORY / "experiments"
    files = [f"{folder}/{name}.yaml" for name in ("base", "data/imdb", "method/vib")]
    configs = [argument for file in files for argument in ("--config", file)]
    assert shlex.split(outcome.out) == [
        "python", "-m", "attn_lightning", "fit", *configs, "--method.schedule=joint",
    ]  # fmt: skip


def test_mistakes(listed, cli, tmp_path):
    assert "Did you mean vib_joint_imdb" in listed("vib_jont_imdb").err
    assert "experiments --help" in listed("--folders").err
    assert "Expected a folder" in cli("experiments", "--folder", tmp_path / "none").err


def test_the_list_does_not_wait_for_torch():
    code = (
        "import sys; from attn_lightning.cli import main; main(['experiments']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'numpy')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
