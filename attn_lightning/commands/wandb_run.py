"""All that a run tells Weights & Biases, and what it is told by a sweep agent."""

import os
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger


def sweep_of_agent() -> tuple[str, str] | None:
    """Sweep and run that an agent started this process for; None where no agent did.

    The agent says it in the environment, because the macros of a sweep file are filled in before it knows the run.
    """
    sweep, run = os.environ.get("WANDB_SWEEP_ID"), os.environ.get("WANDB_RUN_ID")
    return (sweep, run) if sweep and run else None


def name_by_sweep(options: Namespace) -> None:
    """Give a run of a sweep the folder `<root>/sweep_<id>/<run id>`, unless the command line names another.

    Args:
        options: the run options; changed in place.
    """
    # Of a sweep the run's own id, so that an agent that starts it again finds its folder.
    if (started := sweep_of_agent()) is not None:
        options.name = options.name or f"sweep_{started[0]}"
        options.version = options.version or started[1]


def make_logger(folder: Path, options: Namespace) -> WandbLogger:
    """The logger of a run.

    Args:
        folder: its run folder.
        options: the run options.
    """
    return WandbLogger(
        project=options.wandb_project,
        entity=options.wandb_entity,
        group=options.wandb_group,
        tags=options.wandb_tags or None,
        name=options.wandb_name or f"{options.name}-{folder.name}",
        # Into the run folder, like everything else; W&B would write into the current one.
        save_dir=folder,
        log_model=False,
    )


def upload_configuration(logger: WandbLogger, contents: dict[str, Any]) -> None:
    """Send the whole configuration once, nested as it is and flat.

    A sweep locks the keys that it sets, and then the nested update of `method` is dropped with all that is below it.
    The flat keys have a prefix of their own, so that parallel coordinates work in every case.

    Args:
        logger: of the run.
        contents: the configuration as plain values.
    """
    flat = {f"cfg/{name}": value for name, value in flattened(contents).items()}
    # `allow_val_change`: a run that goes on sends values again that W&B has already, such as a larger `max_epochs`.
    logger.experiment.config.update({**contents, **flat}, allow_val_change=True)


def flattened(contents: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names, as the command line writes them: without `init_args` and `class_path`."""
    flat: dict[str, Any] = {}
    for key, value in contents.items():
        # As options are written on the command line, where a class is the value of its own option.
        name = prefix if key in ("init_args", "class_path") else f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            flat.update(flattened(value, name))
        else:
            flat[name] = value
    return flat


def log_evaluation(trainer: Trainer, values: dict[str, float | None]) -> None:
    """Send what the suite found; the table of epochs in the run folder is left alone.

    Args:
        trainer: whose loggers.
        values: by the names that studies take.
    """
    # None stands for NaN in a record, and would be a step without a value there.
    known = {name: value for name, value in values.items() if value is not None}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_metrics(known)


class BestSoFar(Checkpoint):
    """Logs the best value of the monitored metric so far as `best/<metric>`, which sweeps optimize.

    The summary of a W&B run holds the last value of a metric, and the last epoch is seldom the best. It follows the
    checkpoint of the best epoch, so it starts anew where a method with phases lets that start anew.

    It writes no file, but is of the kind of callback that Lightning calls last at the end of an epoch, in their order:
    as any other it would come before the epoch is compared, and know the best value of the epochs before alone.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it, where an epoch was measured; the checkpoints that stand before it have compared this epoch."""
        best = trainer.checkpoint_callback
        if not isinstance(best, ModelCheckpoint) or best.best_model_score is None:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                # A sweep looks at the last value of its metric, which is that of the best epoch only under this name.
                logger.log_metrics({f"best/{best.monitor}": float(best.best_model_score)}, step=trainer.global_step)
