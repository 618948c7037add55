"""The record of a run: tables of predictions, numbers that are JSON, versions."""

import math

import pytest
import torch
from lightning.pytorch import Trainer

from attn_lightning import run_folder
from attn_lightning.callbacks import run_record
from attn_lightning.callbacks.run_record import RunRecord, environment, numbers
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.data.embeddings.trained import FASTTEXT_PACKAGE
from attn_lightning.module import AttentionModule


def test_numbers_that_are_not_finite_become_null():
    given = {"b": torch.tensor(math.nan), "a": torch.tensor(0.5), "c": math.inf}
    assert numbers(given) == {"a": 0.5, "b": None, "c": None}


def test_environment_names_versions():
    found = environment()
    # What is installed need not carry the local part of a version, such as +cpu.
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["packages"][FASTTEXT_PACKAGE]
    assert set(found) == {"python", "packages", "commit"}


def test_environment_outside_a_checkout(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


@pytest.fixture
def fit(tmp_path):
    def run(record: RunRecord, module: AttentionModule, *callbacks, **options) -> None:
        data = Planted(
            train_documents=32, validation_documents=8, test_documents=8, max_length=20, embeddings=RandomEmbeddings(4)
        )
        trainer = Trainer(
            callbacks=[record, *callbacks], logger=False, accelerator="cpu", enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, **{"max_epochs": 2, **options},
        )  # fmt: skip
        trainer.fit(module, data)

    return run


def test_short_epochs_without_validation_are_written_together(tmp_path, fit, monkeypatch):
    """Writing a growing file after each of many epochs took a third of the time of a training on points."""
    writes, write = [], run_record.write_json

    def counted(path, contents):
        writes.append(len(contents["history"]))
        write(path, contents)

    monkeypatch.setattr(run_record, "write_json", counted)
    monkeypatch.setattr("attn_lightning.callbacks.run_record.SECONDS_BETWEEN_WRITES", math.inf)
    fit(RunRecord(tmp_path), AttentionModule(), max_epochs=8, check_val_every_n_epoch=3)
    # At the start, with each validation, at the end: no checkpoint is ahead of the record.
    assert writes == [0, 3, 6, 8]
    assert [row["epoch"] for row in run_folder.read_metrics(tmp_path)["history"]] == list(range(8))
    monkeypatch.setattr("attn_lightning.callbacks.run_record.SECONDS_BETWEEN_WRITES", -math.inf)
    (tmp_path / "second").mkdir()
    writes.clear()
    fit(RunRecord(tmp_path / "second"), AttentionModule(), max_epochs=3, check_val_every_n_epoch=3)
    assert writes == [0, 1, 2, 3, 3]


def test_the_history_is_on_disk_after_every_epoch(tmp_path, fit):
    """A process that is killed leaves the epochs it finished."""
    lengths = []

    class Reads(RunRecord):
        def on_train_epoch_start(self, trainer, pl_module):
            super().on_train_epoch_start(trainer, pl_module)
            lengths.append(len(run_folder.read_metrics(tmp_path)["history"]))

    fit(Reads(tmp_path), AttentionModule())
    assert lengths == [0, 1]


def test_a_run_that_never_began_leaves_no_record(tmp_path, fit):
    class Refuses(AttentionModule):
        def on_fit_start(self):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(RunRecord(tmp_path), Refuses())
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_keeps_what_was_finished(tmp_path, fit):
    class Fails(AttentionModule):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                raise RuntimeError("out of coffee")

    with pytest.raises(RuntimeError):
        fit(RunRecord(tmp_path), Fails())
    record = run_folder.read_metrics(tmp_path)
    assert record["status"] == "failed"
    assert "out of coffee" in record["error"]
    assert len(record["history"]) == 1
