"""Movements of numbers whose gradient is 0, against the plain sum over the steps of Adam."""

import numpy as np
import pytest
import torch

from attn_lightning.optimization.idle import FIRST, FREE_FROM, HORIZON, LONGEST, SHARE, IdleSteps, idle_move, two_nodes

BETAS, EPS, RATE = (0.9, 0.999), 1e-8, 1e-3


def plain_sum(root: float, began: int, ended: int, rates) -> float:
    """What a number with m = 1 and sqrt(V) = root loses from one step to another, in torch's own form of Adam."""
    total = 0.0
    for step in range(began + 1, ended + 1):
        mean = BETAS[0] ** (step - began) / (1 - BETAS[0] ** step)
        total += rates(step) * mean / (root / (1 - BETAS[1] ** step) ** 0.5 + EPS)
    return total


def moved(steps: IdleSteps, since: int, root: float) -> float:
    ones = torch.ones(1, 1, dtype=torch.float64)
    return float(idle_move(ones, ones * root**2, steps.since(torch.tensor([since]))))


@pytest.mark.parametrize("points", [1, 2])
def test_two_nodes_are_exact_for_two_points(points: int) -> None:
    where, weights = np.array([0.3, 0.7])[:points], np.array([2.0, 0.5])[:points]
    moments = np.array([[(weights * where**power).sum()] for power in range(4)])
    scale, shift, linear, constant = two_nodes(moments, eps=1.0)[:, 0]
    for s in (0.0, 0.1, 3.0):
        assert scale * (s + shift) / ((s + linear) * s + constant) == pytest.approx((weights / (s + where)).sum())


def test_the_nodes_are_those_of_gauss_and_legendre_for_an_even_measure() -> None:
    known, _ = np.polynomial.legendre.leggauss(2)
    moments = np.array([[1 / (power + 1)] for power in range(4)])  # of [0, 1]
    _, _, linear, constant = two_nodes(moments, eps=1.0)[:, 0]
    np.testing.assert_allclose(sorted(-np.roots([1, linear, constant])), (known + 1) / 2)


@pytest.mark.parametrize("began", [FIRST, 57, 140, FREE_FROM, 3000])
def test_a_wait_is_its_sum_nearly_whatever_the_second_moment(began: int) -> None:
    steps = IdleSteps(began, BETAS, EPS, torch.float64)
    rates = {}
    while not steps.full and steps.now < began + 2 * HORIZON:
        rates[steps.now + 1] = RATE / (1 + steps.now % 7)
        steps.add(rates[steps.now + 1])
    for since in {began, (began + steps.now) // 2, steps.now - 2, steps.now - 1}:
        for root in [0.0, *EPS * np.logspace(-3, 6, 19)]:
            # Behind the horizon the sum itself goes on, by less than the rounding of float32.
            assert moved(steps, since, root) == pytest.approx(plain_sum(root, since, steps.now, rates.get), rel=1e-5)
        root = 1e-6 * (1 - BETAS[1]) ** 0.5
        assert moved(steps, since, root) == pytest.approx(plain_sum(root, since, steps.now, rates.get), rel=1e-7)


def test_who_has_not_waited_does_not_move() -> None:
    steps = IdleSteps(FIRST, BETAS, EPS, torch.float32)
    steps.add(RATE)
    assert moved(steps, FIRST + 1, 0.0) == moved(steps, FIRST + 1, 0.1) == 0


def test_waits_are_short_at_first_and_always_end() -> None:
    def longest(began: int) -> int:
        steps = IdleSteps(began, BETAS, EPS, torch.float32)
        while not steps.full:
            steps.add(RATE)
        return steps.now - began

    assert longest(FIRST) == -(-FIRST // SHARE)
    assert longest(FREE_FROM) == LONGEST


def test_what_lies_behind_the_horizon_is_below_the_rounding_of_float32() -> None:
    assert BETAS[0] ** HORIZON < 2**-24
