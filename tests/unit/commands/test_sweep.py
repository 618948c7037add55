"""The command `sweep`: every mistake in a file is one line before W&B is asked for anything."""

import pytest

from attn_lightning.commands import sweep
from attn_lightning.errors import ConfigurationError

FILE = """
command: ["${env}", "${interpreter}", -m, attn_lightning, fit, --data=Planted, --method=AttentionAT, %s "${args}"]
method: grid
metric: {name: %s, goal: maximize}
parameters:
  method.epsilon: {values: [0.5, 2.0]}
"""


def written(folder, options="--run.wandb=true,", metric="best/val/accuracy"):
    path = folder / "mine.yaml"
    path.write_text(FILE % (options, metric))
    return str(path)


@pytest.fixture
def started(monkeypatch):
    """The commands that would have been run."""
    commands = []

    class Done:
        returncode = 7

    monkeypatch.setattr(sweep.subprocess, "run", lambda command, check: commands.append(command) or Done)
    return commands


def test_a_sound_file_is_handed_to_wandb_whose_answer_counts(tmp_path, started, capsys):
    path = written(tmp_path)
    assert sweep.sweep_command([path, "--dry-run"]) == 0
    assert started == []
    assert sweep.sweep_command([path, "--entity", "me", "--project", "p"]) == 7
    assert started[0][1:] == ["-m", "wandb", "sweep", "--project", "p", "--entity", "me", path]
    assert "2 commands, all accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": ""}, "--run.wandb=true"),
        ({"metric": "best/val/f1"}, "such as best/val/accuracy"),
        ({"metric": "accuracy"}, "such as best/val/accuracy"),
    ],
)
def test_a_sweep_that_would_hear_nothing_of_its_runs_is_refused(tmp_path, started, changes, message):
    with pytest.raises(ConfigurationError, match=message):
        sweep.sweep_command([written(tmp_path, **changes)])
    assert started == []


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["ivat_sst", "--dry"]])
def test_a_mistake_in_the_options_is_one_line(arguments):
    with pytest.raises(ConfigurationError) as error:
        sweep.sweep_command(arguments)
    assert "\n" not in str(error.value)
