"""Focus networks and classifiers of segments against the same networks written out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.bottleneck import BottleneckClassifier, NoiseGate
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.backbone.importance import importances
from attn_lightning.backbone.normalizers import Softmax, Sparsemax, Uniform
from attn_lightning.backbone.segments import (
    ConvolutionalClassifier,
    ConvolutionalFocus,
    FullyConnectedClassifier,
    FullyConnectedFocus,
)
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.attention_perturbation import AttentionIVAT
from attn_lightning.methods.relation import Relation
from attn_lightning.methods.word_perturbation import WordVAT
from attn_lightning.step import TrainStep
from attn_lightning.task_loss import cross_entropy
from attn_lightning.types import Batch, DataSpec

POINTS = DataSpec(3, 0, 5, ("a", "b", "c"), segment_shape=(5,))
IMAGES = DataSpec(3, 0, 3 * 28 * 28, ("a", "b", "c"), segment_shape=(3, 28, 28))
CHANNELS, RULES = (2, 2, 3, 3, 4, 4), ("averaged_input", "argmax_segment", "averaged_output")


def make_batch(spec: DataSpec = POINTS, size: int = 4, length: int = 5) -> Batch:
    """Mosaics of different numbers of segments, the first of one segment."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(size, length, *spec.segment_shape, generator=generator)
    mask = torch.arange(length) < torch.tensor([1, 3, length, 2])[:size, None]
    return Batch(tokens, mask, torch.arange(size) % 3, torch.arange(size))


def make_model(
    layer: int = 0, cls: type[AttentionClassifier] = AttentionClassifier, seed: int = 0, **options
) -> AttentionClassifier:
    torch.manual_seed(seed)
    parts = {
        "focus": lambda shape: FullyConnectedFocus(shape, widths=(6, 12), layer=layer),
        "classifier": lambda shape, classes: FullyConnectedClassifier(shape, classes, widths=(6, 12)),
    }
    return cls(POINTS, **parts | options)


def weights_of(module: nn.Module) -> list[Tensor]:
    return [part.weight for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]


# --- the networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("normalizer", [Softmax, Sparsemax])
def test_a_fully_connected_model_is_the_network_written_out(layer, normalizer):
    model, batch = make_model(layer, normalizer=normalizer), make_batch()
    first, second, last = (*weights_of(model.encoder), *weights_of(model.scorer))
    output = model(batch.tokens, batch.mask)
    for i, length in enumerate(batch.mask.sum(1).tolist()):
        points = batch.tokens[i, :length]
        below = points @ first.T
        above = below.relu() @ second.T
        scores = (above.relu() @ last.T).squeeze(-1)
        values = (points, below.tanh(), above.tanh())[layer]
        attention = normalizer()(scores[None], torch.ones(1, length, dtype=torch.bool))[0]
        context = attention @ values
        torch.testing.assert_close(output.scores[i, :length], scores)
        torch.testing.assert_close(output.attention[i, :length], attention)
        torch.testing.assert_close(output.context[i], context)
        torch.testing.assert_close(output.logits[i], model.classifier.layers(context))
    assert (output.attention[~batch.mask] == 0).all()
    assert (output.hidden[~batch.mask] == 0).all()


def test_layers_of_one_seed_are_the_same_wherever_the_network_is_cut():
    for focus, shape in ((FullyConnectedFocus, (5,)), (ConvolutionalFocus, (3, 28, 28))):
        networks = []
        for layer in (0, 2):
            torch.manual_seed(3)
            network = focus(shape, layer=layer)
            networks.append([*weights_of(network.encoder), *weights_of(network.scorer)])
        assert len(networks[0]) == len(networks[1])
        assert all(map(torch.equal, *networks))


