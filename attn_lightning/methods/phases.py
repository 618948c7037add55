"""What methods that train in phases share."""

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint


def forget_best_epoch(trainer: Trainer) -> None:
    """Let the next validation be the best so far, whatever came before.

    A phase that trains for another one has scores that mean something else: its epochs must not win.
    """
    # All four, because Lightning 2.6 compares with the worst of `best_k_models` and deletes `kth_best_model_path`.
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.best_k_models, callback.best_model_score = {}, None
            callback.best_model_path = callback.kth_best_model_path = ""


def steps_of(trainer: Trainer, num_epochs: int) -> int | None:
    """Steps of the optimizer in some epochs; None where `max_steps` does not end the training, or nobody can tell.

    Called before the first step: Lightning opens the training data for it.

    Args:
        trainer: at the start of a training.
        num_epochs: how many.
    """
    if trainer.max_steps < 0 or any(isinstance(each, GradientAccumulationScheduler) for each in trainer.callbacks):  # type: ignore[attr-defined]
        return None
    if trainer.train_dataloader is None:
        # As for Lightning's own estimate, which knows no part of a training.
        trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    # A stream of data has no known end.
    return num_epochs * math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else None
