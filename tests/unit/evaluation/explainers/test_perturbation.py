"""LIME and SHAP, against captum, scikit-learn and Shapley values by enumeration."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression
from captum.attr import KernelShap as CaptumShap
from captum.attr import Lime as CaptumLime
from sklearn.linear_model import Ridge

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.explainers.perturbation import (
    Lime,
    Shap,
    shapley_kernel,
    shapley_regression,
    weighted_ridge,
)
from attn_lightning.evaluation.subject import Subject, no_progress
from attn_lightning.numerics import masked_softmax
from attn_lightning.types import AttentionOutput, DataSpec
from support.texts import Texts

UNKNOWN = 1


class Additive(Backbone):
    """`p_1 = 0.6 + sum of the words' values`: a word adds the same whatever else is there; the unknown word nothing."""

    def __init__(self, values):
        super().__init__()
        self.values = torch.tensor(values)

    def embed(self, tokens):
        return self.values[tokens].unsqueeze(-1)

    def encode(self, embeddings, mask):
        return embeddings.masked_fill(~mask.unsqueeze(-1), 0.0)

    def score(self, hidden, mask):
        return hidden.squeeze(-1)

    def attend(self, hidden, scores, mask, attention=None):
        attention = masked_softmax(scores, mask) if attention is None else attention
        context = hidden.sum(1)
        p = 0.6 + context[:, 0]
        return AttentionOutput(torch.stack([1 - p, p], 1).log(), attention, scores, hidden, context, mask)


VALUES = [0.0, 0.0, 0.1, -0.05, 0.2, -0.02, 0.01]
TEXT = [2, 3, 4, 5, 6]


def additive(*texts, **options):
    return Subject(Additive(VALUES), Texts(texts), 2, erased=UNKNOWN, **options)


def attentive(texts, **options):
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(3, 20, 6, ("no", "maybe", "yes")))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight.mul_(5)
    return Subject(model.eval(), Texts(texts), 3, erased=UNKNOWN, **options)


def texts_of(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, 20, (length,), generator=generator) for length in lengths]


def value(subject, text, replacement="delete"):
    """`value(places)`: probability of the class of the whole text when only these places are left."""

    def probabilities(places):
        if replacement == "unknown":
            kept = [word if place in places else UNKNOWN for place, word in enumerate(text.tolist())]
        else:
            kept = [text[place].item() for place in sorted(places)] or [UNKNOWN]
        tokens = torch.tensor([kept])
        return subject.model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logits[0].double().softmax(0).detach()

    predicted = probabilities(set(range(len(text)))).argmax()
    return lambda places: float(probabilities(set(places))[predicted])


def shapley_by_enumeration(length, value):
    """Mean gain of every place over all orders in which the places can come."""
    gains = np.zeros(length)
    orders = list(permutations(range(length)))
    cache = {}
    for order in orders:
        for position, place in enumerate(order):
            with_it, without = frozenset(order[: position + 1]), frozenset(order[:position])
            for subset in (with_it, without):
                if subset not in cache:
                    cache[subset] = value(subset)
            gains[place] += cache[with_it] - cache[without]
    return gains / len(orders)


@pytest.mark.parametrize("replacement", ["delete", "unknown"])
def test_shap_of_short_texts_is_exact(replacement):
    subject = attentive(texts_of(4, 1, 5, 2))
    found = Shap(samples=32, replacement=replacement).explain(subject, no_progress)
    for row, text in enumerate(subject.examples.texts):
        expected = shapley_by_enumeration(len(text), value(subject, text, replacement))
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found[row], np.abs(expected), atol=1e-6)


def test_shap_of_longer_texts_comes_near():
    subject = attentive(texts_of(6))
    text = subject.examples.texts[0]
    expected = np.abs(shapley_by_enumeration(6, value(subject, text)))
    near = Shap(samples=63).explain(subject, no_progress)[0]
    assert 0 < np.abs(near - expected).max() < 0.15 * expected.max()
    exact = Shap(samples=64).explain(subject, no_progress)[0]
    np.testing.assert_allclose(exact, expected, atol=1e-6)


def test_lime_and_shap_of_an_additive_model_are_its_words_values():
    subject = additive(TEXT)
    expected = np.abs(np.array(VALUES)[TEXT])
    np.testing.assert_allclose(Lime(samples=60, ridge=0).explain(subject, no_progress)[0], expected, atol=1e-6)
    for samples in (8, 500):
        np.testing.assert_allclose(Shap(samples=samples).explain(subject, no_progress)[0], expected, atol=1e-6)


def test_an_additive_model_gets_the_same_from_captum():
    subject = additive(TEXT)
    tokens = torch.tensor([TEXT])

    def forward(inputs):
        return subject.model(inputs, torch.ones_like(inputs, dtype=torch.bool)).logits.softmax(1)[:, 1]

    torch.manual_seed(0)
    lime = CaptumLime(forward, interpretable_model=SkLearnLinearRegression())
    shap = CaptumShap(forward)
    options = {"baselines": torch.tensor([[UNKNOWN] * 5]), "n_samples": 60}
    for theirs, ours in ((lime, Lime(60, ridge=0, replacement="unknown")), (shap, Shap(20, replacement="unknown"))):
        expected = theirs.attribute(tokens, **options)[0].abs().numpy()
        np.testing.assert_allclose(ours.explain(subject, no_progress)[0], expected, atol=1e-5)


def test_shap_of_an_attentive_model_agrees_with_captum_on_many_samples():
    subject = attentive(texts_of(5))
    text = subject.examples.texts[0]
    target = int(subject.model(text[None], torch.ones(1, 5, dtype=torch.bool)).logits.argmax())

    def forward(inputs):
        return subject.model(inputs, torch.ones_like(inputs, dtype=torch.bool)).logits.softmax(1)[:, target].detach()

    torch.manual_seed(0)
    options = {"baselines": torch.full((1, 5), UNKNOWN), "n_samples": 1500, "perturbations_per_eval": 500}
    expected = CaptumShap(forward).attribute(text[None], **options)[0].abs().numpy()
    found = Shap(samples=32, replacement="unknown").explain(subject, no_progress)[0]
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())


@pytest.mark.parametrize("ridge", [0.0, 0.3, 5.0])
def test_weighted_ridge_equals_scikit_learn(ridge):
    rng = np.random.default_rng(0)
    features, values, weights = rng.integers(0, 2, (40, 6)).astype(float), rng.random(40), rng.random(40)
    expected = Ridge(alpha=ridge).fit(features, values, sample_weight=weights).coef_
    np.testing.assert_allclose(weighted_ridge(features, values, weights, ridge), expected, atol=1e-10)


def test_lime_is_that_regression_on_its_subsets():
    subject, lime = attentive(texts_of(6)), Lime(samples=50)
    gain = value(subject, subject.examples.texts[0])
    subsets = lime.subsets(6, np.random.default_rng(3))
    values = np.array([gain(np.flatnonzero(subset)) for subset in subsets])
    distance = np.array([1 - subset.sum() / np.sqrt(6 * max(subset.sum(), 1)) for subset in subsets])
    weights = np.exp(-(distance**2) / (2 * 0.25**2))
    expected = Ridge(alpha=1.0).fit(subsets, values, sample_weight=weights).coef_
    np.testing.assert_allclose(lime.fit(subsets, values), expected, atol=1e-10)


def test_lime_leaves_out_every_number_of_tokens_equally_often():
    subsets = Lime(samples=6001).subsets(5, np.random.default_rng(0))
    assert subsets[0].all()
    counts = np.bincount(subsets[1:].sum(1), minlength=6)
    np.testing.assert_allclose(counts, [1200] * 5 + [0], atol=150)
    np.testing.assert_allclose(subsets[1:].mean(0), 0.4, atol=0.03)


def test_drawn_subsets_of_shap_follow_the_kernel_in_pairs():
    subsets = Shap(samples=4000).subsets(14, np.random.default_rng(0))
    assert subsets[0].all()
    assert not subsets[1].any()
    first, second = np.split(subsets[2:], 2)
    assert (first ^ second).all()
    sizes = np.arange(1, 14)
    every = shapley_kernel(sizes, 14) * np.array([comb(14, k) for k in sizes])
    np.testing.assert_allclose(np.bincount(first.sum(1), minlength=15)[1:14] / 2000, every / every.sum(), atol=0.03)


def test_listed_subsets_are_all_of_them_once():
    subsets = Shap(samples=64).subsets(6, np.random.default_rng(0))
    assert len(subsets) == len({tuple(subset) for subset in subsets}) == 64


def test_shapley_regression_keeps_its_constraint_where_subsets_do_not_determine_it():
    subsets = np.eye(6)[:2]
    found = shapley_regression(subsets, np.array([0.5, 0.1]), np.ones(2), full=0.9, empty=0.3)
    assert found.sum() == pytest.approx(0.6)
    assert found[0] == pytest.approx(0.2)
    assert found[1] == pytest.approx(-0.2)
    np.testing.assert_allclose(found[2:], 0.6 / 4)


@pytest.mark.parametrize("explainer", [Lime(samples=30), Shap(samples=30), Shap(samples=30, replacement="attention")])
@pytest.mark.parametrize(("batch_size", "token_budget"), [(1, 2**16), (128, 1), (3, 50)])
def test_neither_batches_nor_the_budget_change_anything(explainer, batch_size, token_budget):
    texts = texts_of(3, 1, 9, 4, 9, 2)
    expected = explainer.explain(attentive(texts), no_progress)
    subject = attentive(texts, batch_size=batch_size, token_budget=token_budget)
    found = explainer.explain(subject, no_progress)
    assert np.isfinite(expected.values).all()
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


def test_seeds_and_progress():
    texts, finished = texts_of(9, 12, 10), []
    first = Lime(samples=20).explain(attentive(texts, token_budget=10), finished.append)
    assert sum(finished) == 3
    again = Lime(samples=20).explain(attentive(texts), no_progress)
    np.testing.assert_allclose(first.values, again.values, atol=1e-5)
    other = Lime(samples=20).explain(attentive(texts, seed=1), no_progress)
    assert np.abs(first.values - other.values).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 1}, "samples"),
        ({"kernel_width": 0.0}, "kernel_width"),
        ({"ridge": -1.0}, "ridge"),
        ({"replacement": "mask"}, "replacement"),
    ],
)
def test_bad_options_are_refused(options, named):
    with pytest.raises(ConfigurationError, match=named):
        Lime(**options)
