"""The probe set: numbers of the evaluation, on the validation split, while the model is trained."""

from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.callbacks.probe_set import ProbeSet
from attn_lightning.data.planted import Planted
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.catalog import chosen_explainers, chosen_families
from attn_lightning.evaluation.folder import Parts
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Subject
from attn_lightning.evaluation.suite import Plan, measure
from attn_lightning.module import AttentionModule


class History(L.Callback):
    """The logged values after every epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fit(tmp_path, *callbacks, epochs=2):
    data = Planted(train_documents=64, validation_documents=30, test_documents=10, cache=tmp_path)
    module = AttentionModule(lambda spec: AttentionClassifier(spec, encoder=lambda size: Average(size, 6)))
    L.seed_everything(0)
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        inference_mode=False,
    )
    trainer.fit(module, data)
    return module, data


def test_it_logs_what_the_suite_measures(tmp_path):
    history = History()
    module, data = fit(tmp_path, ProbeSet("faithfulness,plausibility", num_examples=100), history)
    subject = Subject(module.backbone.eval(), data.examples("validation"), 2, erased=1)
    plan = Plan(chosen_families("faithfulness,plausibility"), chosen_explainers("attention"))
    found = measure(subject, plan, Parts(tmp_path / "parts"), Progress())
    last, compared = history.epochs[-1], 0
    for family, rows in found.rows.items():
        for row in rows:
            name = f"val/{family}_{row.metric}" + "".join(f"_{key}_{value}" for key, value in row.setting.items())
            if row.value is not None:
                assert last[name] == pytest.approx(row.value, abs=1e-5), name
                compared += 1
    assert compared > 5
    assert history.epochs[0] != history.epochs[1]


def test_it_measures_every_nth_epoch(tmp_path):
    history = History()
    fit(tmp_path, ProbeSet("plausibility", num_examples=5, every_n_epochs=2), history, epochs=3)
    measured = [any(name.startswith("val/plausibility") for name in epoch) for epoch in history.epochs]
    assert measured[:2] == [False, True]


NAME = "val/plausibility_auprc"


@pytest.mark.parametrize(
    ("every", "validated", "monitoring", "refused"),
    [
        (2, 1, ModelCheckpoint(monitor=NAME), True),
        (2, 3, ModelCheckpoint(monitor=NAME), True),
        (2, None, ModelCheckpoint(monitor=NAME), True),
        (2, 1, EarlyStopping(NAME), True),
        (2, 1, EarlyStopping(NAME, strict=False), False),
        (2, 1, ModelCheckpoint(monitor=NAME, every_n_epochs=4), False),
        (2, 1, ModelCheckpoint(monitor="val/faithfulness_aopc_sufficiency"), False),
        (2, 1, ModelCheckpoint(), False),
        (2, 4, ModelCheckpoint(monitor=NAME), False),
        (1, None, ModelCheckpoint(monitor=NAME), False),
    ],
)
def test_what_is_monitored_is_measured_with_every_validation(every, validated, monitoring, refused):
    """Lightning notices after the first epoch, and ends the run with an error that names other metrics."""
    probe = ProbeSet("plausibility", every_n_epochs=every)
    trainer = SimpleNamespace(callbacks=[monitoring, probe], check_val_every_n_epoch=validated)
    probe.setup(trainer, None, "test")
    if refused:
        with pytest.raises(ConfigurationError, match=f"'{NAME}' of a ProbeSet with `every_n_epochs: 2`"):
            probe.setup(trainer, None, "fit")
    else:
        probe.setup(trainer, None, "fit")


def test_a_metric_that_is_not_measured_with_every_validation_is_refused_before_the_first_epoch(tmp_path):
    history, best = History(), EarlyStopping(NAME)
    with pytest.raises(ConfigurationError, match="every validation"):
        fit(tmp_path, ProbeSet("plausibility", num_examples=5, every_n_epochs=2), history, best)
    assert history.epochs == []


@pytest.mark.parametrize("options", [{"suite": "plausible"}, {"num_examples": 0}, {"every_n_epochs": 0}])
def test_bad_options(options):
    with pytest.raises(ConfigurationError):
        ProbeSet(**options)
