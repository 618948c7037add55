"""Parameters that stand still: constants within a block, and known to the graph without a gradient."""

import pytest
import torch
from torch import nn

from attn_lightning.backbone.freezing import constant, kept_in_graph


def test_constant_parameters_leave_no_graph_and_get_their_flags_back():
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    with constant(layer.parameters()):
        assert not layer(torch.ones(1, 2)).requires_grad
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad


def test_flags_come_back_after_an_error():
    layer = nn.Linear(2, 1)
    with pytest.raises(ZeroDivisionError), constant(layer.parameters()):
        raise ZeroDivisionError
    assert all(parameter.requires_grad for parameter in layer.parameters())


def test_a_kept_parameter_reports_to_the_graph_without_a_gradient():
    learned, kept = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))
    called = []
    # The hook that DDP waits for.
    node = kept.view_as(kept).grad_fn.next_functions[0][0]
    node.register_hook(lambda inputs, outputs: called.append(outputs))
    value = kept_in_graph(5 * learned, [kept])
    assert value.item() == 10.0
    value.backward()
    assert called == [(None,)]
    assert learned.grad == 5.0
    assert kept.grad is None


def test_without_parameters_the_value_is_unchanged():
    value = torch.tensor(1.5, requires_grad=True)
    kept_in_graph(2 * value, []).backward()
    assert value.grad == 2.0
