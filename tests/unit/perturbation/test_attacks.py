"""Attacks at test time by noise, against worst cases derived by hand and finite differences."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.normalizers import Sparsemax, TopK, Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import NumericalError
from attn_lightning.numerics import masked_softmax
from attn_lightning.perturbation import attacks
from attn_lightning.perturbation.attacks import (
    attack_gradient,
    margin,
    one_step,
    pgd,
    random_noise,
)
from attn_lightning.perturbation.directions import unit_noise
from attn_lightning.perturbation.sites import clean_pass, embedding_site, score_site, select_rows
from attn_lightning.types import AttentionOutput
from support.steps import random_texts, recurrent_classifier

SITES = {"scores": score_site, "embeddings": embedding_site}
LENGTHS = (5, 1, 7, 3, 2)


SMALL_LSTM = partial(BiLSTM, hidden_size=8)


def draws_like(site, seed=2):
    return torch.randn(site.noiseless.shape, generator=torch.Generator().manual_seed(seed)).to(site.noiseless)


def lengths_of(noise):
    return noise.flatten(1).norm(dim=1)


@pytest.fixture(params=SITES)
def attacked(request):
    """A float64 model, its site, the target and the draws, inside `differentiable`."""
    model = recurrent_classifier().double()
    output = clean_pass(model, *random_texts(LENGTHS))
    site = SITES[request.param](model, output)
    with differentiable(model):
        yield site, output.logits.argmax(1), draws_like(site)


class TwoTokens(Backbone):
    """Embeddings are the states, scores are given, `z = (0, w . c)`."""

    def __init__(self, scores, weight):
        super().__init__()
        self.fixed, self.weight = torch.tensor(scores).double(), torch.tensor(weight).double()

    def embed(self, tokens):
        return tokens

    def encode(self, embeddings, mask):
        return embeddings

    def score(self, hidden, mask):
        return self.fixed.expand(mask.shape)

    def attend(self, hidden, scores, mask, attention=None):
        weights = masked_softmax(scores, mask) if attention is None else attention
        context = (weights.unsqueeze(2) * hidden).sum(1)
        rising = context @ self.weight
        return AttentionOutput(
            torch.stack([torch.zeros_like(rising), rising], 1), weights, scores, hidden, context, mask
        )


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0])
def test_the_worst_case_on_scores_of_two_tokens(epsilon):
    # a = (sigma(d), 1 - sigma(d)) with d = s_1 - s_2, and the margin against class 0 is w . (a_1 h_1 + a_2 h_2).
    # With w . h_1 < w . h_2 it rises as d falls, which is fastest along (-1, 1) / sqrt 2: d falls by sqrt 2 epsilon.
    hidden = torch.tensor([[[-1.0, 0.5], [2.0, 0.3]]]).double()
    model = TwoTokens([0.7, -0.2], [1.5, 1.0])
    output, target = clean_pass(model, hidden, torch.ones(1, 2, dtype=torch.bool)), torch.tensor([0])
    site, values = score_site(model, output), hidden[0] @ model.weight
    first = 1 / (1 + math.exp(-(0.9 - math.sqrt(2) * epsilon)))
    expected = first * values[0] + (1 - first) * values[1]
    for found in (one_step(site, target, epsilon, draws_like(site)), pgd(site, target, epsilon, draws_like(site))):
        assert margin(found.logits, target).item() == pytest.approx(expected.item())
        expected_noise = torch.tensor([[-epsilon, epsilon]]).double() / math.sqrt(2)
        torch.testing.assert_close(found.noise, expected_noise)
        torch.testing.assert_close(found.attention, torch.tensor([[first, 1 - first]]).double())


def test_the_worst_case_on_embeddings_of_a_linear_model():
    # The margin is sum_t a_t w . e_t with fixed a: noise a_t w / (||a|| ||w||) epsilon gains ||a|| ||w|| epsilon.
    model = TwoTokens([0.7, -0.2], [1.5, 1.0])
    hidden = torch.tensor([[[-1.0, 0.5], [2.0, 0.3]]]).double()
    output, target = clean_pass(model, hidden, torch.ones(1, 2, dtype=torch.bool)), torch.tensor([0])
    site = embedding_site(model, output)
    gain = output.attention.norm() * model.weight.norm() * 0.8
    for found in (one_step(site, target, 0.8, draws_like(site)), pgd(site, target, 0.8, draws_like(site))):
        change = margin(found.logits, target) - margin(output.logits, target)
        assert change.item() == pytest.approx(gain.item())
        direction = output.attention.unsqueeze(2) * model.weight
        torch.testing.assert_close(found.noise, 0.8 * direction / direction.norm())


def test_the_gradient_equals_finite_differences(attacked):
    site, target, _ = attacked
    _, gradient = attack_gradient(site, target, site.noiseless)
    step, flat = 1e-6, gradient.flatten(1)
    assert flat.abs().max() > 1e-3
    for entry in range(flat.shape[1]):
        change = torch.zeros_like(flat)
        change[:, entry] = step
        change = change.view_as(gradient)
        slope = margin(site.probe(change).logits, target) - margin(site.probe(-change).logits, target)
        torch.testing.assert_close(flat[:, entry], slope / (2 * step), atol=1e-7, rtol=1e-5)


def test_one_step_follows_the_gradient_to_the_radius_or_stays(attacked):
    site, target, draws = attacked
    _, gradient = attack_gradient(site, target, site.noiseless)
    found = one_step(site, target, 0.1, draws)
    moved = lengths_of(found.noise) > 0
    assert moved.sum() >= 3
    torch.testing.assert_close(lengths_of(found.noise)[moved], torch.full((int(moved.sum()),), 0.1).double())
    cosine = nn.functional.cosine_similarity(found.noise.flatten(1), gradient.flatten(1))
    torch.testing.assert_close(cosine[moved], torch.ones_like(cosine[moved]))


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_a_stronger_attack_never_gains_less_and_stays_in_the_ball(attacked, epsilon, random_start):
    site, target, draws = attacked
    clean = margin(site.output.logits, target)
    weak = one_step(site, target, epsilon, draws)
    strong = pgd(site, target, epsilon, draws, random_start=random_start)
    assert (margin(weak.logits, target) >= clean).all()
    assert (margin(strong.logits, target) >= margin(weak.logits, target)).all()
    assert (margin(strong.logits, target) > clean).any()
    assert (lengths_of(strong.noise) <= epsilon * (1 + 1e-9)).all()
    assert (lengths_of(weak.noise) <= epsilon * (1 + 1e-9)).all()
    if random_start:
        shaken = random_noise(site, epsilon, draws)
        assert (margin(strong.logits, target) >= margin(shaken.logits, target)).all()


def test_what_is_returned_belongs_to_the_noise(attacked):
    site, target, draws = attacked
    for found in (random_noise(site, 2.0, draws), one_step(site, target, 2.0, draws), pgd(site, target, 2.0, draws)):
        again = site.probe(found.noise)
        torch.testing.assert_close(found.logits, again.logits)
        torch.testing.assert_close(found.attention, again.attention)
        assert not found.logits.requires_grad
        assert not found.noise.requires_grad


def test_more_steps_find_more_where_the_landscape_bends(attacked):
    site, target, draws = attacked
    weak = margin(one_step(site, target, 5.0, draws).logits, target)
    strong = margin(pgd(site, target, 5.0, draws, num_steps=20).logits, target)
    assert (strong - weak).max() > 1e-3


def test_random_noise_has_the_radius_and_is_weaker(attacked):
    site, target, draws = attacked
    shaken = random_noise(site, 2.0, draws)
    torch.testing.assert_close(lengths_of(shaken.noise), torch.full((len(LENGTHS),), 2.0).double())
    gains = torch.stack(
        [margin(random_noise(site, 2.0, draws_like(site, seed)).logits, target) for seed in range(20)]
    ).mean(0) - margin(site.output.logits, target)
    aimed = margin(one_step(site, target, 2.0, draws).logits, target) - margin(site.output.logits, target)
    assert gains.mean() < aimed.mean()


def test_padding_is_untouched(attacked):
    site, target, draws = attacked
    for found in (random_noise(site, 2.0, draws), one_step(site, target, 2.0, draws), pgd(site, target, 2.0, draws)):
        assert (found.noise[~site.output.mask] == 0).all()
        assert (found.attention[~site.output.mask] == 0).all()


@pytest.mark.parametrize("where", SITES)
def test_the_radius_is_reached_at_tiny_gradients(where):
    model = recurrent_classifier()
    with torch.no_grad():
        model.classifier.weight.mul_(1e-30)
        model.classifier.bias.zero_()
    output = clean_pass(model, *random_texts(LENGTHS))
    site = SITES[where](model, output)
    with differentiable(model):
        _, gradient = attack_gradient(site, output.logits.argmax(1), site.noiseless)
        found = one_step(site, output.logits.argmax(1), 0.01, draws_like(site))
    moved = lengths_of(found.noise) > 0
    assert 0 < gradient.abs().max() < 1e-28
    assert moved.sum() >= 3
    torch.testing.assert_close(lengths_of(found.noise)[moved], torch.full((int(moved.sum()),), 0.01))


def test_a_sure_model_is_still_attacked():
    model = recurrent_classifier(num_classes=2)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([60.0, 0.0]))
    output = clean_pass(model, *random_texts(LENGTHS))
    assert (output.logits.softmax(1).amax(1) == 1).all()
    site, target = score_site(model, output), output.logits.argmax(1)
    with differentiable(model):
        found = pgd(site, target, 2.0, draws_like(site))
    several = torch.tensor(LENGTHS) > 1
    assert (margin(found.logits, target) > margin(output.logits, target))[several].all()


@pytest.mark.parametrize("encoder", [SMALL_LSTM, CNN, Average], ids=["lstm", "cnn", "average"])
@pytest.mark.parametrize("where", SITES)
def test_rows_do_not_depend_on_the_batch(where, encoder):
    model = recurrent_classifier(encoder).double()
    tokens, mask = random_texts(LENGTHS)
    order = torch.tensor([3, 0, 4, 2, 1])
    wider = nn.functional.pad(tokens, (0, 3), value=5)[order], nn.functional.pad(mask, (0, 3))[order]
    one, other = (SITES[where](model, clean_pass(model, *texts)) for texts in ((tokens, mask), wider))
    draws = draws_like(one)
    moved = torch.zeros_like(other.noiseless)
    moved[:, : mask.shape[1]] = draws[order]
    target = one.output.logits.argmax(1)
    with differentiable(model):
        expected, found = pgd(one, target, 2.0, draws), pgd(other, target[order], 2.0, moved)
        torch.testing.assert_close(found.logits, expected.logits[order])
        torch.testing.assert_close(found.noise[:, : mask.shape[1]], expected.noise[order])
        some = torch.tensor([0, 2])
        part = SITES[where](model, select_rows(one.output, some))
        torch.testing.assert_close(pgd(part, target[some], 2.0, draws[some]).logits, expected.logits[some])


def test_attacks_on_scores_do_not_run_the_encoder():
    model, calls = recurrent_classifier(), []
    output = clean_pass(model, *random_texts(LENGTHS))
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    site = score_site(model, output)
    with differentiable(model):
        pgd(site, output.logits.argmax(1), 1.0, draws_like(site), random_start=True)
        random_noise(site, 1.0, draws_like(site))
    assert not calls


def test_steps_cost_what_they_say():
    model, calls = recurrent_classifier(), []
    output = clean_pass(model, *random_texts(LENGTHS))
    model.encoder.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    site = embedding_site(model, output)
    with differentiable(model):
        _, gradient = attack_gradient(site, output.logits.argmax(1), site.noiseless)
        calls.clear()
        found = one_step(site, output.logits.argmax(1), 1.0, draws_like(site), gradient)
        assert calls == [False]
        pgd(site, output.logits.argmax(1), 1.0, draws_like(site), gradient=gradient, weaker=found)
    assert calls == [False] + [True] * 9 + [False]


def test_a_hidden_gradient_is_no_defense():
    # All weight on the first token: sparsemax has the gradient 0 there, but the other token is in reach.
    model = recurrent_classifier(normalizer=Sparsemax, num_classes=2).double()
    mask, hidden = torch.ones(1, 2, dtype=torch.bool), torch.randn(1, 2, 16).double()
    output = model.attend(hidden, torch.tensor([[2.5, -2.5]]).double(), mask)
    site = score_site(model, replace(output, logits=output.logits.detach(), scores=output.scores.detach()))
    first, second = (model.attend(hidden, output.scores * sign, mask).logits.detach() for sign in (1, -1))
    losing = [c for c in (0, 1) if margin(second, torch.tensor([c])) > margin(first, torch.tensor([c]))]
    target = torch.tensor(losing)
    with differentiable(model):
        assert (attack_gradient(site, target, site.noiseless)[1] == 0).all()
        toward = torch.tensor([[-1.0, 1.0]]).double()
        for found in (one_step(site, target, 6.0, toward), pgd(site, target, 6.0, toward)):
            torch.testing.assert_close(found.attention, torch.tensor([[0.0, 1.0]]).double())
        # The draw that leads nowhere is not taken.
        assert (one_step(site, target, 6.0, -toward).noise == 0).all()


@pytest.mark.parametrize("normalizer", [Uniform, lambda: TopK(2)], ids=["uniform", "top-k"])
def test_scores_without_a_gradient_are_attacked_all_the_same(normalizer):
    model = recurrent_classifier(normalizer=normalizer)
    output = clean_pass(model, *random_texts(LENGTHS))
    site, target = score_site(model, output), output.logits.argmax(1)
    with differentiable(model):
        found = pgd(site, target, 5.0, draws_like(site))
    gains = margin(found.logits, target) - margin(output.logits, target)
    if isinstance(model.normalizer, Uniform):
        assert (found.noise == 0).all()
        assert (gains == 0).all()
    else:
        assert (gains >= 0).all()
        assert gains.max() > 0


def test_a_gradient_that_is_no_number_is_an_error():
    model = recurrent_classifier()
    output = clean_pass(model, *random_texts(LENGTHS))
    with torch.no_grad():
        model.classifier.weight[0, 0] = torch.nan
    with differentiable(model), pytest.raises(NumericalError, match="finite gradients"):
        attack_gradient(score_site(model, output), output.logits.argmax(1), torch.zeros_like(output.scores))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_autograd_is_off(context):
    model = recurrent_classifier()
    tokens, mask = random_texts(LENGTHS)
    with context():
        inside = tokens.clone(), mask.clone()
        with differentiable(model):
            output = clean_pass(model, *inside)
            for where in SITES.values():
                site = where(model, output)
                found = pgd(site, output.logits.argmax(1), 1.0, draws_like(site))
                assert (lengths_of(found.noise) > 0).any()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_margin_is_above_zero_where_the_class_is_not_predicted(num_classes):
    logits, target = torch.randn(50, num_classes), torch.randint(num_classes, (50,))
    values = margin(logits, target)
    for row, y, value in zip(logits.tolist(), target.tolist(), values.tolist(), strict=True):
        assert value == pytest.approx(max(z for c, z in enumerate(row) if c != y) - row[y], abs=1e-6)
    torch.testing.assert_close(values > 0, logits.argmax(1) != target)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("where", SITES)
def test_works_on_cuda_in_eval_mode(where):
    model = recurrent_classifier()
    tokens, mask = random_texts(LENGTHS)
    output = clean_pass(model, tokens, mask)
    site, target = SITES[where](model, output), output.logits.argmax(1)
    with differentiable(model):
        expected = pgd(site, target, 1.0, draws_like(site))
    model.cuda()
    on_device = SITES[where](model, clean_pass(model, tokens.cuda(), mask.cuda()))
    with differentiable(model):
        found = pgd(on_device, target.cuda(), 1.0, draws_like(site).cuda())
    torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-3, atol=1e-3)


def test_no_step_waits_for_a_device(monkeypatch):
    """To decide by a number is to copy it from the device: once in an attack and not in every step of it."""
    model = recurrent_classifier()
    output = clean_pass(model, *random_texts(LENGTHS))
    site, target, looks = score_site(model, output), output.logits.argmax(1), []
    look = torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda each: looks.append(1) or look(each))
    # As elsewhere than on a CPU, where the test below stands in for it.
    monkeypatch.setattr(attacks, "ascent", lambda _, gradient, __: unit_noise(gradient, output.mask))
    with differentiable(model):
        gradient = attack_gradient(site, target, site.noiseless)[1]
        weaker = one_step(site, target, 1.0, draws_like(site), gradient)
        for steps in (2, 7):
            looks.clear()
            pgd(site, target, 1.0, draws_like(site), num_steps=steps, gradient=gradient, weaker=weaker)
            assert len(looks) == 1


def test_the_way_up_is_chosen_without_a_look_where_that_waits():
    # Tensors of the meta device have no values: to look at one is an error.
    mask, gradient, draws = (torch.ones(2, 3, device="meta", dtype=kind) for kind in (torch.bool, None, None))
    site = score_site(recurrent_classifier(), clean_pass(recurrent_classifier(), *random_texts(LENGTHS)))
    elsewhere = replace(site, room=mask)
    assert attacks.ascent(elsewhere, gradient, draws).shape == (2, 3)


def test_a_gradient_that_becomes_no_number_on_the_way_is_an_error(monkeypatch):
    model = recurrent_classifier()
    output = clean_pass(model, *random_texts(LENGTHS))
    site, target = score_site(model, output), output.logits.argmax(1)
    with differentiable(model):
        gradient = attack_gradient(site, target, site.noiseless)[1]
        with torch.no_grad():
            model.classifier.weight[0, 0] = torch.nan
        with pytest.raises(NumericalError, match="finite gradients"):
            pgd(site, target, 1.0, draws_like(site), gradient=gradient)
