"""Tests of attention: against plain loops, scipy, autograd and what two tokens allow by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.evaluation import attention_tests
from attn_lightning.evaluation.attention_tests import (
    adversarial_divergence,
    attend_head,
    held_head,
    permutation_change,
    permuted,
    prediction_change,
    row_draws,
    uniform_attention,
)
from attn_lightning.types import AttentionOutput
from support.attention import (
    LENGTHS,
    MODELS,
    passed,
    small_model,
    subject_of,
)


def random_attention(mask, count, seed=3):
    scores = torch.randn(len(mask), count, mask.shape[1], generator=torch.Generator().manual_seed(seed))
    return scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_that_of_the_model_for_every_set_of_weights(name):
    model = MODELS[name]()
    batch, output = passed(model)
    weights = random_attention(batch.mask, 4).requires_grad_()
    logits = held_head(model, output)(weights)
    for k in range(4):
        with torch.no_grad():
            expected = model(batch.tokens, batch.mask, weights[:, k]).logits
        torch.testing.assert_close(logits[:, k], expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(logits)
    (ours,) = torch.autograd.grad(logits, weights, direction)
    (expected,) = torch.autograd.grad(attend_head(model, output)(weights), weights, direction)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_only_heads_that_are_known_to_be_linear_are_shortened():
    shortened = {
        name for name in MODELS if attention_tests.summed_states(model := MODELS[name](), passed(model)[1]) is not None
    }
    assert shortened == {"two classes", "three classes", "sparse", "noise gate", "gaussian"}


@pytest.mark.parametrize("name", MODELS)
def test_permutation_equals_a_loop_over_texts_and_permutations(name):
    model = MODELS[name]()
    batch, output = passed(model)
    keys = torch.rand(len(LENGTHS), 6, batch.mask.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        changes = permutation_change(held_head(model, output), output, keys, chunk=4)
        for row, n in enumerate(LENGTHS):
            tokens, mask = batch.tokens[row : row + 1, :n], torch.ones(1, n, dtype=torch.bool)
            clean = model(tokens, mask)
            for k in range(6):
                weights = clean.attention[:, np.argsort(keys[row, k, :n].numpy())]
                other = model(tokens, mask, weights).logits.softmax(1)
                expected = (other - clean.logits.softmax(1)).abs().sum() / 2
                torch.testing.assert_close(changes[row, k], expected, atol=2e-5, rtol=1e-4)
    assert changes.max() > 1e-3


def test_of_two_classes_the_change_is_that_of_one_probability():
    logits, original = torch.randn(20, 2), torch.randn(20, 2)
    expected = (logits.softmax(1)[:, 1] - original.softmax(1)[:, 1]).abs()
    torch.testing.assert_close(prediction_change(logits, original), expected)


def test_every_permutation_is_equally_likely_and_padding_stays_empty():
    attention = torch.tensor([[0.1, 0.3, 0.6, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    keys = row_draws(subject_of(small_model()), torch.tensor([0]), torch.tensor([3]), (6000, 4), 0)
    drawn = permuted(attention, mask, keys)[0]
    assert (drawn[:, 3] == 0).all()
    orders, counts = np.unique(drawn[:, :3].numpy(), axis=0, return_counts=True)
    assert len(orders) == 6
    # Six binomial counts with mean 1000 and deviation 29.
    assert np.abs(counts - 1000).max() < 150


def test_permutations_of_one_token_or_of_constant_weights_change_nothing():
    _, output = passed(small_model(normalizer=Uniform))
    keys = torch.rand(len(LENGTHS), 5, max(LENGTHS))
    assert permutation_change(held_head(small_model(normalizer=Uniform), output), output, keys, 5).max() < 1e-6
    model = small_model()
    _, output = passed(model, (1, 3))
    with torch.no_grad():
        assert permutation_change(held_head(model, output), output, keys[:2, :, :3], 5)[0].max() < 1e-6


def test_draws_depend_on_the_row_and_the_purpose_alone():
    subject = subject_of(small_model())
    rows, lengths = torch.tensor([4, 2]), torch.tensor([3, 5])
    draws = row_draws(subject, rows, lengths, (2, 6), 0)
    assert (draws[0, :, 3:] == 0).all()
    torch.testing.assert_close(draws[1, :, :5], row_draws(subject, rows[1:], lengths[1:], (2, 5), 0)[0])
    assert not torch.equal(draws, row_draws(subject, rows, lengths, (2, 6), 1))
    assert not torch.equal(draws, row_draws(replace(subject, seed=1), rows, lengths, (2, 6), 0))


@pytest.mark.parametrize("name", ["two classes", "sparse", "own backbone"])
def test_the_divergence_of_the_start_is_that_of_scipy(name):
    model = MODELS[name]()
    _, output = passed(model)
    start = torch.randn(len(LENGTHS), 1, max(LENGTHS)) * 3
    found = adversarial_divergence(held_head(model, output), output, start, num_steps=0, threshold=1.0)
    for row, n in enumerate(LENGTHS):
        candidate = start[row, 0, :n].softmax(0)
        expected = jensenshannon(candidate, output.attention[row, :n]) ** 2 if n > 1 else 0.0
        assert found[row].item() == pytest.approx(expected, abs=1e-6)


def searched_by_autograd(model, tokens, start, num_steps, learning_rate, threshold):
    """The objective written down once more, for one text and one candidate, with nothing by hand."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    clean = model(tokens, mask)
    hidden, attention, p = clean.hidden.detach(), clean.attention.detach()[0], clean.logits.detach().softmax(1)
    scores = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([scores], lr=learning_rate, amsgrad=True)
    best = 0.0
    for step in range(num_steps + 1):
        weights = scores.softmax(0)
        q = model.attend(hidden, clean.scores.detach(), mask, weights.unsqueeze(0)).logits.softmax(1)
        change = (p - q).abs().sum() / 2
        middle = (weights + attention) / 2
        divergence = (weights * (weights / middle).log()).sum() / 2 + (attention * (attention / middle).log()).sum() / 2
        if change <= threshold:
            best = max(best, divergence.item())
        if step < num_steps:
            optimizer.zero_grad()
            (500 * torch.relu(change - threshold) - divergence).backward()
            optimizer.step()
    return best


