"""The objectives of selective dependence classification against double loops and a case worked out by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.normalizers import Sparsemax
from attn_lightning.backbone.segments import FullyConnectedClassifier, FullyConnectedFocus
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.combined import Combined
from attn_lightning.methods.selective import (
    HardAttention,
    Hybrid,
    MarginalLikelihood,
    expected_loss,
    segment_logits,
)
from attn_lightning.numerics import log_mixture
from attn_lightning.step import TrainStep
from attn_lightning.task_loss import cross_entropy
from attn_lightning.types import Batch, DataSpec
from support.defaults import defaults

SPEC = DataSpec(3, 0, 2, ("a", "b", "c"), segment_shape=(2,))


def make_model(layer: int = 0, cls: type[AttentionClassifier] = AttentionClassifier, **options) -> AttentionClassifier:
    torch.manual_seed(0)
    return cls(
        SPEC,
        focus=lambda shape: FullyConnectedFocus(shape, widths=(6, 5), layer=layer),
        classifier=lambda shape, classes: FullyConnectedClassifier(shape, classes, widths=(4,)),
        **options,
    )


def make_batch(size: int = 6, length: int = 5) -> Batch:
    """Mosaics of 1 to `length` segments."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(size, length, 2, generator=generator)
    mask = torch.arange(length) < (torch.arange(size) % length + 1).unsqueeze(1)
    labels = torch.randint(0, 3, (size,), generator=generator)
    return Batch(tokens.masked_fill(~mask.unsqueeze(-1), 0.0), mask, labels, torch.arange(size))


def make_step(model: AttentionClassifier, batch: Batch, progress: float = 0.0, class_weights=None) -> TrainStep:
    output = model(batch.tokens, batch.mask)
    return TrainStep(model, batch, output, lambda z, y: cross_entropy(z, y, class_weights), progress)


def double_loop(model: AttentionClassifier, batch: Batch) -> tuple[list[float], list[float]]:
    """Hard and marginal objective of every example, from single segments through the classifier's own layers."""
    hard, marginal = [], []
    attention = model(batch.tokens, batch.mask).attention
    for i, label in enumerate(batch.labels.tolist()):
        expected, likelihood = 0.0, 0.0
        for t in range(int(batch.mask[i].sum())):
            state = model.encoder(batch.tokens[i : i + 1, t : t + 1], torch.ones(1, 1, dtype=torch.bool))
            probabilities = model.classifier(model.encoder.values(state)[0, 0]).double().softmax(-1)
            expected += -attention[i, t].item() * math.log(probabilities[label].item())
            likelihood += attention[i, t].item() * probabilities[label].item()
        hard.append(expected)
        marginal.append(-math.log(likelihood))
    return hard, marginal


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("options", [{}, {"normalizer": Sparsemax}], ids=["softmax", "sparsemax"])
def test_both_objectives_are_those_of_a_double_loop(layer, options):
    model, batch = make_model(layer, **options), make_batch()
    hard, marginal = double_loop(model, batch)
    step = make_step(model, batch)
    torch.testing.assert_close(HardAttention().task_loss(step), torch.tensor(hard), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(MarginalLikelihood().task_loss(step), torch.tensor(marginal), rtol=1e-4, atol=1e-5)


def test_every_token_of_a_pair_is_answered_with_its_own_question():
    torch.manual_seed(3)
    model = AttentionClassifier(DataSpec(3, 30, 5, ("a", "b", "c"), has_question=True), encoder=Average).eval()
    tokens = torch.tensor([[2, 3, 4, 5, 6], [7, 8, 0, 9, 10]])
    mask = torch.tensor([[True, True, True, False, False], [True, True, False, False, False]])
    output = model(tokens, mask)
    found = segment_logits(model, output)
    head = model.classifier
    for states, real, row in zip(output.hidden, mask, found, strict=True):
        # W_o tanh(W_1 h_t + W_2 q + b), with the question q in the last column.
        asked = head.query.weight @ states[-1]
        for state, logits in zip(states[real], row[real], strict=True):
            inner = torch.tanh(head.context.weight @ state + head.context.bias + asked)
            torch.testing.assert_close(logits, head.output.weight @ inner + head.output.bias)


def test_two_segments_by_hand():
    """Attention (3/4, 1/4); segment 1 says class 0 with probability 1/2, segment 2 with 1/5."""
    attention = torch.tensor([[0.75, 0.25]])
    of_each = -torch.tensor([[0.5, 0.2]]).log()
    hard = expected_loss(attention, of_each, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(hard, torch.tensor([0.75 * math.log(2) + 0.25 * math.log(5)]))
    mixed = log_mixture(attention, torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]).log())
    torch.testing.assert_close(mixed.exp(), torch.tensor([[0.425, 0.575]]))


def test_hard_is_never_below_marginal_and_both_are_the_soft_loss_under_one_hot_attention():
    model, batch = make_model(), make_batch()
    step = make_step(model, batch)
    hard, marginal = HardAttention().task_loss(step), MarginalLikelihood().task_loss(step)
    assert (hard >= marginal - 1e-6).all(), "Jensen"
    assert (hard > marginal + 1e-4).any()
    first = F.one_hot(torch.zeros(6, dtype=torch.long), 5).float()
    output = model.attend(step.output.hidden, step.output.scores, batch.mask, first)
    chosen = TrainStep(model, batch, output, step.task_loss, 0.0)
    soft = F.cross_entropy(output.logits, batch.labels, reduction="none")
    for method in (HardAttention(), MarginalLikelihood(), Hybrid(fraction=1.0), Hybrid(fraction=0.0)):
        torch.testing.assert_close(method.task_loss(chosen), soft)


