"""The module: task loss, weights, parameter groups, terms, means and probes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.data.planted import generate
from attn_lightning.errors import ConfigurationError, NumericalError
from attn_lightning.methods import AttentionAT, Method
from attn_lightning.module import AttentionModule, class_weights_from_counts, cross_entropy
from attn_lightning.types import Batch, DataSpec, LossTerm


@pytest.fixture
def data() -> Planted:
    return Planted(
        train_documents=41,
        validation_documents=16,
        test_documents=16,
        max_length=20,
        batch_size=16,
        eval_batch_size=6,
        embeddings=RandomEmbeddings(8),
    )


def fit(module: AttentionModule, data: Planted, *callbacks: Callback, **options) -> Trainer:
    torch.manual_seed(0)
    trainer = Trainer(
        callbacks=list(callbacks),
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, "num_sanity_val_steps": 0, **options},
    )
    trainer.fit(module, data)
    return trainer


class Watch(Callback):
    """Keeps what every training step returned."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.losses.append([])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses[-1].append(float(outputs["loss"]))


# --- task loss --------------------------------------------------------------------------------------------------------


def test_cross_entropy_is_scikit_learns_log_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 3, generator=generator) * 3
    labels = torch.arange(20) % 3
    ours = cross_entropy(logits, labels)
    assert ours.shape == (20,)
    expected = log_loss(labels, logits.double().softmax(-1).numpy())
    assert float(ours.mean()) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_half_precision_is_float32():
    assert cross_entropy(torch.zeros(2, 2, dtype=torch.bfloat16), torch.tensor([0, 1])).dtype == torch.float32


def test_class_weights_multiply_each_example():
    logits, labels = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    weights = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(cross_entropy(logits, labels, weights), weights[labels] * cross_entropy(logits, labels))


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 2], [7, 2, 5])
    expected = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    np.testing.assert_allclose(class_weights_from_counts([7, 2, 5], "balanced"), expected, rtol=1e-6)


def test_positive_weight_makes_both_classes_count_alike():
    weights = class_weights_from_counts([30, 10], "positive")
    assert weights.tolist() == [1.0, 3.0]
    assert class_weights_from_counts([30, 10], "none") is None


def test_positive_weight_needs_two_classes():
    with pytest.raises(ConfigurationError, match="2 classes"):
        class_weights_from_counts([1, 2, 3], "positive")


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


def test_a_loss_that_is_not_finite_names_step_and_term(data):
    class Explodes(Constant):
        def loss(self, step):
            term = super().loss(step)
            return LossTerm("explosion", term.value * float("nan"), 1.0) if step.progress > 0 else term

    with pytest.raises(NumericalError, match=r"explosion = nan at step 1 of epoch 0.*learning_rate"):
        fit(AttentionModule(), data, Explodes(1.0))


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


# --- probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "measured"), [(5, 5), (16, 16), (100, 16)])
def test_so_many_validation_rows_are_probed(data, wanted, measured):
    trainer = fit(AttentionModule(num_probe_examples=wanted), data)
    assert float(trainer.callback_metrics["val/gradient_kendall_n_valid"]) == measured


def test_without_probes_nothing_is_logged_of_agreement(data):
    trainer = fit(AttentionModule(num_probe_examples=0), data)
    assert "val/accuracy" in trainer.callback_metrics
    assert not [key for key in trainer.callback_metrics if "kendall" in key]


def test_the_probed_rows_are_the_same_at_every_epoch_and_with_every_batch_size(data):
    probes = []

    class Keeps(Callback):
        def on_validation_end(self, trainer, pl_module):
            probes.append(pl_module._probe.clone())

    fit(AttentionModule(num_probe_examples=5), data, Keeps(), max_epochs=2)
    data.eval_batch_size = 16
    fit(AttentionModule(num_probe_examples=5), data, Keeps())
    assert len(probes) == 3
    assert all(torch.equal(probe, probes[0]) for probe in probes)


def test_validation_does_not_depend_on_the_batch_size(data):
    torch.manual_seed(0)
    module = AttentionModule()
    trainer = fit(module, data)
    results = []
    for size in (3, 16):
        data.eval_batch_size = size
        results.append(trainer.test(module, data, verbose=False)[0])
    assert results[0] == pytest.approx(results[1], abs=1e-5)


# --- evidence ---------------------------------------------------------------------------------------------------------

EVIDENCE = {"evidence_hit_mean", "evidence_mass_mean", "ftpt", "ffpt", "ftpf", "ffpf"}
SHORTCUT = {"shortcut_use_mean", "shortcut_follow_mean"}


class LooksFirst(AttentionClassifier):
    """All attention on the first token, and the prediction is class 1."""

    def attend(self, hidden, scores, mask, attention=None):
        output = super().attend(hidden, scores, mask, attention)
        first = torch.zeros_like(output.attention)
        first[:, 0] = 1.0
        return replace(output, attention=first, logits=output.logits * 0 + torch.tensor([0.0, 1.0]))


def planted(**options) -> Planted:
    sizes = {"train_documents": 20, "validation_documents": 15, "test_documents": 15, "max_length": 16}
    return Planted(**sizes, eval_batch_size=4, embeddings=RandomEmbeddings(4), **options)


def test_evidence_and_shortcut_are_measured_on_validation_and_test(data):
    data = planted(shortcut=0.8)
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
    data = planted(evidence_position="early", min_length=10)
    module = AttentionModule(backbone=LooksFirst)
    results = fit(module, data).test(module, data, verbose=False)[0]
    hits = np.mean([document.rationale[0] for document in generate("test", data.options)])
    assert 0 < hits < 1
    assert results["test/evidence_hit_mean"] == results["test/evidence_mass_mean"] == pytest.approx(hits)
    assert results["test/ftpt"] + results["test/ftpf"] == pytest.approx(hits)
    assert not [key for key in results if "shortcut" in key]


def test_data_without_marks_logs_nothing_of_them(data, monkeypatch):
    monkeypatch.setattr(data, "on_after_batch_transfer", lambda batch, index: Batch(*batch[:4]))
    module = AttentionModule()
    trainer = fit(module, data)
    logged = {*trainer.callback_metrics, *trainer.test(module, data, verbose=False)[0]}
    assert {"val/accuracy", "test/accuracy"} <= logged
    assert not [key for key in logged if key.split("/")[1] in EVIDENCE | SHORTCUT]


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
