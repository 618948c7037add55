"""When cuDNN is switched off; whether a kernel has a backward pass is tested on a GPU, with the encoders."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attn_lightning.backbone.kernels import plain_attention_pays, recurrent_kernels

ON_DEVICE = SimpleNamespace(is_cuda=True, requires_grad=True)
"""All that is asked of an input; a CPU has no such tensor."""


@pytest.mark.parametrize(
    ("training", "twice", "requires_grad", "enabled"),
    [
        (True, False, True, True),
        (True, True, True, False),
        (True, True, False, False),
        (False, False, True, False),
        (False, False, False, True),
    ],
)
def test_cudnn_is_off_where_it_has_no_backward_pass(training, twice, requires_grad, enabled):
    model = nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)).train(training)
    before = torch.backends.cudnn.enabled
    with recurrent_kernels(model, SimpleNamespace(is_cuda=True, requires_grad=requires_grad), twice=twice):
        assert torch.backends.cudnn.enabled == (before and enabled)
    assert torch.backends.cudnn.enabled == before


def test_nothing_is_switched_without_gradients_without_rnns_and_on_the_cpu():
    rnn, linear = nn.LSTM(2, 2).eval(), nn.Linear(2, 2).eval()
    on_cpu = SimpleNamespace(is_cuda=False, requires_grad=True)
    before = torch.backends.cudnn.enabled
    with recurrent_kernels(linear, ON_DEVICE), recurrent_kernels(rnn, on_cpu, twice=True):
        assert torch.backends.cudnn.enabled == before
    with torch.no_grad(), recurrent_kernels(rnn, ON_DEVICE):
        assert torch.backends.cudnn.enabled == before


@pytest.mark.parametrize(
    ("asked", "length", "pays"), [(torch.bfloat16, 40, True), (torch.bfloat16, 128, False), (None, 40, False)]
)
def test_plain_attention_is_for_short_texts_in_half_precision(asked, length, pays):
    inputs = torch.zeros(2, length, 3)
    with torch.autocast("cpu", asked, enabled=asked is not None):
        assert plain_attention_pays(inputs) == pays
        assert not plain_attention_pays(inputs.to("meta"))
    assert plain_attention_pays(inputs.to(asked)) == pays
