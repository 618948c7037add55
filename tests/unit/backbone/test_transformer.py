"""The scratch transformer, and its attention as one number per word."""

import math

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.transformer import Transformer, last_layer_mean, positions, rollout
from attn_lightning.errors import ConfigurationError


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(7) < torch.tensor([7, 4, 1]).unsqueeze(1)
    return torch.randn(3, 7, 6), mask


def test_positions_are_those_of_the_paper() -> None:
    found = positions(5, 4)
    for t in range(5):
        for i in range(2):
            angle = t / 10000 ** (2 * i / 4)
            assert found[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_it_equals_torchs_own_stack() -> None:
    embeddings, mask = batch()
    encoder = Transformer(6, hidden_size=8, num_heads=2).double()
    reference = torch.nn.TransformerEncoder(encoder.layers[0], 2, encoder.norm, enable_nested_tensor=False).double()
    reference.load_state_dict(
        {f"layers.{name}": value for name, value in encoder.layers.state_dict().items()}
        | {f"norm.{name}": value for name, value in encoder.norm.state_dict().items()}
    )
    inputs = encoder.projection(embeddings.double()) + positions(7, 8)
    expected = reference(inputs, src_key_padding_mask=~mask)[mask]
    torch.testing.assert_close(encoder(embeddings.double(), mask)[mask], expected)


def test_attention_of_the_first_layer_is_the_softmax_of_its_heads() -> None:
    embeddings, mask = batch()
    encoder = Transformer(6, hidden_size=8, num_heads=2)
    found = encoder.token_attention(embeddings, mask)
    assert found.shape == (2, 3, 7, 7)
    layer = encoder.layers[0]
    row = layer.norm1(encoder.projection(embeddings[1, :4]) + positions(4, 8))
    query, key, _ = (row @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias).chunk(3, -1)
    heads = [(query[:, part] @ key[:, part].T / 2).softmax(-1) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(found[0, 1, :4, :4], (heads[0] + heads[1]) / 2, atol=1e-6, rtol=1e-5)
    assert torch.all(found[0, 1, 4:] == 0)
    assert torch.all(found[0, 1, :, 4:] == 0)


def test_summaries_in_plain_loops() -> None:
    torch.manual_seed(1)
    mask = torch.tensor([[True, True, True, False]])
    layers = torch.zeros(2, 1, 4, 4)
    layers[:, 0, :3, :3] = torch.rand(2, 3, 3).softmax(-1)
    flow = torch.eye(3)
    for layer in layers[:, 0, :3, :3]:
        flow = torch.stack([(layer[q] + torch.eye(3)[q]) / 2 @ flow for q in range(3)])
    torch.testing.assert_close(rollout(layers, mask)[0, :3], flow.mean(0))
    torch.testing.assert_close(last_layer_mean(layers, mask)[0, :3], layers[1, 0, :3, :3].mean(0))
    assert rollout(layers, mask)[0, 3] == last_layer_mean(layers, mask)[0, 3] == 0


def test_gradients_of_gradients_where_they_are_asked_for() -> None:
    encoder = Transformer(3, hidden_size=4, num_heads=2, num_layers=1).double()
    encoder.double_backward = True
    mask = torch.tensor([[True, True], [True, False]])
    embeddings = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda e: encoder(e, mask).sum(), (embeddings,))


@pytest.mark.parametrize("options", [{"hidden_size": 10, "num_heads": 4}, {"num_layers": 0}, {"dropout": 1.0}])
def test_arguments_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"Transformer"):
        Transformer(6, **options)  # type: ignore[arg-type]