def image_scores(network: ConvolutionalFocus, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Scores and states of (N, 3, 28, 28) images, the published network step by step with these weights."""
    parts = [*network.encoder.modules(), *network.scorer.modules()]
    kernels = [part.weight for part in parts if isinstance(part, nn.Conv2d)]
    norms = [part for part in parts if isinstance(part, nn.GroupNorm)]
    linears = [part.weight for part in parts if isinstance(part, nn.Linear)]
    states = images
    x = images
    for index, kernel in enumerate(kernels, start=1):
        x = F.conv2d(x, kernel, padding=int(index == 6))
        if index % 2:
            x = norms[index // 2](x)
        states = x if index == layer else states
        x = x.relu()
        if index % 2 == 0:
            x = F.max_pool2d(x, 2)
    x = x.flatten(1)
    for weight in linears[:-1]:
        x = (x @ weight.T).relu()
    return (x @ linears[-1].T).squeeze(-1), states.flatten(1)


@pytest.mark.parametrize("layer", [0, 1, 2, 6])
def test_a_convolutional_focus_network_is_the_published_one(layer):
    torch.manual_seed(0)
    network = ConvolutionalFocus((3, 28, 28), CHANNELS, (5, 4), layer)
    images, mask = torch.randn(2, 3, 3 * 28 * 28), torch.ones(2, 3, dtype=torch.bool)
    hidden = network.encoder(images, mask)
    scores, states = image_scores(network, images.reshape(6, 3, 28, 28), layer)
    torch.testing.assert_close(hidden.flatten(0, 1), states)
    torch.testing.assert_close(network.scorer(hidden, mask).flatten(), scores)
    assert hidden.shape[-1] == network.encoder.output_size == math.prod(network.encoder.output_shape)
    torch.testing.assert_close(network.encoder.values(hidden), hidden.tanh() if layer else hidden)


def test_published_sizes():
    """32 x 32 images leave one pixel of 256 channels; aggregation at layer 6 averages 256 x 3 x 3 numbers."""
    focus = ConvolutionalFocus((3, 32, 32), layer=6)
    assert focus.encoder.output_shape == (256, 3, 3)
    assert [tuple(weight.shape) for weight in weights_of(focus.scorer)] == [(64, 256), (32, 64), (10, 32), (1, 10)]
    assert sum(p.numel() for p in ConvolutionalClassifier((256, 3, 3), 3).layers.parameters()) == 512 * 128 + 128 + 387
    points = FullyConnectedFocus((2,))
    assert [tuple(weight.shape) for weight in weights_of(points.scorer)] == [(50, 2), (50, 50), (1, 50)]
    assert all(part.bias is None for part in points.scorer.modules() if isinstance(part, nn.Linear))


@pytest.mark.parametrize("shape", [(3, 28, 28), (4, 3, 3), (2, 1, 1)])
def test_convolutional_classifier_sees_each_image_alone(shape):
    torch.manual_seed(0)
    classifier, states = ConvolutionalClassifier(shape, 3, CHANNELS, 6), torch.randn(4, math.prod(shape))
    logits = classifier(states)
    assert logits.shape == (4, 3)
    torch.testing.assert_close(classifier(states[2:3]), logits[2:3])


@pytest.mark.parametrize("layer", [0, 6])
def test_images_train_end_to_end(layer):
    torch.manual_seed(0)
    model = AttentionClassifier(
        IMAGES,
        focus=lambda shape: ConvolutionalFocus(shape, CHANNELS, (5,), layer),
        classifier=lambda shape, classes: ConvolutionalClassifier(shape, classes, CHANNELS, 6),
    )
    batch = make_batch(IMAGES, 3, 3)
    output = model(batch.tokens, batch.mask)
    F.cross_entropy(output.logits, batch.labels).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


# --- the contract of the backbone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("prediction", RULES)
def test_padding_batch_order_and_batch_size_change_nothing(layer, prediction):
    model, batch = make_model(layer, prediction=prediction).eval(), make_batch()
    expected = model(batch.tokens, batch.mask)
    wide = F.pad(batch.tokens, (0, 0, 0, 3), value=70.0)
    wide[:, :5][~batch.mask] = -70.0
    padded = model(wide, F.pad(batch.mask, (0, 3)))
    torch.testing.assert_close(padded.logits, expected.logits)
    torch.testing.assert_close(padded.attention[:, :5], expected.attention)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(batch.tokens[order], batch.mask[order]).logits, expected.logits[order])
    alone = model(batch.tokens[1:2, :3], batch.mask[1:2, :3])
    torch.testing.assert_close(alone.logits, expected.logits[1:2])


@pytest.mark.parametrize("layer", [0, 2])
def test_scores_are_float32_under_autocast(layer):
    model, batch = make_model(layer), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.tokens, batch.mask)
    assert {output.scores.dtype, output.attention.dtype, output.logits.dtype} == {torch.float32}


@pytest.mark.parametrize("layer", [0, 1])
def test_parameters_fall_into_the_groups_of_the_optimizer(layer):
    model = make_model(layer)
    attention = {id(parameter) for parameter in model.attention_parameters()}
    assert model.embedding_parameters() == []
    assert attention == {id(parameter) for parameter in model.scorer.parameters()}
    assert len(attention) == 3 - layer
    assert len(list(model.encoder.parameters())) == layer


def test_frozen_and_unused_scorers_are_not_trained():
    for model in (make_model(1, freeze_scorer=True), make_model(1, normalizer=Uniform)):
        assert not any(parameter.requires_grad for parameter in model.scorer.parameters())
        assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_text_encoders_and_scorers_take_segments_too():
    model = AttentionClassifier(POINTS, encoder=lambda size: Average(size, 7))
    batch = make_batch()
    output = model(batch.tokens, batch.mask)
    assert output.embeddings.shape == (4, 5, 5)
    assert output.hidden.shape == (4, 5, 7)


def test_a_focus_network_takes_word_vectors_too():
    model = AttentionClassifier(DataSpec(2, 9, 4, ("a", "b")), focus=lambda shape: FullyConnectedFocus(shape, (3,)))
    tokens = torch.tensor([[1, 2, 0], [3, 4, 5]])
    assert model(tokens, tokens > 0).logits.shape == (2, 2)


def test_defaults_on_text_draw_the_same_weights_as_ever():
    """Embedding, encoder, scorer and linear layer, in this order from one seed."""
    spec = DataSpec(2, 9, 4, ("a", "b"))
    torch.manual_seed(5)
    model = AttentionClassifier(spec)
    torch.manual_seed(5)
    table = torch.randn(9, 4) * 0.1
    lstm = nn.LSTM(4, 128, batch_first=True, bidirectional=True)
    projection, vector, linear = nn.Linear(256, 128), nn.Linear(128, 1, bias=False), nn.Linear(256, 2)
    assert torch.equal(model.embedding.weight[1:], table[1:])
    assert torch.equal(model.encoder.lstm.weight_hh_l0_reverse, lstm.weight_hh_l0_reverse)
    assert torch.equal(model.scorer.projection.weight, projection.weight)
    assert torch.equal(model.scorer.vector.weight, vector.weight)
    assert torch.equal(model.classifier.weight, linear.weight)
    assert {"classifier.weight", "classifier.bias", "embedding.weight"} <= set(model.state_dict())


# --- rules of prediction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2])
def test_rules_of_prediction_are_those_of_a_loop(layer):
    batch = make_batch()
    models = {rule: make_model(layer, prediction=rule).eval() for rule in RULES}
    outputs = {rule: model(batch.tokens, batch.mask) for rule, model in models.items()}
    model, clean = models["averaged_input"], outputs["averaged_input"]
    values = model.encoder.values(clean.hidden)
    for i, length in enumerate(batch.mask.sum(1).tolist()):
        weights = clean.attention[i, :length]
        of_each = [model.classifier(values[i, t]).softmax(-1) for t in range(length)]
        best = int(weights.argmax())
        torch.testing.assert_close(outputs["argmax_segment"].logits[i].softmax(-1), of_each[best])
        torch.testing.assert_close(outputs["argmax_segment"].context[i], values[i, best])
        mixed = sum(weight * each for weight, each in zip(weights, of_each, strict=True))
        torch.testing.assert_close(outputs["averaged_output"].logits[i].exp(), mixed)
        torch.testing.assert_close(clean.logits[i], model.classifier(weights @ values[i, :length]))


@pytest.mark.parametrize("rule", RULES)
def test_training_sees_the_averaged_input_whatever_the_rule(rule):
    batch = make_batch()
    torch.testing.assert_close(
        make_model(prediction=rule)(batch.tokens, batch.mask).logits, make_model()(batch.tokens, batch.mask).logits
    )


def test_of_equal_weights_the_first_segment_counts():
    batch, model = make_batch(), make_model(prediction="argmax_segment", normalizer=Uniform).eval()
    output = model(batch.tokens, batch.mask)
    torch.testing.assert_close(output.context, batch.tokens[:, 0])


def test_only_a_linear_head_has_a_closed_form():
    assert AttentionClassifier(POINTS).has_linear_head
    assert AttentionClassifier(POINTS, prediction="argmax_segment").has_linear_head is False
    assert make_model().has_linear_head is False
    assert make_model(1, classifier=None).has_linear_head is False


# --- methods and measurements -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("cls", [AttentionClassifier, BottleneckClassifier])
@pytest.mark.parametrize("method", [AttentionIVAT(), Relation(), Relation(path="context"), WordVAT()], ids=type)
def test_methods_for_text_train_on_segments(layer, cls, method):
    model, batch = make_model(layer, cls), make_batch()
    step = TrainStep(model, batch, model(batch.tokens, batch.mask), cross_entropy, 0.5)
    term = method.loss(step)
    assert term.value.isfinite()
    gradients = torch.autograd.grad(term.value, list(model.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("layer", [0, 2])
def test_bottleneck_compresses_segments(layer):
    model, batch = make_model(layer, BottleneckClassifier, compressor=lambda size: NoiseGate(size, 8)), make_batch()
    output = model(batch.tokens, batch.mask)
    torch.testing.assert_close(output.attention.sum(1), torch.ones(4))
    model.compressor.update_statistics()
    states = model.encode(model.embed(batch.tokens), batch.mask)[batch.mask]
    torch.testing.assert_close(model.compressor.mean, states.mean(0))
    learner, noisy = model.learner(output.hidden, batch.mask), model.noisy_logits(output.hidden, batch.mask)
    assert learner.logits.shape == noisy.shape == (4, 3)
    torch.testing.assert_close(learner.logits, make_model(layer)(batch.tokens, batch.mask).logits)


@pytest.mark.parametrize("layer", [0, 2])
def test_gradient_importance_of_segments_is_that_of_autograd(layer):
    model, batch = make_model(layer), make_batch()
    output, found = importances(model, batch, ("gradient", "gradient_full"))
    tokens = batch.tokens.clone().requires_grad_()
    again = model.eval()(tokens, batch.mask)
    confidence = again.logits.softmax(-1).gather(1, output.logits.argmax(1, keepdim=True)).sum()
    (gradient,) = torch.autograd.grad(confidence, tokens)
    expected = (gradient * tokens.detach()).sum(-1).abs().masked_fill(~batch.mask, 0.0)
    torch.testing.assert_close(found["gradient_full"], expected, rtol=1e-4, atol=1e-6)
    assert (found["gradient"] - expected).abs().max() > 1e-4, "attention is held constant"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DataSpec(3, 0, 5, ("a", "b", "c")), "segment_shape"),
        (DataSpec(3, 7, 5, ("a", "b", "c"), segment_shape=(5,)), "no words"),
        (DataSpec(3, 0, 5, ("a", "b", "c"), torch.zeros(0, 5), (5,)), "no words"),
        (DataSpec(3, 0, 5, ("a", "b", "c"), segment_shape=(2,)), "embedding_size"),
        (DataSpec(3, 0, 0, ("a", "b", "c"), segment_shape=(0,)), "embedding_size"),
        (DataSpec(1, 0, 5, ("a",), segment_shape=(5,)), "num_classes"),
    ],
)
def test_data_that_is_neither_text_nor_segments_is_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        AttentionClassifier(spec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FullyConnectedFocus((5,), (6, 12), layer=3), "layer"),
        (lambda: FullyConnectedFocus((5,), (6, 12), layer=-1), "layer"),
        (lambda: FullyConnectedFocus((5,), (6, 0)), "widths"),
        (lambda: ConvolutionalFocus((5,)), "height"),
        (lambda: ConvolutionalFocus((3, 27, 32)), "28 x 28"),
        (lambda: ConvolutionalFocus((3, 32, 32), (8, 8)), "channels"),
        (lambda: ConvolutionalFocus((3, 32, 32), CHANNELS, layer=7), "layer"),
        (lambda: ConvolutionalClassifier((50,), 3), "height"),
        (lambda: ConvolutionalClassifier((3, 4, 4), 3, width=0), "width"),
        (lambda: FullyConnectedClassifier((5,), 3, (0,)), "widths"),
        (lambda: make_model(prediction="best"), "prediction"),
        (lambda: make_model(freeze_embeddings=True), "freeze_embeddings"),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()
