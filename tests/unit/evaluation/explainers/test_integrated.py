"""Integrated gradients, against captum, the completeness axiom and a closed form."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as Captum

from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.explainers.integrated import (
    IntegratedGradients,
    class_probability,
    integrated_gradients,
)
from attn_lightning.evaluation.subject import Subject, no_progress
from attn_lightning.types import Batch
from support.texts import random_texts, small_model

ENCODERS = {"lstm": BiLSTM, "cnn": CNN, "average": Average}


def probability(model, embeddings, mask):
    hidden = model.encode(embeddings, mask)
    return model.attend(hidden, model.score(hidden, mask), mask).logits.softmax(-1)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_equals_captum_example_by_example(encoder, num_classes):
    model, texts = small_model(ENCODERS[encoder], num_classes), random_texts((5, 1, 7, 3))
    found = IntegratedGradients().explain(Subject(model, texts, num_classes), no_progress)
    for row, text in enumerate(texts.texts):
        tokens, mask = text.unsqueeze(0), torch.ones(1, len(text), dtype=torch.bool)
        target = int(model(tokens, mask).logits.argmax())
        captum = Captum(lambda embeddings, mask=mask: probability(model, embeddings, mask.expand(len(embeddings), -1)))
        expected = captum.attribute(model.embed(tokens).detach(), target=target, n_steps=50).sum(-1)[0]
        assert expected.abs().max() > 1e-3
        np.testing.assert_allclose(found[row], expected.abs().detach().numpy(), atol=2e-6, rtol=1e-4)


def test_contributions_add_up_to_the_change_of_the_probability():
    model, texts = small_model(), random_texts((6, 2, 4))
    batch = texts[[0, 1, 2]]
    contributions = integrated_gradients(model, batch)
    at_text = model(batch.tokens, batch.mask).logits.softmax(-1)
    at_zero = probability(model, torch.zeros(3, 6, 6), batch.mask)
    change = (at_text - at_zero).gather(1, at_text.argmax(1, keepdim=True)).squeeze(1).detach()
    assert change.abs().min() > 1e-3
    torch.testing.assert_close(contributions.sum(1), change, atol=1e-6, rtol=1e-4)
    assert (contributions < 0).any(), "the signs are kept"
    assert (contributions[~batch.mask] == 0).all()


def test_one_step_is_the_gradient_in_the_middle_of_the_line():
    model, batch = small_model(), random_texts((5,))[[0]]
    embeddings = model.embed(batch.tokens).detach()
    middle = (embeddings / 2).requires_grad_()
    target = model(batch.tokens, batch.mask).logits.argmax(1)
    (slope,) = torch.autograd.grad(probability(model, middle, batch.mask)[0, target], middle)
    torch.testing.assert_close(integrated_gradients(model, batch, steps=1), (slope * embeddings).sum(-1))


@pytest.mark.parametrize(("batch_size", "token_budget"), [(1, 2**16), (4, 8), (3, 40), (128, 300)])
def test_neither_batches_nor_the_budget_change_anything(batch_size, token_budget):
    model, texts = small_model(), random_texts((5, 1, 7, 3, 7))
    expected = IntegratedGradients(steps=7).explain(Subject(model, texts, 3), no_progress)
    widths = []
    model.encoder.register_forward_hook(lambda _, inputs, output: widths.append(output.shape[0] * output.shape[1]))
    subject = Subject(model, texts, 3, batch_size=batch_size, token_budget=token_budget)
    found = IntegratedGradients(steps=7).explain(subject, no_progress)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6, rtol=1e-4)
    assert max(widths) <= token_budget


def test_the_model_is_left_as_it_was():
    model, batch = small_model().train(), random_texts((5, 3))[[0, 1]]
    with torch.inference_mode():
        integrated_gradients(model, Batch(*(None if v is None else v.clone() for v in batch)), steps=2)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_sure_model_still_has_contributions():
    model, batch = small_model(num_classes=2), random_texts((5, 3))[[0, 1]]
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([30.0, 0.0]))
    found = integrated_gradients(model, batch)
    expected = integrated_gradients(model.double(), batch)
    assert (expected[batch.mask] != 0).all()
    torch.testing.assert_close(found / found.abs().amax(), expected / expected.abs().amax(), rtol=1e-3, atol=1e-4)


def test_the_probability_of_a_class_is_that_of_the_softmax():
    logits = torch.randn(40, 4, dtype=torch.float64, requires_grad=True)
    classes = torch.arange(40) % 4
    expected = logits.softmax(1).gather(1, classes.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(class_probability(logits, classes), expected)
    (ours,) = torch.autograd.grad(class_probability(logits, classes).sum(), logits)
    (theirs,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_the_probability_of_a_hopeless_class_has_a_finite_gradient():
    logits = torch.tensor([[0.0, 2000.0], [0.0, 300.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(class_probability(logits, torch.tensor([0, 0])).sum(), logits)
    assert gradient.isfinite().all()


def test_no_steps_are_refused():
    with pytest.raises(ConfigurationError, match="steps"):
        IntegratedGradients(steps=0)
