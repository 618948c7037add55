"""Monitored names are checked against what is logged, and only where that is known."""

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionAT
from attn_lightning.module import AttentionModule
from attn_lightning.monitors import check_monitors

KNOWN = ["val/accuracy", "val/auroc", "val/log_loss"]


@pytest.mark.parametrize("name", ["val/acuracy", "accuracy", "valid/accuracy"])
@pytest.mark.parametrize("callback", [ModelCheckpoint, EarlyStopping])
def test_an_unknown_name_is_refused_with_the_nearest(callback, name):
    with pytest.raises(ConfigurationError, match=rf"'{name}'.*val/accuracy"):
        check_monitors([AttentionAT(), callback(monitor=name)], KNOWN)


def test_without_a_near_one_all_are_named():
    with pytest.raises(ConfigurationError, match="val/accuracy, val/auroc, val/log_loss"):
        check_monitors([ModelCheckpoint(monitor="quality")], KNOWN)


@pytest.mark.parametrize("name", ["val/auroc", "train/loss", "epoch", "step", None])
def test_known_names_pass(name):
    check_monitors([ModelCheckpoint(monitor=name)], KNOWN)


def test_any_name_passes_beside_a_callback_that_may_log_it():
    class Logs(Callback):
        pass

    check_monitors([Logs(), EarlyStopping(monitor="val/mine")], KNOWN)


@pytest.mark.parametrize("options", [{}, {"shortcut": 0.9}, {"num_classes": 3}])
@pytest.mark.parametrize("num_probe_examples", [0, 4])
def test_the_known_names_are_those_that_are_logged(options, num_probe_examples):
    data = Planted(
        train_documents=9, validation_documents=9, test_documents=9, embeddings=RandomEmbeddings(3), **options
    )
    module = AttentionModule(num_probe_examples=num_probe_examples)
    trainer = Trainer(
        max_steps=1,
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    logged = {name for name in trainer.callback_metrics if name.startswith("val/")}
    assert logged == set(module._validation_names())
