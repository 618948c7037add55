"""Gradient importances, against autograd by hand, closed forms and finite differences, and inside a real Trainer."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.importance import (
    confidence,
    importances,
    small_passes,
)
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch, DataSpec

KINDS = ("gradient", "gradient_full", "hidden")
ENCODERS = {"lstm": BiLSTM, "cnn": CNN, "average": Average}


def small_model(encoder="lstm", num_classes=3, normalizer=None, **options):
    torch.manual_seed(0)
    spec = DataSpec(num_classes, 20, 6, tuple(f"class {c}" for c in range(num_classes)))
    options |= {"normalizer": normalizer} if normalizer else {}
    model = AttentionClassifier(spec, encoder=ENCODERS[encoder], **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def small_batch(lengths=(5, 1, 7, 3), seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    tokens = torch.randint(1, 20, mask.shape, generator=generator).masked_fill(~mask, 0)
    return Batch(tokens, mask, torch.zeros(len(lengths), dtype=torch.int64), torch.arange(len(lengths)))


def by_hand(model, batch, row, kind):
    """The definition, for one example without padding, with the softmax itself."""
    tokens = batch.tokens[row : row + 1, batch.mask[row]]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    embeddings = model.embed(tokens).detach().requires_grad_()
    hidden = model.encode(embeddings, mask)
    output = model.attend(hidden, model.score(hidden, mask), mask)
    held = model.attend(hidden, output.scores, mask, output.attention.detach())
    logits = (held if kind == "gradient" else output).logits[0]
    at = hidden if kind == "hidden" else embeddings
    (gradient,) = torch.autograd.grad(logits.softmax(0)[output.logits[0].argmax()], at)
    return (gradient * at).sum(-1).abs()[0].detach()


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_definition_example_by_example(encoder, kind, num_classes):
    model, batch = small_model(encoder, num_classes).double(), small_batch()
    _, results = importances(model, batch, KINDS)
    for row, real in enumerate(batch.mask):
        torch.testing.assert_close(results[kind][row, real], by_hand(model, batch, row, kind).float())
    assert (results[kind][~batch.mask] == 0).all()
    assert results[kind].max() > 1e-3


def test_equals_finite_differences():
    model, batch = small_model().double(), small_batch()
    step, embeddings = 1e-6, model.embed(batch.tokens).detach()

    def probability(embeddings):
        hidden = model.encode(embeddings, batch.mask)
        return confidence(model.attend(hidden, model.score(hidden, batch.mask), batch.mask).logits)

    result = importances(model, batch, ("gradient_full",))[1]["gradient_full"]
    for t in range(batch.mask.shape[1]):
        # The directional derivative along the embedding itself is sum_d e_d dp/de_d.
        change = torch.zeros_like(embeddings)
        change[:, t] = step * embeddings[:, t]
        slope = ((probability(embeddings + change) - probability(embeddings - change)) / (2 * step)).abs()
        torch.testing.assert_close(
            result[:, t], slope.masked_fill(~batch.mask[:, t], 0).detach().float(), atol=1e-7, rtol=1e-4
        )


def test_hidden_with_constant_attention_is_the_closed_form_of_a_linear_classifier():
    model, batch = small_model(normalizer=Uniform), small_batch()
    output = model(batch.tokens, batch.mask)
    p = output.logits.softmax(1)
    weights, top = model.classifier.weight, p.argmax(1)
    direction = weights[top] - p @ weights
    expected = p.gather(1, top.unsqueeze(1)) * output.attention * torch.einsum("btd,bd->bt", output.hidden, direction)
    torch.testing.assert_close(importances(model, batch)[1]["hidden"], expected.abs().detach())


def test_constant_attention_makes_both_gradients_equal():
    model, batch = small_model(normalizer=Uniform), small_batch()
    _, results = importances(model, batch, KINDS)
    torch.testing.assert_close(results["gradient"], results["gradient_full"])


def test_the_output_is_that_of_a_plain_pass_in_eval_mode_and_detached():
    model, batch = small_model(embedding_dropout=0.5, encoder_dropout=0.5), small_batch()
    expected = model(batch.tokens, batch.mask)
    model.train()
    output, results = importances(model, batch, KINDS)
    for name, value in vars(output).items():
        if name != "aux":
            torch.testing.assert_close(value, getattr(expected, name))
            assert not value.requires_grad
    assert not any(value.requires_grad for value in results.values())


def test_padding_and_batch_order_change_nothing():
    model, batch = small_model(), small_batch()
    _, expected = importances(model, batch, KINDS)
    order = torch.tensor([2, 0, 3, 1])
    wider = Batch(
        nn.functional.pad(batch.tokens, (0, 4), value=3)[order],
        nn.functional.pad(batch.mask, (0, 4))[order],
        batch.labels[order],
        batch.rows[order],
    )
    _, results = importances(model, wider, KINDS)
    for kind in KINDS:
        torch.testing.assert_close(results[kind][:, :7], expected[kind][order])


def test_nothing_is_left_behind():
    model, batch = small_model(), small_batch()
    model.train()
    model.encoder.eval().requires_grad_(False)  # a part that a user froze
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    importances(model, batch, KINDS)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert wanted == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert model.training
    assert not model.encoder.training
    assert model.scorer.training


def test_modes_are_restored_after_an_error():
    class Broken(AttentionClassifier):
        def encode(self, embeddings, mask):
            raise RuntimeError("broken")

    model = Broken(DataSpec(2, 20, 6, ("no", "yes"))).train()
    with pytest.raises(RuntimeError, match="broken"):
        importances(model, small_batch())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_gradient_of_a_parameter_is_computed():
    asked = []

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs, weight):
            ctx.save_for_backward(weight)
            return inputs * weight

        @staticmethod
        def backward(ctx, gradient):
            asked.append(ctx.needs_input_grad)
            return gradient * ctx.saved_tensors[0], None

    class Custom(AttentionClassifier):
        def encode(self, embeddings, mask):
            return super().encode(Product.apply(embeddings, self.classifier.weight[0, :6]), mask)

    importances(Custom(DataSpec(2, 20, 6, ("no", "yes"))), small_batch(), KINDS)
    assert asked == [(True, False)] * 2


def test_a_pass_that_trains_is_not_disturbed():
    model, batch = small_model(), small_batch()
    (expected,) = torch.autograd.grad(model(batch.tokens, batch.mask).logits.square().sum(), model.classifier.weight)
    output = model(batch.tokens, batch.mask)
    importances(model, batch, KINDS)
    output.logits.square().sum().backward()
    torch.testing.assert_close(model.classifier.weight.grad, expected)


def test_frozen_embeddings_and_parameters_are_no_obstacle():
    model, batch = small_model(), small_batch()
    _, expected = importances(model, batch, KINDS)
    _, results = importances(model.requires_grad_(False), batch, KINDS)
    for kind in KINDS:
        torch.testing.assert_close(results[kind], expected[kind])


@pytest.mark.parametrize("kinds", [("hidden",), ("gradient", "hidden"), KINDS])
def test_the_encoder_runs_once(kinds):
    model, calls = small_model(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    importances(model, small_batch(), kinds)
    assert len(calls) == 1


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigurationError, match=r"gradient_full.*saliency"):
        importances(small_model(), small_batch(), ("saliency",))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_autograd_is_off(context):
    model, batch = small_model(), small_batch()
    _, expected = importances(model, batch, KINDS)
    with context():
        inside = Batch(*(None if value is None else value.clone() for value in batch))
        output, results = importances(model, inside, KINDS)
    for kind in KINDS:
        torch.testing.assert_close(results[kind], expected[kind])
    assert not output.logits.is_inference()


def test_a_sure_model_still_has_importances():
    model, batch = small_model(num_classes=2), small_batch()
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([30.0, 0.0]))
    _, results = importances(model, batch, KINDS)
    for kind in KINDS:
        exact = importances(model.double(), batch, (kind,))[1][kind]
        assert (exact[batch.mask] > 0).all()
        torch.testing.assert_close(results[kind] / results[kind].amax(), exact / exact.amax(), rtol=1e-3, atol=1e-4)
        model.float()


@pytest.mark.parametrize("num_classes", [2, 5])
def test_confidence_is_the_largest_probability(num_classes):
    logits = torch.randn(50, num_classes, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(confidence(logits), logits.softmax(1).amax(1))
    (ours,) = torch.autograd.grad(confidence(logits).sum(), logits)
    (expected,) = torch.autograd.grad(logits.softmax(1).amax(1).sum(), logits)
    torch.testing.assert_close(ours, expected)
    assert (confidence(torch.zeros(2, num_classes)) == 1 / torch.tensor(float(num_classes))).all()


class Measuring(L.LightningModule):
    """The least module that validates and tests; a plain pass comes first, as in a real one."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.seen = []

    def test_step(self, batch, index):
        assert not torch.is_grad_enabled()
        clean = self.backbone(batch.tokens, batch.mask)
        output, results = importances(self.backbone, batch, KINDS)
        torch.testing.assert_close(output.logits, clean.logits)
        self.seen.append(results)

    validation_step = test_step


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("stage", ["test", "validate"])
def test_works_inside_a_trainer(stage, inference_mode, precision):
    model, batch = small_model(), small_batch()
    module = Measuring(model)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = L.Trainer(accelerator="cpu", inference_mode=inference_mode, precision=precision, **quiet)
    getattr(trainer, stage)(module, DataLoader([batch], batch_size=None), verbose=False)
    _, expected = importances(model, batch, KINDS)
    close = {"rtol": 0.3, "atol": 0.02} if precision == "bf16-mixed" else {}
    for kind in KINDS:
        torch.testing.assert_close(module.seen[0][kind], expected[kind], **close)
        assert not torch.equal(module.seen[0][kind], torch.zeros_like(expected[kind]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_head_of_any_model_stays_outside_autocast():
    """One that takes no care itself would be tested in bfloat16, where weights of attention tie."""

    class Careless(AttentionClassifier):
        def encode(self, embeddings, mask):
            return super().encode(embeddings, mask).bfloat16()

        def attend(self, hidden, scores, mask, attention=None):
            assert not torch.is_autocast_enabled("cpu")
            assert hidden.dtype == scores.dtype == torch.float32
            return super().attend(hidden, scores, mask, attention)

    model, batch = Careless(DataSpec(2, 20, 6, ("a", "b"))).eval(), small_batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clean = model(batch.tokens, batch.mask)
        output, results = importances(model, batch, KINDS)
    torch.testing.assert_close(output.logits, clean.logits)
    assert all((results[kind] > 0).any() for kind in KINDS)


def test_an_encoder_that_ignores_a_word_gives_it_no_gradient():
    class Blind(AttentionClassifier):
        def encode(self, embeddings, mask):
            return super().encode(embeddings * (torch.arange(mask.shape[1]) != 2).unsqueeze(-1), mask)

    torch.manual_seed(0)
    model = Blind(DataSpec(2, 20, 6, ("no", "yes")), encoder=Average)
    result = importances(model, small_batch(), ("gradient_full",))[1]["gradient_full"]
    assert (result[:, 2] == 0).all()
    assert (result[:, 0] > 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_works_on_cuda_with_recurrent_encoders_in_eval_mode(encoder):
    model, batch = small_model(encoder), small_batch()
    _, expected = importances(model, batch, KINDS)
    on_device = Batch(*(None if value is None else value.cuda() for value in batch))
    with torch.inference_mode():
        _, results = importances(model.cuda(), on_device, KINDS)
    for kind in KINDS:
        torch.testing.assert_close(results[kind].cpu(), expected[kind], rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_works_on_cuda_with_an_encoder_that_knows_nothing_of_cudnn():
    class Plain(AttentionClassifier):
        def __init__(self, spec):
            super().__init__(spec, encoder=Average)
            self.lstm = nn.LSTM(6, 256, batch_first=True)

        def encode(self, embeddings, mask):
            return self.lstm(embeddings)[0]

    model = Plain(DataSpec(2, 20, 6, ("no", "yes"))).cuda().eval()
    on_device = Batch(*(None if value is None else value.cuda() for value in small_batch()))
    assert importances(model, on_device)[1]["gradient"].sum() > 0


def test_small_passes_are_the_rows_in_order_and_give_the_same_importances():
    model, batch = small_model(), small_batch((600, 1, 7, 3, 599, 20, 300, 4, 5, 6, 7, 8, 9))
    parts = list(small_passes(batch))
    assert [len(part.rows) for part in parts] == [8, 5]
    assert torch.cat([part.rows for part in parts]).tolist() == list(range(13))
    assert {part.mask.shape[1] for part in parts} == {600}
    assert all(part.rationale is None for part in parts)
    _, expected = importances(model, batch, KINDS)
    for kind in KINDS:
        found = torch.cat([importances(model, part, KINDS)[1][kind] for part in parts])
        torch.testing.assert_close(found, expected[kind])


def test_short_texts_are_one_pass():
    batch = small_batch((25,) * 128)
    assert [len(part.rows) for part in small_passes(batch)] == [128]
