"""The promise of every encoder, and what each one computes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.encoders import CNN, Average, BiLSTM, Encoder
from attn_lightning.backbone.transformer import Transformer
from attn_lightning.errors import ConfigurationError

ENCODERS: list[Callable[[int], Encoder]] = [BiLSTM, CNN, Average, Transformer]


def make_batch(lengths: list[int], extra: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(max(lengths) + extra) < torch.tensor(lengths).unsqueeze(1)
    return torch.randn(*mask.shape, size), mask


@pytest.mark.parametrize("build", ENCODERS)
def test_states_do_not_depend_on_padding(build: Callable[[int], Encoder]) -> None:
    encoder = build(6)
    embeddings, mask = make_batch([4, 7, 1], extra=5)
    states = encoder(embeddings, mask)
    assert states.shape == (3, 12, encoder.output_size)
    assert torch.all(states[~mask] == 0)
    torch.testing.assert_close(states[:, :7], encoder(embeddings[:, :7], mask[:, :7]), atol=1e-6, rtol=0)
    other = encoder(embeddings.masked_fill(~mask.unsqueeze(-1), 1e4), mask)
    torch.testing.assert_close(states, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("build", ENCODERS)
def test_a_row_alone_gives_the_same_states(build: Callable[[int], Encoder]) -> None:
    encoder = build(6)
    embeddings, mask = make_batch([4, 7, 1])
    states = encoder(embeddings, mask)
    torch.testing.assert_close(states[:1, :4], encoder(embeddings[:1, :4], mask[:1, :4]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("build", ENCODERS)
def test_order_of_the_batch_does_not_matter(build: Callable[[int], Encoder]) -> None:
    encoder = build(6)
    embeddings, mask = make_batch([4, 7, 1, 7])
    order = torch.tensor([2, 0, 3, 1])
    expected = encoder(embeddings, mask)[order]
    torch.testing.assert_close(encoder(embeddings[order], mask[order]), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("build", ENCODERS)
def test_embeddings_at_padding_get_no_gradient(build: Callable[[int], Encoder]) -> None:
    embeddings, mask = make_batch([4, 7, 1], extra=2)
    embeddings.requires_grad_()
    build(6)(embeddings, mask).square().sum().backward()
    assert embeddings.grad is not None
    assert torch.all(embeddings.grad[~mask] == 0)
    assert torch.all(embeddings.grad[mask].abs().sum(-1) > 0)


@pytest.mark.parametrize("build", ENCODERS)
def test_runs_in_float64_and_under_autocast(build: Callable[[int], Encoder]) -> None:
    embeddings, mask = make_batch([4, 7, 1])
    encoder = build(6)
    expected = encoder(embeddings, mask)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(encoder(embeddings, mask).float(), expected, atol=0.05, rtol=0.05)
    assert encoder.double()(embeddings.double(), mask).dtype == torch.float64


def test_cnn_equals_a_plain_loop() -> None:
    encoder = CNN(3, kernel_sizes=(1, 5), filters=2)
    embeddings, mask = make_batch([4], size=3)
    framed = torch.cat([torch.zeros(2, 3), embeddings[0], torch.zeros(2, 3)])
    for position, state in enumerate(encoder(embeddings, mask)[0]):
        expected = []
        for convolution, width in zip(encoder.convolutions, (1, 5), strict=True):
            window = framed[position + 2 - width // 2 : position + 3 + width // 2]
            expected.append((convolution.weight * window.T).sum((1, 2)) + convolution.bias)
        torch.testing.assert_close(state, torch.cat(expected).clamp(min=0), atol=1e-6, rtol=1e-5)


def test_average_sees_one_token_only() -> None:
    encoder = Average(6, hidden_size=4)
    embeddings, mask = make_batch([3, 2])
    expected = torch.tanh(embeddings[0, 1] @ encoder.projection.weight.T + encoder.projection.bias)
    torch.testing.assert_close(encoder(embeddings, mask)[0, 1], expected)


@pytest.mark.parametrize("sizes", [(), (2,), (3, 0), (-1,)])
def test_kernel_sizes_must_be_odd(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="kernel_sizes"):
        CNN(4, kernel_sizes=sizes)


@pytest.mark.parametrize(
    "build", [lambda: BiLSTM(4, 0), lambda: BiLSTM(4, 2, 0), lambda: CNN(4, filters=0), lambda: Average(4, -1)]
)
def test_sizes_must_be_positive(build: Callable[[], Encoder]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        build()
