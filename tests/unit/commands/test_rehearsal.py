"""Up to the first step and no further: what a run would refuse there, a dry run refuses."""

import pytest

from attn_lightning.commands.study import study_command
from attn_lightning.errors import ConfigurationError

SMALL = ["data.train_documents=20", "data.validation_documents=10", "data.test_documents=10"]


def slow(*values):
    """One case is enough for the fast suite: each of them prepares data and builds a model."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def dry_run(tmp_path, monkeypatch):
    """Rehearse a study of planted data with these methods and options."""
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path / "cache"))

    def run(methods, *options, data="planted"):
        asked = [f"--option={option}" for option in ([*SMALL, *options] if data == "planted" else options)]
        root = str(tmp_path / "runs")
        return study_command([f"--methods={methods}", f"--data={data}", "--root", root, "--dry-run", *asked])

    return run


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        slow("ivat", ["model.backbone.normalizer=Uniform"], "a normalizer that can be differentiated 1 time"),
        ("vib", ["trainer.max_epochs=3"], "`trainer.max_epochs` to be warmup_epochs"),
        slow("rap", ["trainer.max_epochs=1", "method.num_pretraining_epochs=1"], "above `num_pretraining_epochs`"),
        slow("rationale", ["data.embeddings.dimension=0"], "dimension"),
        ("vib", ["trainer.max_epochs=3", "data.unlabeled=train"], "`trainer.max_epochs` to be warmup_epochs"),
        slow("ivat", ["run.monitor=val/nothing", "run.monitor_mode=max"], "val/nothing"),
    ],
)
def test_what_a_run_refuses_before_its_first_step_is_refused(dry_run, method, options, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        dry_run(method, *options)
    assert f"{method}_planted" in str(caught.value)


@pytest.mark.slow
def test_what_comes_to_its_first_step_is_printed_and_leaves_nothing(dry_run, tmp_path, capsys):
    assert dry_run("vanilla,ivat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "# 10 commands, all accepted by `fit`"
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_here_is_said_to_be_unchecked(dry_run, monkeypatch, capsys):
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)
    assert dry_run("vanilla,vib", data="sst") == 0
    assert "# of sst only the options were checked: the data is not here yet" in capsys.readouterr().out
