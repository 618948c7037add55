"""Random attention by its statistics, frozen parts bit by bit, weights where the identities are exact."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy.stats import chisquare, kstest
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.planted import Planted
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import InstanceWeighting, RandomAttentionPretraining
from attn_lightning.methods.base import Method
from attn_lightning.methods.shortcuts import (
    effective_sample_size,
    mask_features,
    neutral_weights,
    normalized_within_classes,
    out_of_fold_probabilities,
    random_soft_attention,
    random_subset_attention,
)
from attn_lightning.module import AttentionModule
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]


def make_step(tokens: int = 1, labels: tuple[int, ...] = (0, 1, 1)) -> TrainStep:
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, 10, 4, ("a", "b")), encoder=Average)
    batch = Batch(MASK * tokens, MASK, torch.tensor(labels), torch.tensor([4, 0, 2]))
    task_loss = lambda logits, y: F.cross_entropy(logits, y, reduction="none")  # noqa: E731
    return TrainStep(model, batch, model(batch.tokens, batch.mask), task_loss, progress=0.0)


def fit(folder: Path, *callbacks: Callback, max_epochs: int, resume: Path | None = None) -> AttentionModule:
    torch.manual_seed(0)
    data = Planted(
        train_documents=48, validation_documents=8, test_documents=8, embeddings=RandomEmbeddings(dimension=6),
        cache=folder / "cache", batch_size=16,
    )  # fmt: skip
    module = AttentionModule(lambda spec: AttentionClassifier(spec, encoder=Average), num_probe_examples=0)
    trainer = Trainer(
        max_epochs=max_epochs, callbacks=list(callbacks), logger=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return module


class Snapshots(Callback):
    """The weights after every epoch, and before the first."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.states.append(copy.deepcopy(pl_module.backbone.state_dict()))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.states.append(copy.deepcopy(pl_module.backbone.state_dict()))

    def moved(self, epoch: int) -> set[str]:
        before, after = self.states[epoch], self.states[epoch + 1]
        return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


# --- random attention -----------------------------------------------------------------------------------------------


def test_every_subset_of_the_real_tokens_is_equally_likely() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 5 + [False] * 2]).expand(6000, 7)
    attention = random_subset_attention(mask, 2)
    assert torch.equal(attention.sum(1), torch.ones(6000))
    assert torch.equal(attention.unique(), torch.tensor([0.0, 0.5]))
    assert not attention[~mask].any()
    codes = ((attention > 0) * 2 ** torch.arange(7)).sum(1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 10
    assert chisquare(counts.numpy()).pvalue > 0.001


def test_a_subset_larger_than_the_text_is_the_text() -> None:
    torch.testing.assert_close(random_subset_attention(MASK, 9), MASK / MASK.sum(1, keepdim=True))


def test_soft_attention_is_uniform_on_the_simplex() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 4 + [False]]).expand(4000, 5)
    attention = random_soft_attention(mask)
    torch.testing.assert_close(attention.sum(1), torch.ones(4000))
    assert not attention[~mask].any()
    # One weight of a flat Dirichlet distribution of n tokens is Beta(1, n - 1).
    for token in range(4):
        assert kstest(attention[:, token].numpy(), "beta", args=(1, 3)).pvalue > 0.001


@pytest.mark.parametrize("masks", ["subsets", "soft"])
def test_random_attention_does_not_depend_on_texts_and_labels(masks: Any) -> None:
    method, found = RandomAttentionPretraining(masks=masks, subset_size=2), []
    for step in (make_step(), make_step(tokens=7, labels=(1, 0, 0))):
        torch.manual_seed(5)
        found.append(method.attention(step))
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


