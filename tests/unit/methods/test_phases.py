"""The best epoch is chosen anew."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning.methods.phases import forget_best_epoch


def test_the_best_so_far_is_forgotten(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    best.best_k_models, best.best_model_score = {"a.ckpt": 0.9}, 0.9
    best.best_model_path = best.kth_best_model_path = "a.ckpt"
    forget_best_epoch(Trainer(callbacks=[best], logger=False, accelerator="cpu"))
    assert best.best_k_models == {}
    assert best.best_model_score is None
    assert best.best_model_path == best.kth_best_model_path == ""
