"""Where mixed precision acts and where it does not, and what the log says of it."""

from unittest import mock

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from attn_lightning.backbone import encoders, kernels
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, BiLSTM
from attn_lightning.backbone.orthogonal import OrthogonalLSTM
from attn_lightning.backbone.precision import unreached_by
from attn_lightning.methods import AttentionIVAT, WordVAT
from attn_lightning.module import AttentionModule
from attn_lightning.types import DataSpec
from support.training import fit, planted

SPEC = DataSpec(2, 30, 6, ("a", "b"))


@pytest.fixture(params=[True, False], ids=["with kernels", "without"])
def has_kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    for module in (kernels, encoders):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: request.param)
    return bool(request.param)


class Types(Callback):
    """Notes the types of everything that a training step touches."""

    def __init__(self) -> None:
        self.recurrent: set[tuple[torch.dtype, torch.dtype]] = set()
        self.others: set[torch.dtype] = set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        parameters = list(pl_module.parameters())
        state = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        found = [outputs["loss"], *parameters, *(p.grad for p in parameters if p.grad is not None), *state]
        self.others |= {value.dtype for value in found if isinstance(value, Tensor)}


@pytest.mark.parametrize("method", [None, AttentionIVAT(), WordVAT()])
def test_a_training_computes_in_bfloat16_within_the_encoder_alone(has_kernels, method):
    types, real_lstm, real_attend = Types(), torch.lstm, AttentionClassifier.attend
    passes: list[torch.dtype] = []

    def lstm(inputs, start, weights, *flags):
        types.recurrent.add((inputs.dtype, weights[0].dtype))
        passes.append(inputs.dtype)
        return real_lstm(inputs, start, weights, *flags)

    def attend(self, hidden, scores, mask, attention=None):
        output = real_attend(self, hidden, scores, mask, attention)
        types.others |= {v.dtype for v in (scores, output.hidden, output.attention, output.context, output.logits)}
        return output

    module = AttentionModule()
    with mock.patch.object(torch, "lstm", lstm), mock.patch.object(AttentionClassifier, "attend", attend):
        trainer = fit(module, planted(), *([] if method is None else [method]), types, precision="bf16-mixed")
    used = torch.bfloat16 if has_kernels else torch.float32
    assert (used, used) in types.recurrent
    # The passes that find and measure a perturbation of words are finite differences: never in half precision.
    in_float32 = isinstance(method, WordVAT) or not has_kernels
    assert ((torch.float32, torch.float32) in types.recurrent) == in_float32
    assert types.others == {torch.float32}
    assert {value.dtype for value in trainer.callback_metrics.values()} <= {torch.float32, torch.float64}


def test_the_log_says_where_it_cannot_act(has_kernels, caplog):
    fit(AttentionModule(), planted(), precision="bf16-mixed")
    said = [record.getMessage() for record in caplog.records if "bf16-mixed" in record.getMessage()]
    assert [("BiLSTM stays in float32" in line, "avx512_bf16" in line) for line in said] == (
        [] if has_kernels else [(True, True)]
    )


def test_states_and_gradients_are_near_those_of_float32(has_kernels):
    torch.manual_seed(0)
    encoder, mask = BiLSTM(20, 16, 2), torch.arange(30) < torch.tensor([[30], [11], [1]])
    inputs = torch.randn(3, 30, 20)

    def measured() -> list[Tensor]:
        leaf = inputs.clone().requires_grad_()
        states = encoder(leaf, mask)
        weights = torch.linspace(-1, 1, states.numel()).view_as(states)
        return [states, *torch.autograd.grad((states.float() * weights).sum(), [leaf, *encoder.parameters()])]

    expected = measured()
    with torch.autocast("cpu", torch.bfloat16):
        found = measured()
    assert found[0].dtype == (torch.bfloat16 if has_kernels else torch.float32)
    assert {value.dtype for value in found[1:]} == {torch.float32}
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.linalg.vector_norm(ours.float() - theirs) < 0.03 * torch.linalg.vector_norm(theirs)
    assert torch.all(found[0][~mask] == 0)


def test_float64_and_gradients_of_gradients_keep_the_type_of_the_weights(has_kernels):
    mask, inputs = torch.ones(1, 4, dtype=torch.bool), torch.randn(1, 4, 3)
    twice = BiLSTM(3, 2)
    twice.double_backward = True
    with torch.autocast("cpu", torch.bfloat16):
        assert BiLSTM(3, 2).double()(inputs.double(), mask).dtype == torch.float64
        assert twice(inputs, mask).dtype == torch.float32


def test_the_sentence_names_the_encoder_and_the_reason(has_kernels):
    recurrent = AttentionClassifier(SPEC)
    assert (unreached_by("bf16-mixed", recurrent, "cpu") is None) == has_kernels
    assert unreached_by("bf16-mixed", recurrent, "cuda") is None
    assert unreached_by("32-true", recurrent, "cpu") is None
    assert unreached_by("bf16-mixed", AttentionClassifier(SPEC, CNN), "cpu") is None
    assert "orthogonal" in str(unreached_by("bf16-mixed", AttentionClassifier(SPEC, OrthogonalLSTM), "cuda"))
    assert unreached_by("bf16-mixed", torch.nn.Linear(1, 1), "cpu") is None
    recurrent.encoder.double_backward = True
    assert "gradients of gradients" in str(unreached_by("bf16-mixed", recurrent, "cpu"))
