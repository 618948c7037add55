"""A run that was interrupted goes on where it stopped and ends as if nothing had happened."""

import csv
import shutil

import pytest
import torch

from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.checkpoint import write_checkpoint
from support.results import record, weights


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("AttentionIVAT", "32-true"),
        pytest.param("null", "32-true", marks=pytest.mark.slow),
        pytest.param("null", "64-true", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tiny_fit, tmp_path, interrupt, monkeypatch, method, precision):
    options = ["--method", method, "--trainer.precision", precision, "--trainer.max_epochs=3"]
    options += ["--run.control=false", "--run.suite=none"]
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    interrupt(2, KeyboardInterrupt)
    outcome = tiny_fit("--run.root", tmp_path / "broken", *options)
    assert outcome.code == 130
    broken = tmp_path / "broken" / "ivat_planted" / "version_0"
    assert record(broken)["status"] == "interrupted"
    assert len(record(broken)["history"]) == 2
    monkeypatch.undo()

    outcome = tiny_fit("--run.root", tmp_path / "broken", *options, "--ckpt_path=last")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip().endswith(str(broken))
    whole = tmp_path / "whole" / "ivat_planted" / "version_0"
    assert record(broken) == record(whole)
    assert weights(broken, "last") == weights(whole, "last")
    with (broken / "metrics.csv").open() as file:
        accuracies = [row["val/accuracy"] for row in csv.DictReader(file) if row["val/accuracy"]]
    assert [float(value) for value in accuracies] == pytest.approx(
        [row["val/accuracy"] for row in record(broken)["history"]]
    )
    assert (broken / "config.yaml").exists()
    assert (broken / "config_resumed_1.yaml").exists()


def test_a_failed_run_says_so_and_can_be_resumed_from_its_checkpoint_alone(
    tiny_fit, cli, tmp_path, interrupt, monkeypatch
):
    interrupt(1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        tiny_fit("--run.root", tmp_path, "--run.control=false", "--run.suite=none")
    folder = tmp_path / "ivat_planted" / "version_0"
    assert record(folder)["status"] == "failed"
    assert "ZeroDivisionError" in record(folder)["error"]
    monkeypatch.undo()

    outcome = cli("fit", "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert outcome.code == 0, outcome.err
    assert record(folder)["status"] == "complete"
    assert "error" not in record(folder)
    assert [row["epoch"] for row in record(folder)["history"]] == [0, 1]


@pytest.mark.slow
def test_a_complete_run_can_be_trained_longer(tiny_fit, tmp_path):
    options = ["--run.root", tmp_path, "--run.control=false", "--run.suite=none"]
    assert tiny_fit(*options).code == 0
    assert tiny_fit(*options, "--ckpt_path=last", "--trainer.max_epochs=3").code == 0
    contents = record(tmp_path / "ivat_planted" / "version_0")
    assert [row["epoch"] for row in contents["history"]] == [0, 1, 2]
    assert contents["best"]["val/accuracy"] == max(row["val/accuracy"] for row in contents["history"])


@pytest.mark.slow
def test_the_newest_run_is_resumed(tiny_fit, tmp_path):
    options = ["--run.root", tmp_path, "--run.control=false", "--run.test=false"]
    for _ in range(2):
        assert tiny_fit(*options, "--trainer.max_epochs=1").code == 0
    outcome = tiny_fit(*options, "--ckpt_path=last")
    assert outcome.code == 0
    assert "version_1" in outcome.out
    assert len(record(tmp_path / "ivat_planted" / "version_0")["history"]) == 1


@pytest.mark.parametrize("move", [pytest.param(shutil.move, marks=pytest.mark.slow), shutil.copytree])
def test_a_moved_or_copied_run_goes_on_with_its_own_checkpoints(tiny_fit, cli, tmp_path, interrupt, monkeypatch, move):
    """The first epoch is the best, so that forgetting it would test another one."""
    options = ["--trainer.max_epochs=3", "--run.control=false", "--run.suite=none", "--run.monitor_mode=min"]
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    interrupt(2, KeyboardInterrupt)
    assert tiny_fit("--run.root", tmp_path / "first", *options).code == 130
    monkeypatch.undo()
    (tmp_path / "second").mkdir()
    move(str(tmp_path / "first" / "ivat_planted"), str(tmp_path / "second" / "ivat_planted"))
    first, second = (tmp_path / name / "ivat_planted" / "version_0" for name in ("first", "second"))
    before = record(first) if first.exists() else None

    outcome = cli("fit", "--ckpt_path", second / "checkpoints" / "last.ckpt")
    assert outcome.code == 0, outcome.err
    whole = tmp_path / "whole" / "ivat_planted" / "version_0"
    assert record(second) == record(whole)
    assert weights(second, "best") == weights(whole, "best")
    assert (record(first) if first.exists() else None) == before


def test_a_run_without_its_best_checkpoint_is_not_resumed(tiny_fit, cli, tmp_path):
    assert tiny_fit("--run.root", tmp_path, "--run.test=false").code == 0
    folder = tmp_path / "ivat_planted" / "version_0" / "checkpoints"
    (folder / "best.ckpt").unlink()
    outcome = cli("fit", "--ckpt_path", folder / "last.ckpt", "--trainer.max_epochs=3")
    assert outcome.code == 1
    assert "copy the whole run folder" in outcome.err


@pytest.mark.slow
def test_validation_within_epochs_resumes_exactly_from_a_whole_epoch(tiny_fit, cli, tmp_path, interrupt, monkeypatch):
    options = ["--trainer.max_epochs=3", "--trainer.val_check_interval=2", "--run.test=false"]
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    monkeypatch.setattr(RunRecord, "on_validation_end", _stop_in_the_middle_of_the_last_epoch)
    assert tiny_fit("--run.root", tmp_path / "broken", *options).code == 130
    monkeypatch.undo()
    whole, broken = (tmp_path / name / "ivat_planted" / "version_0" for name in ("whole", "broken"))
    outcome = cli("fit", "--ckpt_path", broken / "checkpoints" / "last.ckpt")
    assert outcome.code == 0, outcome.err
    assert record(broken) == record(whole)
    assert weights(broken, "last") == weights(whole, "last")


def _stop_in_the_middle_of_the_last_epoch(self, trainer, pl_module):
    if trainer.current_epoch == 2:
        raise KeyboardInterrupt


def test_a_checkpoint_of_half_an_epoch_is_refused(tiny_fit, cli, tmp_path):
    options = ["--trainer.max_epochs=1", "--trainer.val_check_interval=2", "--run.test=false"]
    assert tiny_fit("--run.root", tmp_path, *options).code == 0
    folder = tmp_path / "ivat_planted" / "version_0" / "checkpoints"
    contents = torch.load(folder / "last.ckpt", weights_only=True)
    contents["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
    write_checkpoint(contents, folder / "half.ckpt")
    outcome = cli("fit", "--ckpt_path", folder / "half.ckpt", "--trainer.max_epochs=2")
    assert outcome.code == 1
    assert "whole epoch" in outcome.err
