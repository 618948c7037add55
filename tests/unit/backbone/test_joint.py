"""Two batches through one run of the encoder equal two runs, in outputs, gradients and graph."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM, Encoder
from attn_lightning.backbone.joint import joint_passes
from attn_lightning.types import AttentionOutput, Batch, DataSpec

V = 20


def make_batch(size: int, length: int) -> Batch:
    lengths = torch.arange(size) % length + 1
    lengths[0] = length
    mask = torch.arange(length) < lengths[:, None]
    return Batch(torch.randint(1, V, (size, length)) * mask, mask, torch.zeros(size).long(), torch.arange(size))


@pytest.mark.parametrize("encoder", [BiLSTM, CNN, Average])
@pytest.mark.parametrize(("length", "expected_runs"), [(6, 1), (9, 1), (5, 1), (30, 2)])
def test_equals_two_passes(
    encoder: type[Encoder], length: int, expected_runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, V, 4, ("a", "b")), encoder=encoder)
    batches = make_batch(3, 6), make_batch(5, length)
    alone = [model(batch.tokens, batch.mask) for batch in batches]
    calls, encode = [], model.encode
    monkeypatch.setattr(model, "encode", lambda *args: calls.append(1) or encode(*args))
    together = joint_passes(model, *batches)
    assert len(calls) == expected_runs
    for got, want in zip(together, alone, strict=True):
        for field in fields(AttentionOutput):
            if isinstance(value := getattr(want, field.name), Tensor):
                torch.testing.assert_close(getattr(got, field.name), value)
    parameters = list(model.parameters())
    found, expected = (torch.autograd.grad(sum(o.logits.sum() for o in pair), parameters) for pair in (together, alone))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_logits_can_be_differentiated_by_what_the_output_holds() -> None:
    model = AttentionClassifier(DataSpec(2, V, 4, ("a", "b")))
    first, second = joint_passes(model, make_batch(3, 6), make_batch(3, 8))
    for output in (first, second):
        assert output.embeddings is not None
        places = (output.embeddings, output.hidden, output.scores)
        gradients = torch.autograd.grad(output.logits[:, 0].sum(), places, retain_graph=True)
        assert all((gradient != 0).any() for gradient in gradients)


def test_a_model_with_its_own_forward_is_run_twice() -> None:
    class Own(AttentionClassifier):
        calls = 0

        def forward(self, tokens: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
            self.calls += 1
            return super().forward(tokens, mask, attention)

    model = Own(DataSpec(2, V, 4, ("a", "b")))
    joint_passes(model, make_batch(3, 6), make_batch(3, 6))
    assert model.calls == 2
