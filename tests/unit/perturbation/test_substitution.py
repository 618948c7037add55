"""Attacks by words, against loops over all replacements."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.importance import differentiable
from attn_lightning.perturbation.attacks import attack_gradient, margin
from attn_lightning.perturbation.neighbors import NeighborCache
from attn_lightning.perturbation.sites import clean_pass, embedding_site
from attn_lightning.perturbation.substitution import Task, Vocabulary, estimated_gains, substitute_words
from support.steps import random_texts, recurrent_classifier

LENGTHS = (5, 1, 7, 3, 2)
SMALL_LSTM = partial(BiLSTM, hidden_size=8)


def words_setup(lengths=LENGTHS, num_neighbors=4):
    model = recurrent_classifier().double()
    tokens, mask = random_texts(lengths)
    clean = clean_pass(model, tokens, mask)
    table = model.embedding.weight.detach()
    return model, tokens, mask, clean, Vocabulary(table, NeighborCache(table, num_neighbors))


def attack_words(model, tokens, clean, vocabulary, budgets, target=None, token_budget=2**16, num_trials=1000):
    target = clean.logits.argmax(1) if target is None else target
    allowed = torch.tensor(budgets).expand(len(tokens), -1)
    with differentiable(model):
        return substitute_words(model, clean, tokens, target, allowed, vocabulary, token_budget, num_trials)


def test_one_word_equals_the_best_of_all_replacements():
    model, tokens, _, clean, vocabulary = words_setup()
    target = clean.logits.argmax(1)
    (found,) = attack_words(model, tokens, clean, vocabulary, [1])
    for row, length in enumerate(LENGTHS):
        text = tokens[row : row + 1, :length]
        best, words = margin(clean.logits[row : row + 1], target[row : row + 1]).item(), text
        for t in range(length):
            cosine = nn.functional.cosine_similarity(vocabulary.table[text[0, t]], vocabulary.table, dim=1)
            cosine[[0, 1, int(text[0, t])]] = -2
            for word in cosine.topk(4).indices.tolist():
                trial = text.clone()
                trial[0, t] = word
                value = margin(clean_pass(model, trial, torch.ones_like(trial).bool()).logits, target[row : row + 1])
                if value.item() > best:
                    best, words = value.item(), trial
        assert margin(found.logits, target)[row].item() == pytest.approx(best)
        assert found.tokens[row, :length].tolist() == words[0].tolist()


def test_estimated_gains_equal_the_definition():
    model, tokens, mask, clean, vocabulary = words_setup()
    target = clean.logits.argmax(1)
    replacements = vocabulary.replacements(tokens, mask)
    site = embedding_site(model, clean)
    with differentiable(model):
        _, gradient = attack_gradient(site, target, site.noiseless)
        gains = estimated_gains(model, Task(tokens, mask, target, replacements), vocabulary.table)
    for i, t, k in itertools.product(*map(range, gains.shape)):
        if mask[i, t]:
            step = vocabulary.table[replacements[i, t, k]] - vocabulary.table[tokens[i, t]]
            assert gains[i, t, k].item() == pytest.approx((step @ gradient[i, t]).item())
        else:
            assert gains[i, t, k] == -torch.inf


def test_budgets_are_kept_and_larger_ones_contain_smaller_ones():
    model, tokens, mask, clean, vocabulary = words_setup()
    target = clean.logits.argmax(1)
    outcomes = attack_words(model, tokens, clean, vocabulary, [1, 2, 4], num_trials=8)
    before, harm = tokens, margin(clean.logits, target)
    for budget, found in zip([1, 2, 4], outcomes, strict=True):
        assert ((found.tokens != tokens).sum(1) <= budget).all()
        assert (found.tokens[before != tokens] == before[before != tokens]).all()
        assert (margin(found.logits, target) >= harm).all()
        assert (found.tokens[~mask] == 0).all()
        again = clean_pass(model, found.tokens, mask)
        torch.testing.assert_close(found.logits, again.logits)
        torch.testing.assert_close(found.attention, again.attention)
        before, harm = found.tokens, margin(found.logits, target)
    assert ((outcomes[-1].tokens != tokens).sum(1) > 1).any()


def test_replacements_are_neighbors_of_the_original_word():
    model, tokens, _, clean, vocabulary = words_setup()
    *_, found = attack_words(model, tokens, clean, vocabulary, [7])
    changed = (found.tokens != tokens).nonzero().tolist()
    assert changed
    for i, t in changed:
        assert found.tokens[i, t] in vocabulary.neighbors.look_up(tokens[i, t : t + 1], vocabulary.table)[0]


def test_unknown_words_stay_and_a_text_of_them_is_safe():
    model, tokens, mask, _, vocabulary = words_setup()
    tokens[0, 1], tokens[3, :3] = 1, 1
    clean = clean_pass(model, tokens, mask)
    *_, found = attack_words(model, tokens, clean, vocabulary, [3])
    assert (found.tokens[tokens == 1] == 1).all()
    torch.testing.assert_close(found.logits[3], clean.logits[3])


def test_every_text_has_its_own_budget():
    model, tokens, _, clean, vocabulary = words_setup()
    allowed = torch.tensor([[0, 2], [1, 1], [0, 0], [1, 2], [0, 1]])
    with differentiable(model):
        outcomes = substitute_words(model, clean, tokens, clean.logits.argmax(1), allowed, vocabulary, 2**16)
    for k, found in enumerate(outcomes):
        assert ((found.tokens != tokens).sum(1) <= allowed[:, k]).all()
    assert (outcomes[1].tokens[2] == tokens[2]).all()


@pytest.mark.parametrize("token_budget", [1, 20, 100])
def test_passes_keep_to_the_token_budget_and_do_not_change_the_result(token_budget):
    model, tokens, _, clean, vocabulary = words_setup()
    expected = attack_words(model, tokens, clean, vocabulary, [2], num_trials=5)[0]
    sizes = []
    model.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[:2].numel()))
    found = attack_words(model, tokens, clean, vocabulary, [2], token_budget=token_budget, num_trials=5)[0]
    torch.testing.assert_close(found.logits, expected.logits)
    # One text, and the gradient of the batch that is there anyway, may be larger.
    assert max(sizes) <= max(token_budget, tokens.numel())
