"""Checkpoints of a run move with their folder."""

import shutil

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning.checkpoint.plugin import RunCheckpointIO, in_folder, without_folder


class Counts(LightningModule):
    """Reaches the scores of a list, one per epoch."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def on_train_epoch_end(self):
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return [torch.zeros(1)]


def trained(folder, scores, ckpt_path=None):
    """Train an epoch per score, and give the callback that keeps the best one."""
    options = {"dirpath": folder / "checkpoints", "enable_version_counter": False, "save_on_train_epoch_end": True}
    best = ModelCheckpoint(filename="best", monitor="score", mode="max", **options)
    trainer = Trainer(
        callbacks=[best, ModelCheckpoint(filename="last", **options)], plugins=[RunCheckpointIO()],
        max_epochs=len(scores), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Counts(scores), ckpt_path=ckpt_path)
    return best


@pytest.mark.parametrize("move", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_run_keeps_its_own_best_epoch(tmp_path, move):
    trained(tmp_path / "first", [0.5, 0.9, 0.1])
    move(str(tmp_path / "first"), str(tmp_path / "second"))
    folder = tmp_path / "second" / "checkpoints"
    best = trained(tmp_path / "second", [0.5, 0.9, 0.1, 0.7], folder / "last.ckpt")
    assert best.best_model_score == pytest.approx(0.9)
    assert best.best_model_path == str(folder / "best.ckpt")
    assert torch.load(folder / "best.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 3


def test_a_checkpoint_holds_no_absolute_path(tmp_path):
    trained(tmp_path / "first", [0.5])
    for path in (tmp_path / "first" / "checkpoints").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_paths_of_callbacks_that_write_elsewhere_stay():
    state = {"dirpath": "/elsewhere", "best_model_path": "/elsewhere/a.ckpt"}
    assert without_folder(state, "/here") == state
    assert in_folder(state, "/here") == state
    assert in_folder({"patience": 3}, "/here") == {"patience": 3}


def test_checkpoints_of_older_versions_move_too():
    state = {"dirpath": "/old/checkpoints", "best_model_path": "/old/checkpoints/best.ckpt", "best_k_models": {}}
    assert in_folder(state, "/new/checkpoints")["best_model_path"] == "/new/checkpoints/best.ckpt"
