"""The orthogonal LSTM against a plain double loop over texts and tokens, and the promise of every encoder."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.orthogonal import OrthogonalLSTM
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec

LENGTHS = [4, 7, 1]


@pytest.fixture
def encoder() -> OrthogonalLSTM:
    torch.manual_seed(0)
    return OrthogonalLSTM(5, hidden_size=6).double()


def make_batch(extra: int = 0) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(LENGTHS) + extra) < torch.tensor(LENGTHS).unsqueeze(1)
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(len(LENGTHS), max(LENGTHS), 5, generator=generator, dtype=torch.float64)
    return torch.cat([embeddings, torch.full((len(LENGTHS), extra, 5), 1e4, dtype=torch.float64)], 1), mask


def one_text(lstm: nn.LSTM, words: NDArray[np.float64], suffix: str) -> list[NDArray[np.float64]]:
    """One direction over one text, as printed, with the mean of the earlier states instead of their sum."""
    weights = [
        getattr(lstm, f"{kind}_l0{suffix}").detach().numpy()
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    state = cell = np.zeros(lstm.hidden_size)
    states: list[NDArray[np.float64]] = []
    for word in words:
        into, forget, new, out = np.split(weights[0] @ word + weights[2] + weights[1] @ state + weights[3], 4)
        cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-into))
        state = np.tanh(cell) / (1 + np.exp(-out))
        if states:
            mean = np.mean(states, axis=0)
            state = state - (state @ mean) / (mean @ mean) * mean
        states.append(state)
    return states


def test_equals_a_plain_double_loop(encoder: OrthogonalLSTM) -> None:
    embeddings, mask = make_batch()
    states = encoder(embeddings, mask)
    for row, length in enumerate(LENGTHS):
        words = embeddings[row, :length].numpy()
        ahead, back = one_text(encoder.lstm, words, ""), one_text(encoder.lstm, words[::-1], "_reverse")[::-1]
        expected = torch.from_numpy(np.concatenate([ahead, back], axis=1))
        torch.testing.assert_close(states[row, :length], expected, atol=1e-10, rtol=1e-8)


def test_each_state_is_orthogonal_to_the_sum_of_the_earlier_ones(encoder: OrthogonalLSTM) -> None:
    embeddings, mask = make_batch()
    ahead = encoder(embeddings, mask)[1, :, :6]
    back = encoder(embeddings, mask)[1, :, 6:].flip(0)
    for states in (ahead, back):
        products = (states[1:] * states.cumsum(0)[:-1]).sum(-1)
        torch.testing.assert_close(products, torch.zeros_like(products), atol=1e-12, rtol=0)


def test_without_the_projection_it_is_torchs_lstm(encoder: OrthogonalLSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attn_lightning.backbone.orthogonal.reject", lambda vectors, direction: vectors)
    embeddings, _ = make_batch()
    mask = torch.ones(embeddings.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(encoder(embeddings, mask), encoder.lstm(embeddings)[0])


def test_states_do_not_depend_on_padding_batch_or_order(encoder: OrthogonalLSTM) -> None:
    embeddings, mask = make_batch()
    expected = encoder(embeddings, mask)
    padded, wide = make_batch(extra=5)
    states = encoder(padded, wide)
    assert torch.all(states[~wide] == 0)
    torch.testing.assert_close(states[:, :7], expected)
    torch.testing.assert_close(encoder(embeddings[:1, :4], mask[:1, :4]), expected[:1, :4])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(encoder(embeddings[order], mask[order]), expected[order])


def test_gradients_are_exact_twice_and_zero_at_padding(encoder: OrthogonalLSTM) -> None:
    embeddings, mask = make_batch(extra=2)
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: encoder(x, mask), embeddings, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: encoder(x, mask), embeddings, fast_mode=True)
    (gradient,) = torch.autograd.grad(encoder(embeddings, mask).square().sum(), embeddings)
    assert torch.all(gradient[~mask] == 0)
    assert torch.all(gradient[mask].abs().sum(-1) > 0)


def test_runs_in_float32_under_autocast_and_in_the_classifier(encoder: OrthogonalLSTM) -> None:
    embeddings, mask = make_batch()
    expected = encoder(embeddings, mask).float()
    with torch.autocast("cpu", torch.bfloat16):
        states = encoder.float()(embeddings.float(), mask)
    assert states.dtype == torch.float32
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
    model = AttentionClassifier(DataSpec(2, 9, 4, ("a", "b")), encoder=OrthogonalLSTM)
    output = model(torch.randint(1, 9, mask.shape) * mask, mask)
    output.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def test_bad_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="hidden_size"):
        OrthogonalLSTM(5, hidden_size=0)
