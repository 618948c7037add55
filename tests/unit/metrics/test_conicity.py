"""Conicity of hidden states, against scipy's cosine in a plain loop."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from attn_lightning.metrics.conicity import conicity


def padded(seed=0, size=20, longest=12, width=5):
    """States around an offset of random length; row 0 has one token; junk at padding."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(size, longest, width, generator=generator, dtype=torch.float64)
    hidden = hidden + 2 * torch.rand(size, 1, 1, generator=generator)
    lengths = torch.randint(2, longest + 1, (size,), generator=generator)
    lengths[0] = 1
    mask = torch.arange(longest) < lengths.unsqueeze(1)
    return hidden.masked_fill(~mask.unsqueeze(-1), torch.nan), mask


def loop(hidden, mask, absolute):
    values = []
    for states, real in zip(hidden.numpy(), mask.numpy(), strict=True):
        states = states[real]
        cosines = np.array([1 - cosine(state, states.mean(0)) for state in states])
        values.append(np.nan if len(states) < 2 else (np.abs(cosines) if absolute else cosines).mean())
    return values


@pytest.mark.parametrize("absolute", [False, True])
def test_equals_a_loop(absolute):
    hidden, mask = padded()
    result = conicity(hidden, mask, absolute=absolute).numpy()
    np.testing.assert_allclose(result, loop(hidden, mask, absolute), atol=1e-12)
    assert np.nanmin(result) < 0.6
    assert not np.allclose(result[1:], conicity(hidden, mask, absolute=not absolute).numpy()[1:])


def test_one_direction_gives_1_and_opposite_states_are_undefined():
    direction = torch.tensor([3.0, -4.0])
    same = torch.stack([direction, 2 * direction, 1e-30 * direction])
    opposite = torch.stack([direction, -direction, torch.zeros(2)])
    result = conicity(torch.stack([same, opposite]), torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(result, torch.tensor([1.0, torch.nan]), equal_nan=True)


def test_a_zero_state_is_left_out():
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    result = conicity(states, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(result, torch.tensor([0.5**0.5]))


def test_independent_directions_give_the_inverse_root_of_their_number():
    states = torch.randn(50, 16, 4000, generator=torch.Generator().manual_seed(0))
    mean = conicity(states, torch.ones(50, 16, dtype=torch.bool)).mean()
    assert mean.item() == pytest.approx(1 / 4, abs=0.01)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_length_of_the_states_does_not_matter(scale):
    hidden, mask = padded(seed=1)
    expected = conicity(hidden.float(), mask)
    torch.testing.assert_close(conicity(hidden.float() * scale, mask), expected, equal_nan=True)


def test_gradients_are_those_of_the_formula_and_finite_where_it_is_undefined():
    hidden, mask = padded(seed=4, size=4, longest=5, width=3)
    hidden = hidden.nan_to_num(0.0).requires_grad_()

    def defined(states):
        return conicity(states, mask)[1:]

    assert torch.autograd.gradcheck(defined, hidden)
    undefined = torch.stack([torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), torch.zeros(2, 2)]).requires_grad_()
    values = conicity(undefined, torch.ones(2, 2, dtype=torch.bool))
    assert values.isnan().all()
    torch.where(values.isnan(), 0.0, values).sum().backward()
    assert (undefined.grad == 0).all()


def test_padding_order_and_batch_change_nothing():
    hidden, mask = padded(seed=2)
    expected = conicity(hidden, mask)
    wide = torch.nn.functional.pad(mask, (0, 4))
    for junk in (0.0, 1e30, torch.nan, torch.inf):
        states = torch.nn.functional.pad(hidden, (0, 0, 0, 4)).masked_fill(~wide.unsqueeze(-1), junk)
        torch.testing.assert_close(conicity(states, wide), expected, equal_nan=True)
    torch.testing.assert_close(conicity(hidden.flip(0), mask.flip(0)), expected.flip(0), equal_nan=True)
    alone = [conicity(hidden[i : i + 1], mask[i : i + 1])[0] for i in range(len(mask))]
    torch.testing.assert_close(torch.stack(alone), expected, equal_nan=True)


def test_half_precision_is_taken_as_float32():
    hidden, mask = padded(seed=3)
    half = hidden.bfloat16()
    torch.testing.assert_close(conicity(half, mask), conicity(half.float(), mask), equal_nan=True)
    assert conicity(half, mask).dtype == torch.float32
