"""Models guided by given weights: the formula, what they can learn, and what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.evaluation.diagnostic import (
    GuidedModel,
    Recipe,
    guided_metrics,
    random_weights,
    steps_of,
    uniform_weights,
)
from attn_lightning.evaluation.subject import Split, no_progress
from support.attention import (
    LENGTHS,
    Documents,
    marked_texts,
    small_model,
    subject_of,
)


def test_a_guided_model_is_as_good_as_its_weights():
    train, test = marked_texts(300, 0), marked_texts(100, 1)
    subject = subject_of(small_model())
    told = []
    found = {g: guided_metrics(subject, train, test, g, Recipe(), told.append) for g in ("marks", "uniform", None)}
    assert found["marks"]["accuracy"] == 1
    assert found["uniform"]["accuracy"] < 0.7
    assert found[None]["accuracy"] < 0.7
    assert sum(told) == 3 * (5 * 300 + 100)


def test_a_guided_model_does_not_depend_on_memory_and_repeats():
    train, test = marked_texts(60, 0), marked_texts(40, 1)
    subject = subject_of(small_model())
    state = torch.get_rng_state()
    first = guided_metrics(subject, train, test, "uniform", Recipe(), no_progress)
    assert torch.equal(state, torch.get_rng_state())
    assert guided_metrics(subject, train, test, "uniform", Recipe(), no_progress) == first
    small = guided_metrics(
        replace(subject, token_budget=30, batch_size=5), train, test, "uniform", Recipe(), no_progress
    )
    assert small == pytest.approx(first, abs=1e-4)


def test_a_guided_model_without_labels_has_no_accuracy():
    train, test = marked_texts(10, 0), marked_texts(10, 1)
    for splits in (
        (replace(train, labels=train.labels * 0 - 1), test),
        (train, replace(test, labels=test.labels * 0 - 1)),
    ):
        metrics = guided_metrics(subject_of(small_model()), *splits, "uniform", Recipe(), no_progress)
        assert np.isnan(metrics["accuracy"])


def test_a_guided_model_is_the_formula():
    torch.manual_seed(0)
    model = GuidedModel(3, 10, 0, Recipe(embedding_size=4, hidden_size=5))
    nn.init.normal_(model.embedding.weight)
    tokens = torch.tensor([[3, 7, 12], [5, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    logits = model(tokens, mask, weights)
    for row, words in enumerate([(3, 7, 0), (5,)]):
        context = sum(
            weights[row, t] * torch.tanh(model.hidden(model.embedding.weight[word])) for t, word in enumerate(words)
        )
        torch.testing.assert_close(logits[row], model.classifier(context))


def test_long_splits_are_trained_on_for_a_limited_number_of_steps():
    recipe = Recipe(num_epochs=3, num_steps=4, batch_size=2)
    assert steps_of(Documents(), recipe) == 4
    assert steps_of(Documents((3, 2, 2)), recipe) == 4
    assert steps_of(Documents((3, 2)), recipe) == 3
    train, told = marked_texts(9, 0), []
    guided_metrics(subject_of(small_model()), train, train, "uniform", recipe, told.append)
    assert len(told[:-1]) == 4
    assert told[-1] == 9


def test_the_diagnostic_works_on_segments():
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(n, 2, 3)).astype(np.float32) for n in LENGTHS]
    train = Split(Documents(tokens=parts), Documents().labels, {"uniform": uniform_weights(LENGTHS)}, -1)
    metrics = guided_metrics(subject_of(small_model()), train, train, "uniform", Recipe(), no_progress)
    assert metrics["accuracy"] > 0.5


def test_random_weights_are_spread_over_all_attention_a_text_can_get():
    lengths = np.asarray([3] * 4000 + [1, 5])
    weights = random_weights(lengths, torch.Generator().manual_seed(0))
    sums = np.add.reduceat(weights.values, weights.starts)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    triples = weights.values[: 3 * 4000].reshape(-1, 3)
    # Moments of a flat Dirichlet distribution over three tokens.
    np.testing.assert_allclose(triples.mean(0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(triples.var(0), 1 / 18, atol=0.004)
