"""What is measured of a split: values, names, the probed rows, and who may wait for a name."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data.planted_documents import generate
from attn_lightning.errors import ConfigurationError
from attn_lightning.measurements import EpochMeans, Measurements, Probe, check_monitors
from attn_lightning.methods import VIBI, AttentionAT, Combined, InstanceWeighting, Scheduled
from attn_lightning.module import AttentionModule
from attn_lightning.types import AttentionOutput, Batch
from support.training import fit, planted

SMALLER = {
    "train_documents": 20,
    "validation_documents": 15,
    "test_documents": 15,
    "max_length": 16,
    "batch_size": 32,
    "eval_batch_size": 4,
}

KNOWN = ["val/accuracy", "val/auroc", "val/log_loss"]
EVIDENCE = {"evidence_hit_mean", "evidence_mass_mean", "ftpt", "ffpt", "ftpf", "ffpf"}
SHORTCUT = {"shortcut_use_mean", "shortcut_follow_mean"}


def outputs(size=6, tokens=5, seed=0) -> tuple[AttentionOutput, Batch]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(size, tokens, dtype=torch.bool)
    attention = torch.rand(size, tokens, generator=generator).softmax(-1)
    logits, hidden = torch.randn(size, 2, generator=generator), torch.zeros(size, tokens, 1)
    output = AttentionOutput(logits, attention, attention, hidden, hidden[:, 0], mask)
    return output, Batch(torch.zeros(size, tokens).long(), mask, torch.arange(size) % 2, torch.arange(size))


# --- the object -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("agreement", [False, True])
def test_what_is_named_is_what_is_computed(marked, agreement):
    measurements = Measurements(2, agreement)
    output, batch = outputs()
    if marked:
        marks = torch.arange(5).expand(6, 5) == 1
        batch = batch._replace(rationale=marks, shortcut=marks, shortcut_class=torch.zeros(6).long())
    measurements.update(output, batch)
    if agreement:
        importance = {"gradient": output.attention, "hidden": 1 - output.attention}
        measurements.update_agreement(output, importance)
    results = measurements.compute()
    assert set(results) == set(measurements.measures(("rationale", "shortcut") if marked else ()))
    assert results["accuracy"] == pytest.approx((output.logits.argmax(-1) == batch.labels).float().mean())
    if agreement:
        assert results["gradient_kendall_mean"] == 1.0
        assert results["hidden_kendall_mean"] == -1.0
    for name, measure in measurements.measures().items():
        assert measure.name == name
        if name in results and not results[name].isnan():
            assert measure.minimum <= results[name] <= measure.maximum + 1e-6


def test_a_split_starts_afresh_after_the_last_one():
    measurements = Measurements(2)
    for seed in (0, 1):
        output, batch = outputs(seed=seed)
        measurements.update(output, batch)
        measurements.update_agreement(output, {"gradient": output.attention, "hidden": output.attention})
        assert measurements.compute()["gradient_kendall_n_valid"] == 6


def test_nothing_measured_is_in_a_checkpoint():
    measurements = Measurements(2)
    measurements.update(*outputs())
    assert not measurements.state_dict()


def test_the_means_of_an_epoch_forget_the_one_before():
    means = EpochMeans()
    for values in ((1.0, 2.0), (5.0,)):
        for value in values:
            means.add({"loss": torch.tensor(value, requires_grad=True)})
        result = means.compute()["loss"]
        assert result == np.mean(values)
        assert not result.requires_grad
    assert means.compute() == {}


# --- probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "measured"), [(5, 5), (15, 15), (100, 15)])
def test_as_many_validation_rows_are_probed_as_were_asked_for(wanted, measured):
    trainer = fit(AttentionModule(num_probe_examples=wanted), planted(**SMALLER))
    assert float(trainer.callback_metrics["val/gradient_kendall_n_valid"]) == measured


def test_without_probes_nothing_is_logged_of_agreement():
    trainer = fit(AttentionModule(num_probe_examples=0), planted(**SMALLER))
    assert "val/accuracy" in trainer.callback_metrics
    assert not [key for key in trainer.callback_metrics if "kendall" in key]


def test_the_probed_rows_do_not_depend_on_the_batches():
    _, batch = outputs(size=10)
    expected = Probe(10, 4).part_of(batch).rows.tolist()
    assert len(expected) == 4
    parts = [Batch(*(value[rows] for value in batch[:4])) for rows in torch.arange(10).split(3)]
    found = [part for given in parts if (part := Probe(10, 4).part_of(given)) is not None]
    assert [row for part in found for row in part.rows.tolist()] == expected
    assert Probe(10, 0).part_of(batch) is None


# --- in a training ----------------------------------------------------------------------------------------------------


class LooksFirst(AttentionClassifier):
    """All attention on the first token, and the prediction is class 1."""

    def attend(self, hidden, scores, mask, attention=None):
        output = super().attend(hidden, scores, mask, attention)
        first = torch.zeros_like(output.attention)
        first[:, 0] = 1.0
        return replace(output, attention=first, logits=output.logits * 0 + torch.tensor([0.0, 1.0]))


def test_evidence_and_shortcut_are_measured_on_validation_and_test():
    data = planted(**SMALLER, shortcut=0.8)
    module = AttentionModule(backbone=LooksFirst)
    trainer = fit(module, data)
    results = {"val": {key: float(value) for key, value in trainer.callback_metrics.items()}}
    results["test"] = trainer.test(module, data, verbose=False)[0]
    for split, name in (("val", "validation"), ("test", "test")):
        documents = generate(name, data.options)
        # The shortcut word is the first token, so that no evidence is ever hit.
        right = np.mean([document.label == 1 for document in documents])
        misleading = [
            document.shortcut_class == 1 for document in documents if document.shortcut_class != document.label
        ]
        expected = {
            "evidence_hit_mean": 0,
            "evidence_mass_mean": 0,
            "ftpt": 0,
            "ffpt": right,
            "ftpf": 0,
            "ffpf": 1 - right,
            "shortcut_use_mean": 1,
            "shortcut_use_n_valid": 15,
            "shortcut_follow_mean": np.mean(misleading),
        }
        found = {key: results[split][f"{split}/{key}"] for key in expected}
        assert found == pytest.approx(expected, abs=1e-6)


def test_hits_are_counted_where_the_evidence_is_first():
    data = planted(**SMALLER, evidence_position="early", min_length=10)
    module = AttentionModule(backbone=LooksFirst)
    results = fit(module, data).test(module, data, verbose=False)[0]
    hits = np.mean([document.rationale[0] for document in generate("test", data.options)])
    assert 0 < hits < 1
    assert results["test/evidence_hit_mean"] == results["test/evidence_mass_mean"] == pytest.approx(hits)
    assert results["test/ftpt"] + results["test/ftpf"] == pytest.approx(hits)
    assert not [key for key in results if "shortcut" in key]


def test_data_without_marks_logs_nothing_of_them(monkeypatch):
    data = planted(**SMALLER)
    monkeypatch.setattr(data, "on_after_batch_transfer", lambda batch, index: Batch(*batch[:4]))
    module = AttentionModule()
    trainer = fit(module, data)
    logged = {*trainer.callback_metrics, *trainer.test(module, data, verbose=False)[0]}
    assert {"val/accuracy", "test/accuracy"} <= logged
    assert not [key for key in logged if key.split("/")[1] in EVIDENCE | SHORTCUT]


def test_validation_does_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    data = planted(**SMALLER)
    module = AttentionModule()
    trainer = fit(module, data)
    results = []
    for size in (3, 16):
        data.eval_batch_size = size
        results.append(trainer.test(module, data, verbose=False)[0])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


def test_lightning_is_told_that_every_value_is_the_whole_split_s(monkeypatch):
    told = []
    monkeypatch.setattr(LightningModule, "log_dict", lambda self, values, **options: told.append((values, options)))
    fit(AttentionModule(), planted(**SMALLER))
    ((values, options),) = [(v, o) for v, o in told if "val/accuracy" in v]
    assert options == {"sync_dist": True, "reduce_fx": "max"}
    assert "val/evidence_hit_mean" in values


# --- names that are waited for ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("wrap", [lambda method: Combined([method, InstanceWeighting()]), Scheduled])
def test_the_names_of_a_method_inside_another_pass(wrap):
    monitor = ModelCheckpoint(monitor="val/teacher_agreement_mean")
    check_monitors([wrap(VIBI()), monitor], KNOWN)
    with pytest.raises(ConfigurationError, match="which nothing logs here"):
        check_monitors([wrap(AttentionAT()), monitor], KNOWN)


@pytest.mark.parametrize("options", [{}, {"shortcut": 0.9}, {"num_classes": 3}])
@pytest.mark.parametrize("num_probe_examples", [0, 4])
def test_the_known_names_are_those_that_are_logged(options, num_probe_examples):
    module = AttentionModule(num_probe_examples=num_probe_examples)
    trainer = fit(module, planted(**SMALLER, **options), max_steps=1)
    logged = {name for name in trainer.callback_metrics if name.startswith("val/")}
    assert logged == set(module.validation_names)
