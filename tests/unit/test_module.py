"""The module: task loss, weights, parameter groups, terms, means and probes."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.callbacks.cost import CostMeter
from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.methods import (
    AttentionAT,
    AttentionIVAT,
    HardAttention,
    Method,
    RandomAttentionPretraining,
    Scheduled,
    WordAT,
)
from attn_lightning.module import AttentionModule
from attn_lightning.task_loss import LossWatch, class_weights_from_counts
from attn_lightning.types import Batch, DataSpec, LossTerm
from support.training import fit, planted


@pytest.fixture
def data():
    return planted()


class Watch(Callback):
    """Keeps what every training step returned."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.losses.append([])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses[-1].append(float(outputs["loss"]))


@pytest.mark.parametrize("name", ["positive", "balanced"])
def test_class_weights_reach_the_loss_and_the_checkpoint(data, tmp_path, name):
    module = AttentionModule(class_weights=name)
    trainer = fit(module, data)
    counts = np.bincount(np.array(data.dataset("train")["label"]))
    assert counts[0] != counts[1]
    torch.testing.assert_close(module.class_weights, class_weights_from_counts(counts.tolist(), name))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = AttentionModule.load_from_checkpoint(tmp_path / "model.ckpt")
    torch.testing.assert_close(loaded.class_weights, module.class_weights)


@pytest.mark.parametrize(
    "method",
    [HardAttention(), RandomAttentionPretraining(num_pretraining_epochs=1)],
    ids=lambda one: type(one).__name__,
)
def test_the_head_of_any_model_is_trained_outside_autocast(data, method):
    """A model of the user's own takes no care of precision, nor should it have to."""

    class Careless(AttentionClassifier):
        def attend(self, hidden, scores, mask, attention=None):
            assert not torch.is_autocast_enabled("cpu")
            return super().attend(hidden, scores, mask, attention)

    fit(AttentionModule(partial(Careless)), data, method, max_epochs=2, precision="bf16-mixed")


def test_a_checkpoint_of_other_data_is_refused_by_what_each_of_them_has():
    """Lightning reads the checkpoint when the data has been seen already, and `load_from_checkpoint` before."""
    trained, stored = AttentionModule(), {}
    trained.build(DataSpec(2, 10, 4, ("a", "b")))
    trained.on_save_checkpoint(stored)
    other = AttentionModule()
    other.build(DataSpec(3, 10, 4, ("a", "b", "c")))
    with pytest.raises(ConfigurationError, match="`num_classes` = 2, as the checkpoint was trained on, but got 3"):
        other.on_load_checkpoint(stored)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_class_weights_go_where_the_model_goes(data, precision):
    """They are made before Lightning moves the model to its device."""
    module = AttentionModule(class_weights="balanced")
    fit(module, data, precision=precision)
    assert "class_weights" not in module.state_dict()
    assert module.to("meta").class_weights.device.type == "meta"


# --- optimiser --------------------------------------------------------------------------------------------------------


def test_weight_decay_spares_attention_and_word_vectors():
    module = AttentionModule(weight_decay=0.1, learning_rate=0.02)
    module.build(DataSpec(2, 10, 4, ("a", "b")))
    optimizer = module.configure_optimizers()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    for name, value in decay.items():
        assert value == (0.0 if name.startswith(("backbone.scorer", "backbone.embedding")) else 0.1)
    assert all(group["amsgrad"] and group["lr"] == 0.02 for group in optimizer.param_groups)


def test_frozen_word_vectors_are_not_optimized():
    module = AttentionModule(backbone=partial(AttentionClassifier, freeze_embeddings=True))
    module.build(DataSpec(2, 10, 4, ("a", "b")))
    chosen = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert id(module.backbone.embedding.weight) not in chosen


