"""One direction of an LSTM with constant weights, against torch's own."""

import pytest
import torch
from torch import nn

from attn_lightning.backbone import lstm as lstms
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.input_gradient import FEWEST_TEXTS, InputGradientLSTM


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (5, 7), (40, 3)])
def test_states_and_gradients_equal_those_of_torch(rows: int, steps: int) -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(6, 4, batch_first=True)
    inputs = torch.randn(rows, steps, 6, requires_grad=True)
    states = InputGradientLSTM.apply(inputs, [weight.detach() for weight in reference.parameters()])
    expected = reference(inputs)[0]
    torch.testing.assert_close(states, expected)
    pull = torch.randn_like(states)
    (ours,) = torch.autograd.grad(states, inputs, pull, retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, inputs, pull)[0])
    assert torch.equal(torch.autograd.grad(states, inputs, pull)[0], ours), "the graph can be walked twice"


def test_gradients_in_float64() -> None:
    torch.manual_seed(0)
    weights = [weight.detach() for weight in nn.LSTM(3, 2, batch_first=True).double().parameters()]
    inputs = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: InputGradientLSTM.apply(each, weights), (inputs,))


@pytest.mark.parametrize("layers", [1, 2])
def test_an_encoder_of_constant_weights_takes_it_for_many_texts(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    torch.manual_seed(0)
    encoder = BiLSTM(6, 4, layers)
    mask = torch.arange(9) < torch.randint(1, 10, (FEWEST_TEXTS, 1))
    inputs = torch.randn(*mask.shape, 6, requires_grad=True)
    calls = []
    apply = InputGradientLSTM.apply
    monkeypatch.setattr(lstms.InputGradientLSTM, "apply", lambda *args: calls.append(1) or apply(*args))
    learning = encoder(inputs, mask)
    assert not calls
    with differentiable(encoder):
        constant = encoder(inputs, mask)
    assert len(calls) == 2 * layers
    torch.testing.assert_close(constant, learning)
    for one, other in zip(
        *(torch.autograd.grad(each.square().sum(), inputs) for each in (constant, learning)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        encoder.requires_grad_(False)(inputs, mask)
    encoder(inputs[: FEWEST_TEXTS - 1], mask[: FEWEST_TEXTS - 1])
    encoder(inputs.detach(), mask)
    encoder.double_backward = True
    encoder(inputs, mask)
    assert len(calls) == 2 * layers, "not without a gradient, nor for few texts, nor for gradients of gradients"


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    weights = [weight.detach() for weight in nn.LSTM(3, 2, batch_first=True).parameters()]
    inputs = torch.randn(2, 3, 3, requires_grad=True)
    states = InputGradientLSTM.apply(inputs, weights)
    (gradient,) = torch.autograd.grad(states.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()
