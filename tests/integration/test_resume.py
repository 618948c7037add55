"""A run that was interrupted goes on where it stopped and ends as if nothing had happened."""

import csv
import json
from pathlib import Path

import pytest

from attn_lightning.callbacks.run_record import RunRecord


@pytest.fixture
def interrupt(monkeypatch):
    """Raise an exception in the second step of an epoch."""

    def at(epoch: int, exception: type[BaseException]) -> None:
        def stop(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (epoch, 1):
                raise exception

        monkeypatch.setattr(RunRecord, "on_train_batch_start", stop)

    yield at
    monkeypatch.undo()


def record(folder: Path) -> dict:
    contents = json.loads((folder / "metrics.json").read_text())
    contents.pop("cost")
    contents["environment"].pop("commit")
    return contents


@pytest.mark.parametrize("method", ["AttentionIVAT", "null"])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny_fit, tmp_path, interrupt, monkeypatch, method):
    options = ["--method", method, "--trainer.max_epochs=3", "--run.control=false"]
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
    assert record(broken) == record(tmp_path / "whole" / "ivat_planted" / "version_0")
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
        tiny_fit("--run.root", tmp_path, "--run.control=false")
    folder = tmp_path / "ivat_planted" / "version_0"
    assert record(folder)["status"] == "failed"
    assert "ZeroDivisionError" in record(folder)["error"]
    monkeypatch.undo()

    outcome = cli("fit", "--ckpt_path", folder / "checkpoints" / "last.ckpt")
    assert outcome.code == 0, outcome.err
    assert record(folder)["status"] == "complete"
    assert "error" not in record(folder)
    assert [row["epoch"] for row in record(folder)["history"]] == [0, 1]


def test_a_complete_run_can_be_trained_longer(tiny_fit, tmp_path):
    options = ["--run.root", tmp_path, "--run.control=false"]
    assert tiny_fit(*options).code == 0
    assert tiny_fit(*options, "--ckpt_path=last", "--trainer.max_epochs=3").code == 0
    contents = record(tmp_path / "ivat_planted" / "version_0")
    assert [row["epoch"] for row in contents["history"]] == [0, 1, 2]
    assert contents["best"]["val/accuracy"] == max(row["val/accuracy"] for row in contents["history"])


def test_the_newest_run_is_resumed(tiny_fit, tmp_path):
    options = ["--run.root", tmp_path, "--run.control=false", "--run.test=false"]
    for _ in range(2):
        assert tiny_fit(*options, "--trainer.max_epochs=1").code == 0
    outcome = tiny_fit(*options, "--ckpt_path=last")
    assert outcome.code == 0
    assert "version_1" in outcome.out
    assert len(record(tmp_path / "ivat_planted" / "version_0")["history"]) == 1