@pytest.mark.parametrize("name", ["two classes", "three classes", "gaussian", "own backbone"])
def test_the_search_equals_one_by_autograd_text_by_text(name):
    model = MODELS[name]().double()
    lengths = (4, 6, 2)
    batch, output = passed(model, lengths)
    start = 2 * torch.randn(3, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = adversarial_divergence(held_head(model, output), output, start, 25, 0.08, 0.02)
    for row, n in enumerate(lengths):
        paths = [
            searched_by_autograd(model, batch.tokens[row : row + 1, :n], start[row, k, :n], 25, 0.08, 0.02)
            for k in range(2)
        ]
        assert found[row].item() == pytest.approx(max(paths), abs=1e-6)
    assert found.max() > 0.01


def two_tokens(share, votes):
    """A text of two tokens with a given attention whose logits of class 1 against 0 are `votes`, and its head."""
    attention = torch.tensor([[share, 1 - share]], dtype=torch.float64)
    table = torch.tensor([[[0.0, votes[0]], [0.0, votes[1]]]], dtype=torch.float64)

    def head(weights):
        return weights @ table

    logits = head(attention.unsqueeze(1))[:, 0]
    mask = torch.ones(1, 2, dtype=torch.bool)
    return AttentionOutput(logits, attention, attention, table, logits, mask), head


def divergence_of_two(first, second):
    return jensenshannon([first, 1 - first], [second, 1 - second]) ** 2


@pytest.mark.parametrize("share", [0.5, 0.7, 0.99])
def test_two_tokens_that_say_the_same_let_attention_go_anywhere(share):
    # Every candidate keeps the prediction, so the best one is the end of the segment that is farther away.
    output, head = two_tokens(share, (1.5, 1.5))
    bound = max(divergence_of_two(0.0, share), divergence_of_two(1.0, share))
    start = torch.tensor([[[2.0, -2.0], [-2.0, 2.0]]], dtype=torch.float64)
    found = adversarial_divergence(head, output, start).item()
    assert bound - 3e-3 < found <= bound + 1e-9


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_two_tokens_that_differ_let_attention_go_as_far_as_the_prediction_allows(share):
    # p = sigmoid(v2 + c (v1 - v2)) is monotone in the first weight c, so |p - p0| <= 0.05 is an interval of c.
    votes = (2.0, -1.0)
    output, head = two_tokens(share, votes)
    p = output.logits.softmax(1)[0, 1].item()
    ends = [(np.log(q / (1 - q)) - votes[1]) / (votes[0] - votes[1]) for q in (p - 0.05, p + 0.05)]
    bound = max(divergence_of_two(end, share) for end in ends)
    start = torch.tensor([[[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    found = adversarial_divergence(head, output, start, threshold=0.05).item()
    # The penalty leaves little to gain near the threshold.
    assert 0.8 * bound < found <= bound + 1e-9


def test_the_search_stays_between_nothing_and_ln_2_and_needs_a_candidate_that_is_allowed():
    model = small_model(3)
    _, output = passed(model)
    start = 3 * torch.randn(len(LENGTHS), 3, max(LENGTHS), generator=torch.Generator().manual_seed(2))
    found = adversarial_divergence(held_head(model, output), output, start, num_steps=60)
    assert (found >= 0).all()
    assert (found <= np.log(2)).all()
    assert (found[torch.tensor(LENGTHS) == 1] < 1e-6).all()
    none_allowed = adversarial_divergence(held_head(model, output), output, start, num_steps=0, threshold=0.0)
    # One token is the attention itself.
    assert (none_allowed < 1e-6).all()


def test_more_steps_and_a_looser_threshold_find_no_less():
    model = small_model()
    _, output = passed(model)
    start = 3 * torch.randn(len(LENGTHS), 3, max(LENGTHS), generator=torch.Generator().manual_seed(2))
    head = held_head(model, output)
    few, many = (adversarial_divergence(head, output, start, num_steps=steps) for steps in (5, 60))
    assert (many >= few).all()
    assert (many > few).any()


def test_uniform_attention_is_one_over_n():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    torch.testing.assert_close(uniform_attention(mask), torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
