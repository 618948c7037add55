"""The padded bidirectional LSTM against torch's own on packed sequences."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.lstm import packed_lstm, padded_lstm
from attn_lightning.errors import ConfigurationError

LENGTHS = {
    "mixed": [9, 1, 4, 9, 2, 7],
    "equal": [6, 6, 6],
    "ascending": [1, 2, 3, 8],
    "single tokens": [1, 1],
    "one row": [5],
}


def make_mask(lengths: list[int], extra: int = 0) -> Tensor:
    return torch.arange(max(lengths) + extra) < torch.tensor(lengths).unsqueeze(1)


def torch_packed(lstm: nn.LSTM, inputs: Tensor, lengths: list[int]) -> Tensor:
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=inputs.shape[1])[0]


def with_gradients(states: Tensor, inputs: Tensor, lstm: nn.LSTM) -> list[Tensor]:
    weights = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
    return [states, *torch.autograd.grad((states.square() * weights).sum(), [inputs, *lstm.parameters()])]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("extra", [0, 3])
def test_equals_torch_packed_forward_and_backward(lengths: list[int], layers: int, extra: int) -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(7, 5, layers, batch_first=True, bidirectional=True)
    encoder = BiLSTM(7, 5, layers)
    encoder.lstm.load_state_dict(reference.state_dict())
    mask = make_mask(lengths, extra)
    inputs = torch.randn(*mask.shape, 7, requires_grad=True)
    expected = with_gradients(torch_packed(reference, inputs, lengths), inputs, reference)
    for ours, theirs in zip(with_gradients(encoder(inputs, mask), inputs, encoder.lstm), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_equals_torch_packed_at_the_usual_size() -> None:
    torch.manual_seed(0)
    lengths = torch.randint(1, 60, (16,)).tolist()
    encoder, mask = BiLSTM(300, 128), make_mask(lengths)
    inputs = torch.randn(*mask.shape, 300) * 0.1
    torch.testing.assert_close(encoder(inputs, mask), torch_packed(encoder.lstm, inputs, lengths), atol=1e-5, rtol=0)


def test_the_path_for_cuda_is_the_same_function() -> None:
    encoder, mask = BiLSTM(4, 3, 2), make_mask([3, 5, 1], extra=2)
    inputs = torch.randn(*mask.shape, 4)
    torch.testing.assert_close(packed_lstm(encoder.lstm, inputs, mask), encoder(inputs, mask), atol=1e-6, rtol=1e-5)


def test_gradients_in_float64() -> None:
    torch.manual_seed(0)
    lstm, mask = nn.LSTM(3, 2, batch_first=True, bidirectional=True).double(), make_mask([4, 1, 2], extra=1)
    inputs = torch.randn(*mask.shape, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: padded_lstm(lstm, x, mask), (inputs, *lstm.parameters()))


def test_gradients_of_gradients_in_float64() -> None:
    torch.manual_seed(0)
    lstm, mask = nn.LSTM(2, 2, batch_first=True, bidirectional=True).double(), make_mask([3, 1], extra=1)
    inputs = torch.randn(*mask.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, *_: padded_lstm(lstm, x, mask), (inputs, *lstm.parameters()))


def test_gradients_of_gradients_equal_torch_packed() -> None:
    torch.manual_seed(0)
    encoder, lengths = BiLSTM(6, 4), [5, 2, 3]
    mask = make_mask(lengths)
    inputs = torch.randn(*mask.shape, 6, requires_grad=True)

    def penalty_gradients(states: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = torch.autograd.grad(states.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [inputs, *encoder.parameters()])

    expected = penalty_gradients(torch_packed(encoder.lstm, inputs, lengths))
    for ours, theirs in zip(penalty_gradients(encoder(inputs, mask)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_graph_can_be_walked_twice() -> None:
    encoder, mask = BiLSTM(4, 3), make_mask([3, 2])
    inputs = torch.randn(2, 3, 4, requires_grad=True)
    total = encoder(inputs, mask).square().sum()
    first = torch.autograd.grad(total, inputs, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, inputs)[0])


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    encoder, mask = BiLSTM(4, 3), make_mask([3, 2])
    encoder.lstm.weight_hh_l0.requires_grad_(False)
    encoder(torch.randn(2, 3, 4), mask).sum().backward()
    assert encoder.lstm.weight_hh_l0.grad is None
    assert encoder.lstm.weight_ih_l0_reverse.grad is not None


@pytest.mark.parametrize("layers", [1, 2])
def test_constant_weights_give_the_same_input_gradient(layers: int) -> None:
    torch.manual_seed(0)
    encoder, mask = BiLSTM(4, 3, layers), make_mask([3, 1, 2])
    inputs = torch.randn(3, 3, 4, requires_grad=True)
    expected = torch.autograd.grad(encoder(inputs, mask).square().sum(), inputs)[0]
    encoder.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(encoder(inputs, mask).square().sum(), inputs)[0], expected)


def test_padding_changes_nothing_even_if_it_is_nan() -> None:
    encoder, mask = BiLSTM(4, 3), make_mask([3, 5, 1], extra=2)
    inputs = torch.randn(*mask.shape, 4).masked_fill(~mask.unsqueeze(-1), torch.nan)
    states = encoder(inputs, mask)
    # Kernels of another width may round otherwise.
    torch.testing.assert_close(states[:, :5], encoder(inputs[:, :5], mask[:, :5]), atol=1e-6, rtol=1e-6)
    assert torch.all(states[~mask] == 0)


def test_nan_at_padding_reaches_no_gradient() -> None:
    torch.manual_seed(0)
    encoder, mask = BiLSTM(4, 3, 2), make_mask([3, 5, 1], extra=2)
    inputs = torch.randn(*mask.shape, 4)
    clean = torch.autograd.grad(encoder(inputs, mask).square().sum(), encoder.parameters())
    poisoned = inputs.masked_fill(~mask.unsqueeze(-1), torch.nan)
    for ours, theirs in zip(
        torch.autograd.grad(encoder(poisoned, mask).square().sum(), encoder.parameters()), clean, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_an_unknown_path_for_cuda_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"on_cuda.*packed.*paded"):
        BiLSTM(4, 3, on_cuda="paded")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("on_cuda", ["packed", "padded"])
def test_cuda_equals_cpu_and_explains_in_eval_mode(on_cuda: Literal["packed", "padded"]) -> None:
    encoder, mask = BiLSTM(6, 4, on_cuda=on_cuda), make_mask([5, 2, 3])
    inputs = torch.randn(*mask.shape, 6, requires_grad=True)
    expected = with_gradients(encoder(inputs, mask), inputs, encoder.lstm)
    encoder, remote = encoder.cuda(), inputs.detach().cuda().requires_grad_()
    for mode, twice in ((True, False), (False, False), (True, True)):
        encoder.train(mode).double_backward = twice
        states = encoder(remote, mask.cuda())
        weights = torch.linspace(-1, 1, states.numel(), device="cuda").view_as(states)
        found = torch.autograd.grad((states.square() * weights).sum(), remote, create_graph=twice)[0]
        torch.testing.assert_close(found.cpu(), expected[1], atol=1e-4, rtol=1e-4)
        if twice:
            torch.autograd.grad(found.square().sum(), remote)


def test_zeros_at_padding_are_taken_as_they_are_and_other_values_give_the_same() -> None:
    lstm = torch.nn.LSTM(4, 3, batch_first=True, bidirectional=True)
    mask = torch.arange(5) < torch.tensor([5, 2, 3]).unsqueeze(1)
    clean = torch.randn(3, 5, 4).masked_fill(~mask.unsqueeze(-1), 0.0)
    before = clean.clone()
    other = clean.masked_fill(~mask.unsqueeze(-1), 7.0)
    torch.testing.assert_close(padded_lstm(lstm, clean, mask), padded_lstm(lstm, other, mask), rtol=0, atol=0)
    torch.testing.assert_close(clean, before, rtol=0, atol=0)
    assert (other[~mask] == 7).all()
