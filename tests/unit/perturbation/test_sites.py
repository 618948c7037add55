"""Sites: what runs again, what is differentiated, and what stays as it is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.pieces import COUNT, held_by_pieces
from attn_lightning.perturbation.directions import unit_noise
from attn_lightning.perturbation.sites import clean_pass, embedding_site, score_site, select_rows
from support.steps import random_step, recurrent_model

B, T, E, V = 4, 6, 5, 40
MASK = torch.arange(T) < torch.tensor([6, 3, 1, 4])[:, None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_probes_take_the_parameters_as_constants_and_give_their_flags_back() -> None:
    model = recurrent_model()
    model.classifier.bias.requires_grad_(False)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    step = random_step(model, MASK)
    site = embedding_site(model, step.output)
    noise = site.noiseless.clone().requires_grad_()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(site.probe(noise).logits.sum(), [noise, *learned], allow_unused=True)
    assert found[0].abs().sum() > 0
    assert all(gradient is None for gradient in found[1:])
    torch.testing.assert_close(site.probe(noise).logits, site.rerun(noise).logits)
    with pytest.raises(RuntimeError):
        site.probe(noise[:, :2])
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags


@pytest.mark.parametrize("make", [score_site, embedding_site])
def test_without_noise_both_passes_are_the_clean_one(make) -> None:
    step = random_step(recurrent_model(), MASK)
    site = make(step.model, step.output)
    assert not site.noiseless.any()
    for again in (site.rerun(site.noiseless), site.probe(site.noiseless)):
        torch.testing.assert_close(again.logits, step.output.logits)
        torch.testing.assert_close(again.attention, step.output.attention)


def test_noise_on_scores_is_added_to_the_scores_and_reaches_states_and_scorer() -> None:
    step = random_step(recurrent_model(), MASK)
    site, noise = score_site(step.model, step.output), torch.randn(B, T)
    logits = site.rerun(noise).logits
    expected = step.model.attend(step.output.hidden, step.output.scores + noise, MASK).logits
    torch.testing.assert_close(logits, expected)
    found = torch.autograd.grad(logits.sum(), [step.model.embedding.weight, step.model.scorer.vector.weight])
    assert all(gradient.abs().sum() > 0 for gradient in found)
    assert not site.probe(noise).hidden.requires_grad


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gradient_of_the_clean_pass_is_offered_where_it_has_one(frozen: bool) -> None:
    step = random_step(recurrent_model(freeze_embeddings=frozen), MASK)
    assert (embedding_site(step.model, step.output).place is None) == frozen
    assert score_site(step.model, step.output).place is None


def test_a_clean_pass_has_no_graph_and_rows_are_taken_as_often_as_named() -> None:
    model = recurrent_model()
    output = clean_pass(model, torch.randint(2, V, (B, T)) * MASK, MASK)
    assert not output.logits.requires_grad
    rows = torch.tensor([2, 0, 2])
    part = select_rows(output, rows)
    for name in ("logits", "attention", "scores", "hidden", "context", "mask", "embeddings"):
        values: Tensor = getattr(output, name)
        assert torch.equal(getattr(part, name), values[rows])


def test_noise_on_words_that_an_encoder_reads_as_pieces_is_on_the_pieces_that_they_have() -> None:
    """Elsewhere it would have a length and no effect, the less the longer the longest word of the batch is."""
    step = random_step(recurrent_model(), MASK)
    counts = torch.tensor([[1, 3, 1, 2, 1, 1], [1, 1, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
    packed = torch.randn(B, T, 3 * 2 + 1)
    packed[..., -1] = counts * COUNT
    step.model.perturbable = lambda embeddings, mask: held_by_pieces(embeddings, 2, mask)  # type: ignore[method-assign]
    site = embedding_site(step.model, replace(step.output, embeddings=packed))
    noise = unit_noise(torch.randn_like(site.noiseless), site.room)
    pieces = noise[..., :-1].unflatten(-1, (3, 2))
    real = torch.arange(3) < counts.unsqueeze(-1)
    assert (pieces[real] != 0).all()
    assert not pieces[~real].any()
    assert not noise[..., -1].any()
    torch.testing.assert_close(pieces[real].square().sum(), torch.tensor(float(B)))


def test_noise_is_on_all_of_the_words_elsewhere() -> None:
    step = random_step(recurrent_model(), MASK)
    for make in (score_site, embedding_site):
        assert make(step.model, step.output).room is step.output.mask
