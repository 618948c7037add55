"""What W&B is told, and what an agent of it tells a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from attn_lightning.commands.trainer import checkpoints
from attn_lightning.commands.wandb_run import (
    BestSoFar,
    flattened,
    log_evaluation,
    name_by_sweep,
    sweep_of_agent,
    upload_configuration,
)


class Logger(WandbLogger):
    """A logger that keeps what it is given and knows no server."""

    save_dir = name = version = None

    def __init__(self):
        self.logged, self.updates = [], []

    @property
    def experiment(self):
        update = lambda contents, **options: self.updates.append((contents, options))  # noqa: E731
        return SimpleNamespace(config=SimpleNamespace(update=update))

    def log_metrics(self, metrics, step=None):
        self.logged.append((dict(metrics), step))

    def after_save_checkpoint(self, checkpoint_callback): ...

    def finalize(self, status): ...


CONFIG = {"method": {"class_path": "A", "init_args": {"weight": 0.5, "inner": {"class_path": "B"}}}, "seed": 1}


def test_flat_names_are_those_of_the_command_line():
    assert flattened(CONFIG) == {"method": "A", "method.weight": 0.5, "method.inner": "B", "seed": 1}


def test_the_configuration_goes_up_nested_and_flat_in_one_call():
    logger = Logger()
    upload_configuration(logger, CONFIG)
    ((contents, options),) = logger.updates
    assert contents["method"] == CONFIG["method"]
    assert contents["cfg/method.weight"] == 0.5
    # A sweep locks what it sets, and refuses the update without this.
    assert options == {"allow_val_change": True}


@pytest.mark.parametrize(("name", "version", "found"), [(None, None, ("sweep_s", "r")), ("mine", "v", ("mine", "v"))])
def test_a_run_of_an_agent_is_named_by_sweep_and_run_unless_the_user_names_it(monkeypatch, name, version, found):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    options = Namespace(name=name, version=version)
    name_by_sweep(options)
    assert (options.name, options.version) == found
    # A run id alone is what a resumed run has, without any agent.
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert sweep_of_agent() is None


def test_undefined_values_are_left_out_and_other_loggers_are_left_alone():
    logger = Logger()
    log_evaluation(SimpleNamespace(loggers=[logger, object()]), {"evaluation/a": 1.0, "evaluation/b": None})
    assert logger.logged == [({"evaluation/a": 1.0}, None)]


def test_the_best_value_so_far_is_logged_once_there_is_one(tmp_path: Path):
    logger, best = Logger(), ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    trainer = SimpleNamespace(loggers=[logger], checkpoint_callback=best, global_step=12)
    BestSoFar().on_train_epoch_end(trainer, None)
    best.best_model_score = torch.tensor(0.75)
    BestSoFar().on_train_epoch_end(trainer, None)
    assert logger.logged == [({"best/val/accuracy": 0.75}, 12)]


class Improving(LightningModule):
    """Its accuracy is .1 after the first epoch, .2 after the second and so on."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", 0.1 * (self.current_epoch + 1))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("options", [{}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}])
def test_the_best_value_is_that_of_the_epoch_that_has_just_ended(tmp_path: Path, options):
    logger, loader = Logger(), torch.utils.data.DataLoader(torch.ones(2, 1))
    every = options.get("check_val_every_n_epoch", 1)
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        callbacks=checkpoints(tmp_path, "val/accuracy", "max", every),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.loggers = [logger]
    trainer.fit(Improving(), loader, loader)
    best = [metrics["best/val/accuracy"] for metrics, _ in logger.logged if "best/val/accuracy" in metrics]
    # Once more after an epoch without validation, which changes nothing.
    assert best == pytest.approx([0.1, 0.2, 0.3, 0.4] if every == 1 else [0.2, 0.2, 0.4])
