"""What comes with the clean pass: against every text alone and the explainers one by one."""

import numpy as np
import pytest
import torch

from attn_lightning.backbone.importance import importances
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.explainers.gradients import NATIVE, native_explanations
from attn_lightning.evaluation.subject import no_progress
from attn_lightning.types import Batch
from support.explained import ENCODERS, alone, subject


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_clean_pass_equals_every_text_alone(encoder):
    examined = subject(encoder)
    probabilities, labels, found = native_explanations(examined, ["attention", "inverted", "hidden"], no_progress)
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(labels, [-1, 0, 1, -1, 0, 1])
    assert list(found) == ["attention", "inverted", "hidden"]
    for row in range(6):
        output = alone(examined, row)
        attention = output.attention[0].numpy()
        np.testing.assert_allclose(probabilities[row], output.logits[0].softmax(0).numpy(), atol=1e-6)
        np.testing.assert_allclose(found["attention"][row], attention, atol=1e-6)
        np.testing.assert_allclose(found["inverted"][row], attention.max() + attention.min() - attention, atol=1e-6)


def test_together_and_alone_all_native_explainers_give_the_same():
    examined, known, finished = subject(), explainers(), []
    _, _, found = native_explanations(examined, sorted(NATIVE), finished.append)
    assert sum(finished) == 6
    for name in NATIVE:
        np.testing.assert_allclose(found[name].values, known[name]().explain(examined, no_progress).values, atol=1e-6)
        assert np.isfinite(found[name].values).all()


def test_gradients_are_those_of_importances():
    examined = subject()
    _, _, found = native_explanations(examined, ["gradient_x_input", "gradient", "hidden"], no_progress)
    kinds = {"gradient": "gradient", "gradient_x_input": "gradient_full", "hidden": "hidden"}
    for row, text in enumerate(examined.examples.texts):
        batch = Batch(text[None], torch.ones(1, len(text), dtype=torch.bool), torch.zeros(1), torch.zeros(1))
        _, expected = importances(examined.model, batch, tuple(kinds.values()))
        for name, kind in kinds.items():
            np.testing.assert_allclose(found[name][row], expected[kind][0].numpy(), atol=1e-6)
            assert found[name][row].max() > 0


def test_one_run_of_the_encoder_serves_all_and_attention_needs_no_autograd():
    examined, modes = subject(), []
    examined.model.encoder.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    native_explanations(examined, sorted(NATIVE), no_progress)
    assert modes == [True]
    native_explanations(examined, ["attention", "inverted"], no_progress)
    assert modes == [True, False]
    examined.model.train()
    native_explanations(examined, ["attention"], no_progress)
    assert examined.model.training


def test_an_unknown_native_explainer_is_refused():
    with pytest.raises(ConfigurationError, match=r"gradient.*'loo'"):
        native_explanations(subject(), ["attention", "loo"], no_progress)