class Scores(Callback):
    """A validation score that is best in the first epoch."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        pl_module.log("val/score", [9.0, 8.0, 1.0, 2.0][trainer.current_epoch])


def test_each_phase_moves_what_it_trains_and_only_the_second_one_is_kept(tmp_path: Path) -> None:
    snapshots, best = Snapshots(), ModelCheckpoint(tmp_path, "best", monitor="val/score", mode="max")
    method = RandomAttentionPretraining(num_pretraining_epochs=2, subset_size=3)
    fit(tmp_path, method, snapshots, Scores(), best, max_epochs=4)
    assert snapshots.moved(0) == snapshots.moved(1) == {"embedding", "encoder", "classifier"}
    assert snapshots.moved(2) == snapshots.moved(3) == {"embedding", "encoder", "scorer"}
    assert best.best_model_score == 2.0


def test_a_resumed_run_finds_its_phase(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, auto_insert_metric_name=False)
    make = lambda: RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=0.5)  # noqa: E731
    whole = fit(tmp_path, make(), keep, max_epochs=3)
    again = fit(tmp_path, make(), ModelCheckpoint(tmp_path / "again"), max_epochs=3, resume=tmp_path / "1.ckpt")
    for name, value in whole.backbone.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(again.backbone.state_dict()[name], value, atol=0, rtol=0)  # type: ignore[union-attr]


class LearningRates(Callback):
    """The learning rate of the group that holds the classifier, after every epoch."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        wanted = id(pl_module.backbone.classifier.weight)
        groups = trainer.optimizers[0].param_groups
        assert sum(len(group["params"]) for group in groups) == len(list(pl_module.parameters()))
        self.rates += [group["lr"] for group in groups if any(id(p) == wanted for p in group["params"])]


def test_a_slow_classifier_has_its_own_learning_rate(tmp_path: Path) -> None:
    rates = LearningRates()
    method = RandomAttentionPretraining(num_pretraining_epochs=1, classifier_rate=0.25, random_fraction=0.5)
    fit(tmp_path, method, rates, max_epochs=2)
    assert rates.rates == pytest.approx([1e-3, 2.5e-4])


def test_weight_zero_is_the_baseline(tmp_path: Path) -> None:
    baseline = fit(tmp_path, max_epochs=1)
    for method in (RandomAttentionPretraining(weight=0.0), InstanceWeighting(weight=0.0)):
        found = fit(tmp_path, method, max_epochs=1)
        pairs = zip(found.parameters(), baseline.parameters(), strict=True)
        assert all(torch.equal(got, want) for got, want in pairs)


def test_a_training_without_a_second_phase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_epochs"):
        fit(tmp_path, RandomAttentionPretraining(num_pretraining_epochs=2), max_epochs=2)


@pytest.mark.parametrize(
    "options",
    [
        {"num_pretraining_epochs": 0},
        {"subset_size": 0},
        {"masks": "hard"},
        {"classifier_rate": 1.5},
        {"random_fraction": 1.0},
    ],
)
def test_bad_options_of_pretraining_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RandomAttentionPretraining(**options)


# --- instance weighting ---------------------------------------------------------------------------------------------


def population() -> tuple[np.ndarray[Any, Any], ...]:
    """Masks 0..3 and labels 0..2 with counts in every cell, as rows, with the exact P(y) and P(y | m) of each row."""
    counts = np.array([[12, 3, 5], [2, 9, 4], [1, 1, 8], [6, 6, 3]])
    masks, labels = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    prior, conditional = counts.sum(0) / counts.sum(), counts / counts.sum(1, keepdims=True)
    return masks, labels, prior[labels], conditional[masks, labels]


def test_exact_weights_have_mean_one_in_all_in_each_class_and_at_each_mask() -> None:
    masks, labels, prior, conditional = population()
    weights = neutral_weights(prior, conditional)
    assert weights.mean() == pytest.approx(1.0)
    for groups in (masks, labels):
        for group in np.unique(groups):
            assert weights[groups == group].mean() == pytest.approx(1.0)
    torch.testing.assert_close(normalized_within_classes(weights, labels), weights)


def test_under_exact_weights_the_mask_says_nothing_about_the_label() -> None:
    masks, labels, prior, conditional = population()
    weights = neutral_weights(prior, conditional)
    for mask in np.unique(masks):
        for label in np.unique(labels):
            joint = weights[(masks == mask) & (labels == label)].sum() / weights.sum()
            assert joint == pytest.approx((masks == mask).mean() * (labels == label).mean())


def test_effective_sample_size_of_known_weights() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert effective_sample_size(np.array([1.0, 3.0])) == pytest.approx(16 / 10)


def test_probabilities_are_out_of_fold() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = generator.normal(size=(60, 50)).astype(np.float32)
    # 50 random features separate 60 examples: a fit that saw them would be nearly certain of each.
    blind = out_of_fold_probabilities(noise, labels, 5)
    assert blind is not None
    assert 0.3 < blind.mean() < 0.65
    told = out_of_fold_probabilities(np.c_[noise[:, :2], 4 * labels].astype(np.float32), labels, 5)
    assert told is not None
    assert told.mean() > 0.9
    assert out_of_fold_probabilities(noise, np.zeros(60, np.int64), 5) is None