def test_hybrid_is_soft_before_the_switch_and_hard_from_it_on():
    model, batch, method = make_model(2), make_batch(), Hybrid(fraction=0.4)
    for progress, expected in ((0.0, "soft"), (0.39, "soft"), (0.4, "hard"), (1.0, "hard")):
        step = make_step(model, batch, progress)
        soft = F.cross_entropy(step.output.logits, batch.labels, reduction="none")
        wanted = soft if expected == "soft" else HardAttention().task_loss(step)
        torch.testing.assert_close(method.task_loss(step), wanted)


@pytest.mark.parametrize("cls", [HardAttention, MarginalLikelihood, Hybrid])
def test_weight_mixes_with_the_soft_loss_and_zero_leaves_it_alone(cls):
    step = make_step(make_model(), make_batch(), progress=0.9)
    soft = F.cross_entropy(step.output.logits, step.batch.labels, reduction="none")
    torch.testing.assert_close(cls(0.25).task_loss(step), 0.75 * soft + 0.25 * cls().task_loss(step))
    assert cls(0.0).task_loss(step) is None


@pytest.mark.parametrize("cls", [HardAttention, MarginalLikelihood, Hybrid])
def test_class_weights_scale_every_example(cls):
    weights = torch.tensor([0.5, 2.0, 3.0])
    plain, weighted = (make_step(make_model(), make_batch(), 0.9, w) for w in (None, weights))
    expected = weights[plain.batch.labels] * cls().task_loss(plain)
    torch.testing.assert_close(cls().task_loss(weighted), expected)


@pytest.mark.parametrize("cls", [HardAttention, MarginalLikelihood, Hybrid])
def test_padding_and_batch_order_change_nothing(cls):
    model, batch = make_model(2), make_batch()
    expected = cls().task_loss(make_step(model, batch, 0.9))
    junk = batch.tokens + 50.0 * (~batch.mask).unsqueeze(-1)
    wide = Batch(F.pad(junk, (0, 0, 0, 2), value=9.0), F.pad(batch.mask, (0, 2)), batch.labels, batch.rows)
    torch.testing.assert_close(cls().task_loss(make_step(model, wide, 0.9)), expected)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    turned = Batch(batch.tokens[order], batch.mask[order], batch.labels[order], batch.rows[order])
    torch.testing.assert_close(cls().task_loss(make_step(model, turned, 0.9)), expected[order])


@pytest.mark.parametrize("cls", [HardAttention, MarginalLikelihood, Hybrid])
def test_gradients_are_exact(cls):
    """By the segments, through attention and through every single classification."""
    model, batch = make_model(2).double(), make_batch(3, 3)

    def value(segments: Tensor) -> Tensor:
        hidden = model.encode(segments, batch.mask)
        output = model.attend(hidden, model.score(hidden, batch.mask), batch.mask)
        loss = cls().task_loss(TrainStep(model, batch, output, double_cross_entropy, 0.9))
        return loss.sum()

    assert torch.autograd.gradcheck(value, batch.tokens.double().requires_grad_())


def double_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def test_log_mixture_is_exact_where_probabilities_underflow_and_weights_are_zero():
    attention = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    logits = torch.tensor([[[0.0, 900.0], [0.0, 800.0], [700.0, 0.0]], [[1.0, 2.0], [0.0, 0.5], [900.0, 0.0]]])
    log_p = logits.double().log_softmax(-1)
    mixed = log_mixture(attention, log_p)
    torch.testing.assert_close(mixed[0, 0], torch.tensor(math.log(0.5) - 800.0, dtype=torch.float64))
    torch.testing.assert_close(mixed[1], log_p[1, 1])
    (gradient,) = torch.autograd.grad(mixed[1, 0], attention)
    # d log sum_t a_t p_t / d a_t = p_t / p_1, also for the segments without attention.
    torch.testing.assert_close(gradient[1], (log_p[1, :, 0] - log_p[1, 1, 0]).exp())
    assert torch.isfinite(torch.autograd.grad(log_mixture(attention, log_p).sum(), attention)[0]).all()


def test_bottleneck_segments_keep_their_own_gates():
    """A segment alone is compressed by its own gate, as inside the mosaic."""
    model, batch = make_model(2, BottleneckClassifier), make_batch()
    output = model.eval()(batch.tokens, batch.mask)
    compressed = torch.tanh(model.compressor.compressed(output.hidden, output.scores))
    torch.testing.assert_close(segment_logits(model, output), model.classifier(compressed))


@pytest.mark.parametrize("cls", [HardAttention, MarginalLikelihood, Hybrid])
def test_shares_above_one_are_refused(cls):
    with pytest.raises(ConfigurationError, match="at most 1"):
        cls(weight=1.5)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigurationError, match="fraction"):
        Hybrid(fraction=fraction)


def test_two_objectives_in_one_run_are_refused():
    with pytest.raises(ConfigurationError, match="HardAttention and Hybrid"):
        Combined([HardAttention(), Hybrid()])


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (HardAttention, {"weight": 1.0}),
        (MarginalLikelihood, {"weight": 1.0}),
        (Hybrid, {"weight": 1.0, "fraction": 0.5}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls, expected):
    assert defaults(cls) == expected
