"""Numerics against scipy, float64 and limits."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from scipy.stats import entropy as scipy_entropy

from attn_lightning.numerics import (
    at_least_float32,
    entropy_nats,
    flush_denormals,
    full_precision,
    kl_divergence,
    log_attention,
    log_mixture,
    masked_log_softmax,
    masked_softmax,
    unit_vectors,
)

LENGTHS = (5, 1, 3)


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def test_softmax_is_scipys_over_the_real_tokens(scores, mask):
    ours, logs = masked_softmax(scores, mask), masked_log_softmax(scores, mask)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(ours[row, :length], softmax(scores[row, :length].numpy()))
        np.testing.assert_allclose(logs[row, :length], log_softmax(scores[row, :length].numpy()))
    assert (ours[~mask] == 0).all()
    assert (logs[~mask] == 0).all()


@pytest.mark.parametrize("filler", [float("inf"), float("nan"), -1e30])
def test_values_at_padding_are_ignored(scores, mask, filler):
    spoiled = scores.masked_fill(~mask, filler)
    assert torch.equal(masked_softmax(spoiled, mask), masked_softmax(scores, mask))
    assert torch.equal(masked_log_softmax(spoiled, mask), masked_log_softmax(scores, mask))


def test_the_last_axis_is_that_of_tokens(scores, mask):
    stacked, masks = torch.stack([scores, 2 * scores]), torch.stack([mask, mask])
    for function in (masked_softmax, masked_log_softmax):
        assert torch.equal(function(stacked, masks)[1], function(2 * scores, mask))
    logs = masked_log_softmax(stacked, masks)
    one = kl_divergence(log_p=logs[0], log_q=logs[1], mask=mask)
    torch.testing.assert_close(kl_divergence(log_p=logs, log_q=logs.flip(0), mask=masks)[0], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_attention_takes_zeros_as_the_smallest_number_without_gradient(dtype):
    attention = torch.tensor([[0.25, 0.0, 0.75]], dtype=dtype, requires_grad=True)
    logs = log_attention(attention)
    expected = [np.log(0.25), np.log(np.finfo(attention.detach().numpy().dtype).tiny), np.log(0.75)]
    np.testing.assert_allclose(logs.detach()[0], expected, rtol=1e-6)
    logs.sum().backward()
    np.testing.assert_allclose(attention.grad[0], [4.0, 0.0, 4 / 3], rtol=1e-6)


def test_log_mixture_is_that_of_a_loop_also_far_down(scores, mask):
    attention = masked_softmax(scores, mask).requires_grad_()
    logs = torch.log_softmax(torch.randn(3, 5, 2, dtype=torch.float64) * 3, -1) - 2000.0
    found = log_mixture(attention, logs)
    for row in range(3):
        for c in range(2):
            mixed = sum(attention[row, t] * torch.exp(logs[row, t, c] + 2000) for t in range(LENGTHS[row]))
            assert float(found[row, c].detach()) == pytest.approx(float(mixed.detach().log()) - 2000, abs=1e-9)
    assert torch.autograd.gradcheck(lambda a: log_mixture(a, logs), attention)


def test_log_mixture_has_a_finite_gradient_at_weights_of_zero():
    attention = torch.tensor([[0.5, 0.5, 0.0]], requires_grad=True)
    logs = torch.tensor([[[-1.0, -300.0], [-2.0, -301.0], [-3.0, -1.0]]])
    log_mixture(attention, logs).sum().backward()
    first, second = 0.5 * np.exp(-1) + 0.5 * np.exp(-2), 0.5 + 0.5 * np.exp(-1)
    # The token without weight is e^299 times as likely as any other in the second class, and counts as e^50 times.
    expected = np.exp(-3) / first + np.exp(50) / second
    np.testing.assert_allclose(attention.grad[0, 2], expected, rtol=1e-4)
    np.testing.assert_allclose(attention.grad[0, 0], np.exp(-1) / first + 1 / second, rtol=1e-4)


def test_denormals_become_zero():
    try:
        flush_denormals()
        flushed = (torch.tensor([1e-30]) * 1e-10).item()
        assert flushed == 0.0 or not torch.set_flush_denormal(True)  # a processor that cannot
    finally:
        torch.set_flush_denormal(False)


def test_softmax_of_large_scores_is_finite(mask):
    scores = torch.full((3, 5), 1e30)
    assert torch.allclose(masked_softmax(scores, mask).sum(-1), torch.ones(3))
    assert torch.isfinite(masked_log_softmax(scores, mask)).all()


def test_entropy_is_scipys_with_a_finite_gradient(scores, mask):
    scores.requires_grad_()
    ours = entropy_nats(masked_log_softmax(scores, mask), mask)
    expected = [scipy_entropy(softmax(scores[row, :length].detach().numpy())) for row, length in enumerate(LENGTHS)]
    np.testing.assert_allclose(ours.detach(), expected, atol=1e-12)
    ours.sum().backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[~mask] == 0).all()


def test_entropy_has_finite_second_derivatives(scores, mask):
    assert torch.autograd.gradgradcheck(
        lambda s: entropy_nats(masked_log_softmax(s, mask), mask), scores.requires_grad_()
    )


def test_kl_divergence_is_scipys_and_not_symmetric(scores, mask):
    log_p, log_q = masked_log_softmax(scores, mask), masked_log_softmax(scores.flip(0), mask)
    ours = kl_divergence(log_p=log_p, log_q=log_q, mask=mask)
    for row, length in enumerate(LENGTHS):
        expected = rel_entr(log_p[row, :length].exp().numpy(), log_q[row, :length].exp().numpy()).sum()
        assert float(ours[row]) == pytest.approx(expected)
    assert not torch.allclose(ours, kl_divergence(log_p=log_q, log_q=log_p, mask=mask))
    assert torch.equal(kl_divergence(log_p=log_p, log_q=log_p), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-35, 1e-12, 1.0, 1e12, 1e30])
def test_unit_vectors_have_length_one_however_small(scale):
    vectors = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)) * scale
    units = unit_vectors(vectors)
    torch.testing.assert_close(units.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(units, unit_vectors(vectors / scale), atol=1e-5, rtol=1e-4)


def test_unit_vectors_per_example_and_per_token():
    vectors = torch.randn(2, 3, 4)
    torch.testing.assert_close(unit_vectors(vectors).flatten(1).norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(unit_vectors(vectors, 2).norm(dim=-1), torch.ones(2, 3))


def test_a_vector_of_zeros_stays_zero():
    assert torch.equal(unit_vectors(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(given, expected):
    assert at_least_float32(torch.zeros(1, dtype=given)).dtype == expected


def test_full_precision_switches_autocast_off_inside_only():
    left, right = torch.randn(2, 2), torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with full_precision("cpu"):
            assert (left @ right).dtype == torch.float32
        assert (left @ right).dtype == torch.bfloat16
