"""The record of a run: tables of predictions, numbers that are JSON, versions."""

import math
from hashlib import sha256

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning import run_folder
from attn_lightning.callbacks import run_record
from attn_lightning.callbacks.run_record import RunRecord, numbers
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json
from attn_lightning.methods import Method
from attn_lightning.module import AttentionModule


def test_numbers_that_are_not_finite_become_null():
    given = {"b": torch.tensor(math.nan), "a": torch.tensor(0.5), "c": math.inf}
    assert numbers(given) == {"a": 0.5, "b": None, "c": None}


@pytest.fixture
def fit(tmp_path):
    def run(record: RunRecord, module: AttentionModule, *callbacks, **options) -> None:
        data = Planted(
            train_documents=32, validation_documents=8, test_documents=8, max_length=20, embeddings=RandomEmbeddings(4)
        )
        trainer = Trainer(
            callbacks=[record, *callbacks], logger=False, accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, **{"max_epochs": 2, "enable_checkpointing": False, **options},
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


def test_an_epoch_without_validation_has_no_validated_values(tmp_path, fit):
    """They would be those of the epoch before, of other weights; curves and pruning would take them for new ones."""
    best = ModelCheckpoint(tmp_path, monitor="val/log_loss", mode="min")
    options = {"max_epochs": 4, "check_val_every_n_epoch": 2, "enable_checkpointing": True}
    fit(RunRecord(tmp_path), AttentionModule(), best, **options)
    record = run_folder.read_metrics(tmp_path)
    assert all("train/loss" in row for row in record["history"])
    assert [any(name.startswith("val/") for name in row) for row in record["history"]] == [False, True, False, True]
    lowest = min((row for row in record["history"] if "val/log_loss" in row), key=lambda row: row["val/log_loss"])
    assert record["best"] == {"monitor": "val/log_loss", **lowest}


def test_a_run_that_was_killed_after_its_last_epoch_still_names_its_best(tmp_path):
    """Lightning ends a training that has no epochs left without a word to the callbacks of its end."""

    def fit(ckpt_path=None):
        data = Planted(train_documents=16, validation_documents=8, test_documents=8, embeddings=RandomEmbeddings(4))
        best = ModelCheckpoint(tmp_path, filename="best", monitor="val/accuracy", mode="max", save_last=True)
        trainer = Trainer(
            callbacks=[RunRecord(tmp_path), best], logger=False, accelerator="cpu", max_epochs=2,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(AttentionModule(), data, ckpt_path=ckpt_path, weights_only=False)
        return run_folder.read_metrics(tmp_path)

    whole = fit()
    assert whole["best"]["monitor"] == "val/accuracy"
    write_json(tmp_path / "metrics.json", {key: value for key, value in whole.items() if key != "best"})
    assert fit(tmp_path / "last.ckpt")["best"] == whole["best"]


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


def test_a_run_is_complete_when_the_last_part_is_finished(tmp_path, fit):
    record = RunRecord(tmp_path, asked={"test": {}, "suite": {"suite": "fast"}})
    fit(record, AttentionModule())
    assert run_folder.read_metrics(tmp_path)["status"] == "running"
    record.finish("test")
    assert run_folder.read_metrics(tmp_path)["status"] == "running"
    assert not record.lacks("test")
    record.finish("suite", evaluation={"evaluation/a": 1.0})
    contents = run_folder.read_metrics(tmp_path)
    assert contents["status"] == "complete"
    assert contents["evaluation"] == {"evaluation/a": 1.0}
    assert RunRecord(tmp_path, asked={"suite": {"suite": "all"}}).lacks("suite")
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json"}


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), "interrupted"), (ValueError("no coffee"), "failed")]
)
def test_what_ends_a_run_after_its_training_is_recorded(tmp_path, fit, error, status):
    record = RunRecord(tmp_path, asked={"suite": {}})
    fit(record, AttentionModule())
    with pytest.raises(type(error)), record.recorded():
        raise error
    contents = run_folder.read_metrics(tmp_path)
    assert contents["status"] == status
    assert ("no coffee" in contents.get("error", "")) == (status == "failed")


def test_other_data_than_the_run_began_with_is_refused_and_the_record_left_alone(tmp_path, fit):
    fit(RunRecord(tmp_path), AttentionModule())
    contents = run_folder.read_metrics(tmp_path)
    contents["data"]["splits"]["train"]["sha256"] = "0" * 64
    write_json(tmp_path / "metrics.json", contents)
    with pytest.raises(ConfigurationError, match="files have changed"):
        fit(RunRecord(tmp_path), AttentionModule())
    assert run_folder.read_metrics(tmp_path) == contents


class Begun(Method):
    """Begins from a file that it does not read."""

    @property
    def models(self):
        return {"teacher_checkpoint": self.path}

    def loss(self, step):
        return None


def test_another_model_than_the_run_began_with_is_refused_and_the_record_left_alone(tmp_path, fit):
    method = Begun()
    method.path = tmp_path / "teacher.ckpt"
    method.path.write_text("weights")
    fit(RunRecord(tmp_path), AttentionModule(), method)
    contents = run_folder.read_metrics(tmp_path)
    digest = sha256(b"weights").hexdigest()
    assert contents["models"] == {
        "teacher_checkpoint": {"kind": "file", "location": str(method.path), "revision": digest}
    }
    method.path.write_text("other weights")
    with pytest.raises(ConfigurationError, match=r"`method.teacher_checkpoint` .* has changed since"):
        fit(RunRecord(tmp_path), AttentionModule(), method)
    assert run_folder.read_metrics(tmp_path) == contents


def test_the_cost_of_a_run_that_went_on_is_the_sum(tmp_path, fit):
    fit(RunRecord(tmp_path), AttentionModule())
    first = run_folder.read_metrics(tmp_path)["cost"]
    fit(RunRecord(tmp_path), AttentionModule())
    assert run_folder.read_metrics(tmp_path)["cost"]["train_tokens"] == 2 * first["train_tokens"]


def test_on_a_full_disk_the_record_has_room_kept_for_it(tmp_path, fit, monkeypatch):
    """What is kept is given back before the failure is written."""
    kept = []
    write = run_record.write_json

    def watched(path, contents):
        kept.append((contents["status"], (tmp_path / ".reserve").exists()))
        write(path, contents)

    class Fails(AttentionModule):
        def on_train_epoch_start(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_record, "write_json", watched)
    with pytest.raises(OSError, match="No space"):
        fit(RunRecord(tmp_path), Fails())
    assert kept == [("running", True), ("failed", False)]
    assert "No space left" in run_folder.read_metrics(tmp_path)["error"]
