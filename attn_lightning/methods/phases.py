"""What methods that train in phases share."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def forget_best_epoch(trainer: Trainer) -> None:
    """Let the next validation be the best so far, whatever came before.

    A phase that trains for another one has scores that mean something else: its epochs must not win.
    """
    # All four, because Lightning 2.6 compares with the worst of `best_k_models` and deletes `kth_best_model_path`.
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.best_k_models, callback.best_model_score = {}, None
            callback.best_model_path = callback.kth_best_model_path = ""