def test_features_of_a_mask_by_hand() -> None:
    mask = torch.arange(24) < torch.tensor([20, 3])[:, None]
    attention = torch.zeros(2, 24)
    attention[0, [0, 1, 19]] = 1 / 3
    attention[1, :3] = 1 / 3
    first, second = mask_features(attention, mask)
    assert first[:8].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert first[8:16].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    torch.testing.assert_close(first[16:26], torch.tensor([2 / 3] + [0.0] * 8 + [1 / 3]))
    torch.testing.assert_close(first[26:], torch.tensor([np.log(4.0), 3 / 20, 2 / 3], dtype=torch.float32))
    assert not second.any(), "uniform attention selects nothing"


def test_features_do_not_depend_on_padding_and_batch() -> None:
    torch.manual_seed(0)
    attention = random_soft_attention(MASK)
    wide = mask_features(F.pad(attention, (0, 5)), F.pad(MASK, (0, 5)))
    torch.testing.assert_close(wide, mask_features(attention, MASK))
    torch.testing.assert_close(wide[1:2], mask_features(attention[1:2, :4], MASK[1:2, :4]))


def told_by_mask(method: InstanceWeighting, share: float) -> dict[str, float]:
    """Two hundred texts of ten words; the mask is the first word for class 0 with the given probability."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    first = np.where(generator.random(200) < share, labels == 0, labels == 1)
    attention = torch.zeros(200, 10)
    attention[torch.arange(200), torch.from_numpy(np.where(first, 0, 5))] = 1.0
    features = mask_features(attention, torch.ones(200, 10, dtype=torch.bool)).numpy()
    method._seen = [(np.arange(200), labels, features)]
    return method.refit()


def test_weights_are_small_where_the_mask_tells_the_label_and_one_where_it_does_not() -> None:
    method = InstanceWeighting()
    logs = told_by_mask(method, share=0.9)
    assert method._weights.mean() == pytest.approx(1.0, abs=0.05)
    assert np.median(method._weights) == pytest.approx(0.5 / 0.9, abs=0.05)
    assert method._weights.max() > 3
    assert 0.65 < logs["mask_probability"] < 0.85
    assert logs["clip_rate"] == 0
    assert 0.2 < logs["effective_share"] < 0.7
    neutral = InstanceWeighting()
    told_by_mask(neutral, share=0.5)
    np.testing.assert_allclose(neutral._weights, 1.0, atol=0.2)


def test_clipped_weights_are_counted() -> None:
    method = InstanceWeighting(min_weight=0.9, max_weight=1.1)
    logs = told_by_mask(method, share=0.9)
    assert logs["clip_rate"] == 1.0
    assert set(np.unique(method._weights)) == {np.float32(0.9), np.float32(1.1)}


def test_weights_belong_to_rows_and_are_one_before_the_first_fit() -> None:
    method, step = InstanceWeighting(), make_step()
    weights = method.example_weights(step)
    assert weights is not None
    assert weights.tolist() == [1, 1, 1]
    assert not weights.requires_grad
    method._weights = np.array([0.5, 7.0, 2.0], np.float32)
    assert method.example_weights(step).tolist() == [1.0, 0.5, 2.0]  # type: ignore[union-attr]
    half = InstanceWeighting(weight=0.5)
    half.load_state_dict(pickle.loads(pickle.dumps(method.state_dict())))
    assert half.example_weights(step).tolist() == [1.0, 0.75, 1.5]  # type: ignore[union-attr]


def test_a_checkpoint_of_an_epoch_has_the_weights_for_the_next(tmp_path: Path) -> None:
    method = InstanceWeighting()
    fit(tmp_path, method, ModelCheckpoint(tmp_path, "last", monitor="val/accuracy"), max_epochs=1)
    assert len(method._weights) == 48
    assert method._seen == []
    stored = torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["InstanceWeighting"]["weights"]
    assert np.array_equal(stored.numpy(), method._weights)


def test_both_remedies_together(tmp_path: Path) -> None:
    methods: list[Method] = [RandomAttentionPretraining(num_pretraining_epochs=1), InstanceWeighting()]
    fit(tmp_path, *methods, max_epochs=2)


@pytest.mark.parametrize("options", [{"weight": 1.5}, {"num_folds": 1}, {"min_weight": 0.0}, {"max_weight": 0.5}])
def test_bad_options_of_weighting_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        InstanceWeighting(**options)
