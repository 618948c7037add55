"""Directions against a literal double loop, finite differences and dense linear algebra; lengths, padding, order."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.methods import AttentionAT, AttentionIAT, AttentionIVAT, AttentionVAT, Method
from attn_lightning.perturbation.directions import Projection, toward_differences, unrestricted
from attn_lightning.perturbation.objectives import (
    Trial,
    divergence_from,
    label_perturbation,
    random_perturbation,
    virtual_perturbation,
)
from attn_lightning.perturbation.sites import Site, score_site
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, Batch

B, T, D, C = 5, 6, 4, 3
LENGTHS = torch.tensor([6, 4, 2, 5, 3])
MASK = torch.arange(T) < LENGTHS[:, None]
LABELS = torch.tensor([0, 2, 1, 1, 0])
per_example = partial(F.cross_entropy, reduction="none")
BATCH = Batch(torch.zeros(B, T, dtype=torch.long), MASK, LABELS, torch.arange(B))


class Head(Backbone):
    """Softmax, weighted sum and a linear layer: all that a perturbation of scores may use."""

    def __init__(self, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(scale * torch.randn(D, C, dtype=dtype))

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        attention = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1)
        context = torch.einsum("bt,btd->bd", attention, hidden)
        return AttentionOutput(context @ self.weight, attention, scores, hidden, context, mask)


def clean_pass(model: Head, dtype: torch.dtype = torch.float64) -> AttentionOutput:
    return model.attend(torch.randn(B, T, D, dtype=dtype), torch.randn(B, T, dtype=dtype), MASK)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def model() -> Head:
    return Head()


@pytest.fixture
def output(model: Head) -> AttentionOutput:
    return clean_pass(model)


def label_trial(model: Head, output: AttentionOutput) -> Trial:
    return Trial(score_site(model, output), lambda logits: per_example(logits, LABELS), BATCH)


def virtual_trial(model: Head, output: AttentionOutput) -> Trial:
    return Trial(score_site(model, output), divergence_from(output.logits), BATCH)


def one_example_loss(model: Head, output: AttentionOutput, row: int, noise: Tensor) -> Tensor:
    """The task loss of one text without its padding."""
    length = int(LENGTHS[row])
    attention = torch.softmax(output.scores[row, :length] + noise, 0)
    return F.cross_entropy((attention @ output.hidden[row, :length]) @ model.weight, LABELS[row])


def one_example_divergence(model: Head, output: AttentionOutput, row: int, noise: Tensor) -> Tensor:
    length = int(LENGTHS[row])
    attention = torch.softmax(output.scores[row, :length] + noise, 0)
    logits = (attention @ output.hidden[row, :length]) @ model.weight
    p = torch.softmax(output.logits[row], 0)
    return (p * (p.log() - torch.log_softmax(logits, 0))).sum()


def differences(scores: Tensor, normalize: str) -> Tensor:
    """d~ of methods.md, entry by entry."""
    n = len(scores)
    d = torch.stack([torch.stack([scores[k] - scores[t] for k in range(n)]) for t in range(n)])
    if normalize == "sentence":
        return d / torch.sqrt((d**2).sum())
    return torch.stack([row / torch.sqrt((row**2).sum()) for row in d])


def literal_interpretable(model: Head, output: AttentionOutput, row: int, normalize: str, epsilon: float) -> Tensor:
    """`r(alpha)` with alpha along the gradient in the n x n space, then scaled to epsilon."""
    n = int(LENGTHS[row])
    d = differences(output.scores[row, :n].detach(), normalize)
    alpha = torch.zeros(n, n, dtype=torch.float64, requires_grad=True)
    noise = torch.stack([sum(alpha[t, k] * d[t, k] for k in range(n)) for t in range(n)])
    (gradient,) = torch.autograd.grad(one_example_loss(model, output, row, noise), alpha)
    chosen = epsilon * gradient / gradient.norm()
    noise = torch.stack([sum(chosen[t, k] * d[t, k] for k in range(n)) for t in range(n)])
    return epsilon * noise / noise.norm()


@pytest.mark.parametrize("normalize", ["sentence", "token"])
def test_interpretable_equals_the_literal_double_loop(model: Head, output: AttentionOutput, normalize: str) -> None:
    found = label_perturbation(label_trial(model, output), 0.7, toward_differences(output.scores, MASK, normalize))
    for row, n in enumerate(LENGTHS.tolist()):
        expected = literal_interpretable(model, output, row, normalize, 0.7)
        torch.testing.assert_close(found[row, :n], expected, rtol=1e-9, atol=1e-12)


def test_literal_token_normalization_needs_no_rescaling(model: Head, output: AttentionOutput) -> None:
    n = int(LENGTHS[0])
    d = differences(output.scores[0].detach(), "token")
    alpha = torch.zeros(n, n, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(one_example_loss(model, output, 0, (alpha * d).sum(1)), alpha)
    r = (gradient / gradient.norm() * d).sum(1)
    torch.testing.assert_close(r, label_perturbation(label_trial(model, output), 1.0, unrestricted)[0])


def test_at_equals_token_iat_and_released_is_its_opposite(model: Head, output: AttentionOutput) -> None:
    trial = label_trial(model, output)
    at = label_perturbation(trial, 1.0, unrestricted)
    token, released, sentence = (
        label_perturbation(trial, 1.0, toward_differences(output.scores, MASK, name))
        for name in ("token", "released", "sentence")
    )
    torch.testing.assert_close(token, at, rtol=0, atol=1e-6)
    torch.testing.assert_close(released, -at, rtol=0, atol=1e-6)
    assert not torch.allclose(sentence[0], at[0], atol=0.05)


def test_at_and_iat_raise_the_loss_and_released_lowers_it(model: Head) -> None:
    step = make_step(model)
    clean = per_example(step.output.logits, LABELS).mean()
    small = 0.05
    at, iat = AttentionAT(epsilon=small).loss(step), AttentionIAT(epsilon=small).loss(step)
    released = AttentionIAT(epsilon=small, normalize="released").loss(step)
    assert at.value > iat.value > clean > released.value
    torch.testing.assert_close(AttentionIAT(epsilon=small, normalize="token").loss(step).value, at.value)


@pytest.mark.parametrize("xi", [1e-3, 1e-2, 1e-1, 1.0])
@pytest.mark.parametrize("normalize", ["sentence", "token", "released"])
def test_radius_is_epsilon_for_every_xi_and_row_however_small_the_gradient(xi: float, normalize: str) -> None:
    # Weights of 0.01 give gradients of about 1e-12 at xi = 1e-3, where a constant added to the norm would win.
    model = Head(torch.float32, scale=0.01)
    output = clean_pass(model, torch.float32)
    projection = toward_differences(output.scores, MASK, normalize)
    noise = virtual_perturbation(virtual_trial(model, output), 2.5, projection, torch.randn(B, T), xi, 1)
    torch.testing.assert_close(noise.norm(dim=1), torch.full((B,), 2.5))
    assert (noise[~MASK] == 0).all()


def test_random_perturbation_has_the_radius_and_nothing_at_padding(model: Head, output: AttentionOutput) -> None:
    start = torch.randn(B, T, dtype=torch.float64)
    noise = random_perturbation(label_trial(model, output), 4.0, start)
    torch.testing.assert_close(noise.norm(dim=1), torch.full((B,), 4.0, dtype=torch.float64))
    expected = 4.0 * start[1, :4] / start[1, :4].norm()
    torch.testing.assert_close(noise[1, :4], expected)
    assert (noise[~MASK] == 0).all()


def test_a_single_token_has_no_direction_and_gives_the_clean_loss() -> None:
    model, mask = Head(torch.float32), torch.tensor([[True, False]])
    output = model.attend(torch.randn(1, 2, D), torch.randn(1, 2), mask)
    trial = Trial(score_site(model, output), divergence_from(output.logits), BATCH)
    noise = virtual_perturbation(trial, 1.0, unrestricted, torch.randn(1, 2), 0.1, 1)
    assert torch.equal(noise, torch.zeros(1, 2))


def test_equal_scores_have_no_difference_to_follow(model: Head) -> None:
    output = model.attend(torch.randn(B, T, D, dtype=torch.float64), torch.zeros(B, T, dtype=torch.float64), MASK)
    noise = label_perturbation(label_trial(model, output), 1.0, toward_differences(output.scores, MASK, "sentence"))
    assert torch.equal(noise, torch.zeros_like(noise))


def test_adversarial_direction_equals_central_differences(model: Head, output: AttentionOutput) -> None:
    found = label_perturbation(label_trial(model, output), 1.0, unrestricted)
    for row, n in enumerate(LENGTHS.tolist()):
        basis = torch.eye(n, dtype=torch.float64) * 1e-6
        loss = partial(one_example_loss, model, output, row)
        gradient = torch.stack([(loss(step) - loss(-step)) / 2e-6 for step in basis])
        torch.testing.assert_close(found[row, :n], gradient / gradient.norm(), rtol=1e-5, atol=1e-6)


def curvature(model: Head, output: AttentionOutput, row: int) -> Tensor:
    """Hessian of the divergence at 0 by central second differences."""
    n, h = int(LENGTHS[row]), 1e-4
    divergence, basis = partial(one_example_divergence, model, output, row), h * torch.eye(n, dtype=torch.float64)
    return torch.stack(
        [
            torch.stack([divergence(a + b) - divergence(a - b) - divergence(b - a) + divergence(-a - b) for b in basis])
            for a in basis
        ]
    ) / (4 * h * h)


@pytest.mark.parametrize("normalize", ["sentence", "token"])
def test_power_iteration_finds_the_dominant_eigenvector(model: Head, output: AttentionOutput, normalize: str) -> None:
    projection: Projection = toward_differences(output.scores, MASK, normalize)
    start = torch.randn(B, T, dtype=torch.float64)
    found = virtual_perturbation(virtual_trial(model, output), 1.0, projection, start, 1e-5, 300)
    for row, n in enumerate(LENGTHS.tolist()):
        # In the space of alpha the curvature is Jᵀ H J; its dominant eigenvector is mapped back by J.
        d = differences(output.scores[row, :n].detach(), normalize)
        jacobian = torch.zeros(n, n, n, dtype=torch.float64)
        for t in range(n):
            jacobian[t, t] = d[t]
        jacobian = jacobian.reshape(n, n * n)
        alpha = torch.linalg.eigh(jacobian.T @ curvature(model, output, row).detach() @ jacobian).eigenvectors[:, -1]
        expected = jacobian @ alpha
        cosine = torch.dot(found[row, :n], expected / expected.norm()).abs()
        assert cosine.item() == pytest.approx(1.0, abs=1e-4)


def test_default_xi_keeps_the_direction_of_float64_in_float32() -> None:
    model, start = Head(), torch.randn(B, T, dtype=torch.float64)
    output = clean_pass(model)
    exact = virtual_perturbation(virtual_trial(model, output), 1.0, unrestricted, start, 1e-5, 1)
    single = model.float()
    output = single.attend(output.hidden.float(), output.scores.float(), MASK)
    found = virtual_perturbation(virtual_trial(single, output), 1.0, unrestricted, start.float(), AttentionVAT().xi, 1)
    assert (found * exact).sum(1).min() > 0.99


@pytest.mark.parametrize("normalize", ["sentence", "token"])
def test_padding_and_batch_order_change_nothing_for_a_given_start(
    model: Head, output: AttentionOutput, normalize: str
) -> None:
    start = torch.randn(B, T, dtype=torch.float64)

    def direction(order: Tensor, extra: int) -> Tensor:
        hidden, scores, mask, noise = (
            F.pad(x[order].transpose(1, -1), (0, extra), value=value).transpose(1, -1)
            for x, value in ((output.hidden, 9.0), (output.scores, 99.0), (MASK, False), (start, 5.0))
        )
        longer = model.attend(hidden, scores, mask)
        projection = toward_differences(scores, mask, normalize)
        return virtual_perturbation(virtual_trial(model, longer), 1.0, projection, noise, 0.1, 2)

    order = torch.tensor([3, 1, 4, 0, 2])
    expected, found = direction(torch.arange(B), 0), direction(order, 7)
    torch.testing.assert_close(found[:, :T], expected[order])
    assert (found[:, T:] == 0).all()


def make_step(model: Head, unlabeled: bool = False) -> TrainStep:
    output = clean_pass(model)
    batch = Batch(torch.zeros(B, T, dtype=torch.long), MASK, LABELS, torch.arange(B))
    other = clean_pass(model) if unlabeled else None
    return TrainStep(model, batch, output, per_example, 0.0, batch._replace(labels=-torch.ones_like(LABELS)), other)


@pytest.mark.parametrize("cls", [AttentionVAT, AttentionIVAT])
def test_virtual_term_is_the_mean_over_labelled_and_unlabelled_examples(cls: type[Method], model: Head) -> None:
    step = make_step(model, unlabeled=True)
    assert step.unlabeled is not None
    assert step.unlabeled_output is not None
    # One unlabelled text fewer: the mean over all texts is then not the mean of two means.
    pool, output = Batch(*(part[1:] for part in step.unlabeled[:4])), step.unlabeled_output
    fewer = AttentionOutput(**{name: part[1:] for name, part in vars(output).items() if isinstance(part, Tensor)})
    torch.manual_seed(1)
    both = cls().loss(replace(step, unlabeled=pool, unlabeled_output=fewer)).value
    torch.manual_seed(1)
    sizes, batches, outputs = (B, B - 1), (step.batch, pool), (step.output, fewer)
    parts = [cls().loss(TrainStep(model, *part, per_example, 0.0)).value for part in zip(batches, outputs, strict=True)]
    torch.testing.assert_close(both, sum(n * part for n, part in zip(sizes, parts, strict=True)) / (2 * B - 1))


def test_the_clean_prediction_of_the_virtual_objective_is_held_constant(output: AttentionOutput) -> None:
    clean = output.logits.detach().clone().requires_grad_()
    noisy = (output.logits.detach() + torch.tensor([1.0, -0.5, 0.0][:C])).requires_grad_()
    by_clean, by_noisy = torch.autograd.grad(divergence_from(clean)(noisy).sum(), (clean, noisy), allow_unused=True)
    assert by_clean is None
    # sum_c p_c (log p_c - log q_c) moves with the noisy logits alone, by q - p.
    torch.testing.assert_close(by_noisy, noisy.softmax(-1) - clean.softmax(-1))


def test_divergence_is_zero_with_zero_gradient_at_the_clean_prediction(output: AttentionOutput) -> None:
    logits = output.logits.detach().clone().requires_grad_()
    divergence = divergence_from(output.logits)(logits)
    (gradient,) = torch.autograd.grad(divergence.sum(), logits)
    torch.testing.assert_close(divergence, torch.zeros(B, dtype=torch.float64))
    torch.testing.assert_close(gradient, torch.zeros_like(logits))
    other = torch.randn(B, C, dtype=torch.float64)
    expected = F.kl_div(other.log_softmax(-1), output.logits.softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(divergence_from(output.logits)(other), expected)


def test_no_gradient_flows_through_the_direction(model: Head) -> None:
    """The gradient of the term is that of the loss at scores moved by a constant."""
    step = make_step(model)
    hidden, scores = step.output.hidden.requires_grad_(), step.output.scores.requires_grad_()
    output = model.attend(hidden, scores, MASK)
    term = AttentionAT(epsilon=1.0).loss(TrainStep(model, step.batch, output, per_example, 0.0))
    noise = label_perturbation(label_trial(model, output), 1.0, unrestricted)
    moved = per_example(model.attend(hidden, scores + noise, MASK).logits, LABELS).mean()
    wanted = torch.autograd.grad(moved, [hidden, scores, model.weight])
    for got, want in zip(torch.autograd.grad(term.value, [hidden, scores, model.weight]), wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("virtual", [False, True])
def test_another_place_shares_every_direction(model: Head, output: AttentionOutput, virtual: bool) -> None:
    """Noise on the hidden states: only the site is new, one norm spans all entries of an example."""
    site = Site(
        output=output,
        noiseless=torch.zeros_like(output.hidden),
        room=MASK,
        rerun=lambda noise: model.attend(output.hidden + noise, output.scores, MASK),
        probe=lambda noise: model.attend(output.hidden.detach() + noise, output.scores.detach(), MASK),
    )
    if virtual:
        trial, start = Trial(site, divergence_from(output.logits), BATCH), torch.randn_like(output.hidden)
        noise = virtual_perturbation(trial, 1.5, unrestricted, start, 0.1, 1)
    else:
        noise = label_perturbation(Trial(site, lambda logits: per_example(logits, LABELS), BATCH), 1.5, unrestricted)
    torch.testing.assert_close(noise.flatten(1).norm(dim=1), torch.full((B,), 1.5, dtype=torch.float64))
    assert (noise[~MASK] == 0).all()