def test_sgd_moves_by_velocity_and_spares_attention():
    module = AttentionModule(optimizer="sgd", learning_rate=0.1, momentum=0.5, weight_decay=0.2)
    module.build(DataSpec(2, 0, 3, ("a", "b"), segment_shape=(3,)))
    optimizer, moved = (
        module.configure_optimizers(),
        [module.backbone.classifier.bias, next(module.backbone.scorer.parameters())],
    )
    starts = [parameter.detach().clone() for parameter in moved]
    for _ in range(2):
        for parameter in moved:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    first = starts[0] - 0.1 * (1 + 0.2 * starts[0])
    expected = first - 0.1 * (0.5 * (1 + 0.2 * starts[0]) + 1 + 0.2 * first)
    torch.testing.assert_close(moved[0], expected)
    torch.testing.assert_close(moved[1], starts[1] - 0.1 - 0.1 * 1.5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("num_probe_examples", -1),
        ("optimizer", "lion"),
        ("momentum", 1.0),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(ConfigurationError, match=option):
        AttentionModule(**{option: value})


# --- terms ------------------------------------------------------------------------------------------------------------


class Constant(Method):
    """Adds a term whose value is known."""

    def __init__(self, value: float, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.value = value

    def loss(self, step):
        value = step.output.logits.sum() * 0 + self.value
        return LossTerm("constant", value, self.weight, {"twice": value.detach() * 2})


def test_terms_are_weighted_and_logged(data):
    trainer = fit(AttentionModule(), data, Constant(3.0, weight=0.5))
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    assert logged["train/constant"] == pytest.approx(3.0)
    assert logged["train/constant_twice"] == pytest.approx(6.0)
    assert logged["train/loss"] == pytest.approx(logged["train/task"] + 1.5, rel=1e-5)


@pytest.mark.parametrize("epochs", [1, 2])
def test_training_metrics_are_the_mean_over_the_last_epoch(data, epochs):
    watch = Watch()
    trainer = fit(AttentionModule(), data, watch, max_epochs=epochs)
    assert len(watch.losses[-1]) == 3
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(np.mean(watch.losses[-1]), rel=1e-5)


def test_weight_zero_is_the_baseline_exactly(data):
    results = []
    for callbacks in ((), (AttentionAT(weight=0.0),)):
        torch.manual_seed(1)
        module = AttentionModule()
        fit(module, data, *callbacks, max_epochs=2)
        results.append(module.state_dict())
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_a_baseline_ignores_the_pool_and_takes_as_many_steps(caplog, monkeypatch):
    """Fair beside a semi-supervised run: as many steps, on the labelled texts alone, and it says so."""
    encoded, tokens = [], {}

    def encode(self, embeddings, mask, original=AttentionClassifier.encode):
        if self.training:
            encoded.append(len(mask))
        return original(self, embeddings, mask)

    monkeypatch.setattr(AttentionClassifier, "encode", encode)
    steps = {}
    for method in (AttentionIVAT(), AttentionAT()):
        encoded.clear()
        caplog.clear()
        meter = CostMeter()
        trainer = fit(AttentionModule(), planted(labels_per_class=4, unlabeled="train"), method, meter)
        name = type(method).__name__
        steps[name], tokens[name] = trainer.global_step, meter.cost(torch.device("cpu"))["train_tokens"]
    assert steps["AttentionAT"] == steps["AttentionIVAT"] == 3
    assert encoded == [8, 8, 8]
    assert tokens["AttentionAT"] < tokens["AttentionIVAT"]
    assert "AttentionAT does not learn from them" in caplog.text


def test_a_loss_that_is_not_finite_names_step_and_term(data):
    class Explodes(Constant):
        def loss(self, step):
            term = super().loss(step)
            return LossTerm("explosion", term.value * float("nan"), 1.0) if step.progress > 0 else term

    with pytest.raises(NumericalError, match=r"explosion = nan at step 1 of epoch 0.*learning_rate"):
        fit(AttentionModule(), data, Explodes(1.0))


class Waits(Callback):
    """Lets losses wait as on a device that the CPU does not wait for."""

    def on_train_start(self, trainer, pl_module):
        pl_module._losses = LossWatch(torch.device("meta"), together=1000)


class TurnsBad(Constant):
    def loss(self, step):
        term = super().loss(step)
        return LossTerm("explosion", term.value * (float("nan") if step.progress > 0 else 1.0), 1.0)


def test_losses_that_wait_are_looked_at_before_the_epoch_is_measured(data):
    measured = []
    module = AttentionModule()
    module.on_validation_epoch_end = lambda: measured.append(1)
    with pytest.raises(NumericalError, match=r"explosion = nan at step 1 of epoch 0"):
        fit(module, data, TurnsBad(1.0), Waits())
    assert measured == []


def test_losses_that_wait_are_looked_at_before_a_checkpoint_is_written(data, tmp_path):
    saved = []

    class Saves(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.save_checkpoint(tmp_path / f"{batch_idx}.ckpt")
            saved.append(batch_idx)

    with pytest.raises(NumericalError, match=r"explosion = nan at step 1 of epoch 0"):
        fit(AttentionModule(), data, TurnsBad(1.0), Waits(), Saves())
    assert saved == [0]


def test_two_task_losses_are_refused(data):
    class Replaces(Method):
        def task_loss(self, step):
            return step.task_loss(step.output.logits, step.batch.labels)

    fit(AttentionModule(), data, Replaces())
    with pytest.raises(ConfigurationError, match="at most one method that replaces"):
        fit(AttentionModule(), data, Replaces(), Replaces())


def test_example_weights_and_attention_of_a_method_are_used(data):
    seen = []

    class Weights(Method):
        def example_weights(self, step):
            return torch.full((len(step.batch.labels),), 2.0)

        def attention(self, step):
            return step.batch.mask / step.batch.mask.sum(-1, keepdim=True)

    class Sees(Method):
        def loss(self, step):
            seen.append((step.output.attention.detach(), step.batch.mask, step.output.embeddings is not None))
            plain = step.task_loss(step.output.logits, step.batch.labels).mean()
            return LossTerm("plain", plain, 0.0)

    trainer = fit(AttentionModule(), data, Weights(), Sees())
    logged = trainer.callback_metrics
    assert float(logged["train/task"]) == pytest.approx(2 * float(logged["train/plain"]), rel=1e-5)
    for attention, mask, has_embeddings in seen:
        torch.testing.assert_close(attention, mask / mask.sum(-1, keepdim=True))
        assert has_embeddings


class Own(Method):
    """A method from elsewhere, which may do more than it says."""

    def loss(self, step):
        return LossTerm("own", step.output.embeddings.square().mean(), self.weight)


@pytest.mark.parametrize(
    ("method", "read"),
    [(None, 2), (AttentionAT(), 2), (WordAT(), 4), (Scheduled(WordAT()), 4), (Own(), 4)],
)
def test_equal_texts_are_read_once_unless_a_method_differentiates_them(method, read):
    rows = []

    class Counting(BiLSTM):
        def forward(self, embeddings, mask):
            rows.append(len(mask))
            return super().forward(embeddings, mask)

    tokens = torch.tensor([[2, 3, 5], [2, 3, 6], [4, 3, 5], [2, 3, 7]])
    mask = torch.tensor([[True, True, False]] * 4)
    module = AttentionModule(partial(AttentionClassifier, encoder=partial(Counting, hidden_size=4)))
    module.build(DataSpec(2, 10, 4, ("a", "b"), has_question=True))
    batch = Batch(tokens, mask, torch.tensor([0, 1, 0, 1]), torch.arange(4))
    fit(module, DataLoader([batch], batch_size=None), *([method] if method else []))
    assert rows[0] == read


def test_a_name_that_only_some_epochs_log_does_not_outlive_them(data):
    class Early(Method):
        def loss(self, step):
            first = step.progress < 0.5
            return LossTerm("early", step.output.logits.sum() * 0, 1.0) if first else None

    seen = []

    class Names(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append({name for name in trainer.callback_metrics if name.startswith("train/")})

    fit(AttentionModule(), data, Early(), Names(), max_epochs=3)
    assert "train/early" in seen[0]
    assert "train/early" not in seen[2]
    assert {"train/loss", "train/task"} <= seen[2]


def test_weights_that_are_no_numbers_are_refused() -> None:
    module = AttentionModule()
    module.build(DataSpec(2, 5, 4, ("a", "b")))
    weights = module.state_dict()
    weights["backbone.classifier.bias"] = torch.tensor([0.0, torch.nan])
    with pytest.raises(ConfigurationError, match=r"classifier\.bias .* NaN"):
        module.load_state_dict(weights)
