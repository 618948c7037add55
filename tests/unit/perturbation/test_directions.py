"""Directions against double loops, gradients against a formula."""

import pickle

import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.perturbation.directions import (
    Directions,
    ScoreDifferences,
    gradient_at,
    slope,
    squared_differences,
    toward_differences,
    unit_noise,
    unrestricted,
)
from attn_lightning.perturbation.sites import score_site
from attn_lightning.types import Batch, DataSpec

B, T = 5, 6
LENGTHS = torch.tensor([6, 4, 2, 5, 3])
MASK = torch.arange(T) < LENGTHS[:, None]


def test_squared_differences_equal_the_double_loop() -> None:
    junk = torch.randn(B, T, dtype=torch.float64).masked_fill(~MASK, 1e3)
    found = squared_differences(junk, MASK)
    for row, n in enumerate(LENGTHS.tolist()):
        for t in range(n):
            expected = sum((junk[row, t] - junk[row, k]) ** 2 for k in range(n)) / n
            torch.testing.assert_close(found[row, t], expected)


def test_squared_differences_do_not_cancel_far_from_zero() -> None:
    scores = torch.tensor([[1000.0, 1000.25, 999.5]])
    expected = torch.tensor([[0.0625 + 0.25, 0.0625 + 0.5625, 0.25 + 0.5625]]) / 3
    torch.testing.assert_close(
        squared_differences(scores, torch.ones(1, 3, dtype=torch.bool)), expected, rtol=1e-3, atol=0
    )


def test_the_three_normalizations_are_weights_of_the_gradient() -> None:
    scores, gradient = torch.randn(B, T), torch.randn(B, T)
    assert torch.equal(toward_differences(scores, MASK, "token")(gradient), gradient)
    assert torch.equal(toward_differences(scores, MASK, "released")(gradient), -gradient)
    expected = squared_differences(scores, MASK) * gradient
    torch.testing.assert_close(toward_differences(scores, MASK, "sentence")(gradient), expected)
    assert unrestricted(gradient) is gradient


def test_unit_noise_has_length_one_over_real_tokens_of_all_axes() -> None:
    noise = torch.randn(B, T, 3)
    noise[2] = 0.0
    found = unit_noise(noise, MASK)
    for row, n in enumerate(LENGTHS.tolist()):
        length = noise[row, :n].square().sum().sqrt() or torch.ones(())
        torch.testing.assert_close(found[row, :n], noise[row, :n] / length)
    assert (found[~MASK] == 0).all()


def test_directions_are_compared_and_pickled_by_their_options() -> None:
    assert Directions() == pickle.loads(pickle.dumps(Directions()))
    assert hash(Directions()) == hash(Directions())
    assert ScoreDifferences("token") == pickle.loads(pickle.dumps(ScoreDifferences("token")))
    assert ScoreDifferences("token") != ScoreDifferences("sentence")
    assert Directions() != ScoreDifferences("token")


@pytest.mark.parametrize("normalize", ["sentence", "released"])
def test_directions_project_with_the_scores_of_the_pass(normalize) -> None:
    model = AttentionClassifier(DataSpec(2, 9, 4, ("a", "b")))
    tokens = torch.randint(1, 9, (B, T)) * MASK
    output, batch = model(tokens, MASK), Batch(tokens, MASK, torch.zeros(B), torch.arange(B))
    gradient = torch.randn(B, T)
    projection = ScoreDifferences(normalize).projection(model, output, batch)
    found = projection(gradient)
    assert not found.requires_grad
    assert torch.equal(found, toward_differences(output.scores.detach(), MASK, normalize)(gradient))
    assert Directions().projection(model, output, batch) is unrestricted


def test_a_gradient_belongs_to_its_own_row_and_place() -> None:
    model = AttentionClassifier(DataSpec(2, 9, 4, ("a", "b"))).double()
    tokens = torch.randint(1, 9, (B, T)) * MASK
    output = model(tokens, MASK)
    site, noise = score_site(model, output), torch.randn(B, T, dtype=torch.float64)
    found, gradient = gradient_at(site, lambda logits: logits[:, 0] ** 2, noise)
    torch.testing.assert_close(found.logits, model.attend(output.hidden, output.scores + noise, MASK).logits)
    step = 1e-6
    for t in range(T):
        change = torch.zeros(B, T, dtype=torch.float64)
        change[:, t] = step
        up, down = (site.probe(noise + sign * change).logits[:, 0] ** 2 for sign in (1, -1))
        torch.testing.assert_close(gradient[:, t], (up - down) / (2 * step), rtol=1e-5, atol=1e-8)


def test_values_that_do_not_depend_have_no_slope() -> None:
    at, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    assert slope(torch.ones(2), at) is None
    assert slope(2 * other, at) is None
    values = 3 * at
    assert torch.equal(slope(values, at, retain_graph=True), torch.full((2,), 3.0))
    assert torch.equal(slope(values, at), torch.full((2,), 3.0))
