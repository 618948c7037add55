"""Weights of examples where their identities are exact, and what is fitted on masks."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import InstanceWeighting
from attn_lightning.methods.instance_weighting import (
    effective_sample_size,
    neutral_weights,
    normalized_within_classes,
    out_of_fold_probabilities,
)
from attn_lightning.metrics.selection_features import mask_features
from support.defaults import defaults
from support.steps import averaging_fit, constant_step

MASK = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]


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


def told_by_mask(method: InstanceWeighting, share: float) -> dict[str, float]:
    """Two hundred texts of ten words; the mask is the first word for class 0 with the given probability."""
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 2
    first = np.where(generator.random(200) < share, labels == 0, labels == 1)
    attention = torch.zeros(200, 10)
    attention[torch.arange(200), torch.from_numpy(np.where(first, 0, 5))] = 1.0
    features = mask_features(attention.numpy(), np.ones((200, 10), bool))
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


def test_a_text_that_is_read_several_times_in_an_epoch_is_not_held_out_of_a_fit_that_saw_it() -> None:
    """A pool without labels makes an epoch go over the labelled texts again and again."""
    generator = np.random.default_rng(0)
    rows, noise = np.arange(60), generator.normal(size=(60, 30)).astype(np.float32)
    once, often = InstanceWeighting(), InstanceWeighting()
    once._seen = [(rows, rows % 2, noise)]
    earlier = [(rows, rows % 2, noise + generator.normal(0, 0.01, noise.shape).astype(np.float32)) for _ in range(20)]
    often._seen = [*earlier, (rows[::-1], rows[::-1] % 2, noise[::-1])]
    assert often.refit() == once.refit()
    np.testing.assert_array_equal(often._weights, once._weights)


def test_clipped_weights_are_counted() -> None:
    method = InstanceWeighting(min_weight=0.9, max_weight=1.1)
    logs = told_by_mask(method, share=0.9)
    assert logs["clip_rate"] == 1.0
    assert set(np.unique(method._weights)) == {np.float32(0.9), np.float32(1.1)}


def test_weights_belong_to_rows_and_are_one_before_the_first_fit() -> None:
    method, step = InstanceWeighting(), constant_step(MASK)
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
    averaging_fit(tmp_path, method, ModelCheckpoint(tmp_path, "last", monitor="val/accuracy"), max_epochs=1)
    assert len(method._weights) == 48
    assert method._seen == []
    stored = torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["InstanceWeighting"]["weights"]
    assert np.array_equal(stored.numpy(), method._weights)


@pytest.mark.parametrize("options", [{"weight": 1.5}, {"num_folds": 1}, {"min_weight": 0.0}, {"max_weight": 0.5}])
def test_bad_options_of_weighting_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        InstanceWeighting(**options)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (InstanceWeighting, {"weight": 1.0, "num_folds": 5, "min_weight": 0.1, "max_weight": 10.0}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected


def test_the_least_weight_is_at_most_1():
    with pytest.raises(ConfigurationError, match=r"`min_weight` of InstanceWeighting to be .* at most 1, but got 1.5"):
        InstanceWeighting(min_weight=1.5)
