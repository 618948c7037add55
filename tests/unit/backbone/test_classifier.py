"""The whole attention classifier."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.normalizers import Uniform
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.scorers import AdditiveScorer, ScaledDotScorer
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import DataSpec

SPEC = DataSpec(num_classes=3, vocabulary_size=20, embedding_size=6, label_names=("a", "b", "c"))


def spec(**changes: Any) -> DataSpec:
    return DataSpec(**{**vars(SPEC), **changes})


def make_batch(extra: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(7 + extra) < torch.tensor([4, 7, 1]).unsqueeze(1)
    return torch.randint(1, 20, mask.shape).masked_fill(~mask, 0), mask


@pytest.mark.parametrize("encoder", [BiLSTM, CNN, Average])
@pytest.mark.parametrize("scorer", [AdditiveScorer, ScaledDotScorer])
def test_five_columns_of_padding_change_nothing(encoder: Any, scorer: Any) -> None:
    model = AttentionClassifier(SPEC, encoder=encoder, scorer=scorer)
    tokens, mask = make_batch(extra=5)
    padded, plain = model(tokens, mask), model(tokens[:, :7], mask[:, :7])
    torch.testing.assert_close(padded.logits, plain.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(padded.attention[:, :7], plain.attention, atol=1e-6, rtol=0)
    assert torch.all(padded.attention[~mask] == 0)


def test_order_of_the_batch_does_not_matter() -> None:
    model, (tokens, mask), order = AttentionClassifier(SPEC), make_batch(), torch.tensor([2, 0, 1])
    expected = model(tokens, mask).logits[order]
    torch.testing.assert_close(model(tokens[order], mask[order]).logits, expected, atol=1e-6, rtol=0)


def test_output_is_what_its_description_says() -> None:
    model, (tokens, mask) = AttentionClassifier(SPEC), make_batch()
    output = model(tokens, mask)
    assert output.logits.shape == (3, 3)
    assert output.embeddings is not None
    torch.testing.assert_close(output.attention.sum(-1), torch.ones(3))
    context = torch.stack([(a[:, None] * h).sum(0) for a, h in zip(output.attention, output.hidden, strict=True)])
    torch.testing.assert_close(output.context, context, atol=1e-6, rtol=1e-5)
    logits = output.context @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(output.logits, logits, atol=1e-6, rtol=1e-5)
    assert model.attend(output.hidden, output.scores, mask).embeddings is None


def test_attention_can_be_replaced() -> None:
    model, (tokens, mask) = AttentionClassifier(SPEC), make_batch()
    uniform = mask.float() / mask.sum(1, keepdim=True)
    control = AttentionClassifier(SPEC, normalizer=Uniform)
    control.load_state_dict(model.state_dict())
    output = model(tokens, mask, attention=uniform)
    assert torch.equal(output.attention, uniform)
    torch.testing.assert_close(output.logits, control(tokens, mask).logits)


def test_attend_stays_float32_under_autocast() -> None:
    model, (tokens, mask) = AttentionClassifier(SPEC, encoder=CNN), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(tokens, mask)
        half = model.attend(output.hidden.bfloat16(), output.scores.bfloat16(), mask)
    for value in (output.logits, output.attention, output.scores, output.context, half.logits, half.context):
        assert value.dtype == torch.float32
    assert torch.equal(output.logits, model.attend(output.hidden, output.scores, mask).logits)


def test_attend_has_no_dropout_but_the_rest_has() -> None:
    model, (tokens, mask) = AttentionClassifier(SPEC, embedding_dropout=0.5, encoder_dropout=0.5), make_batch()
    model.train()
    output = model(tokens, mask)
    again = model.attend(output.hidden, output.scores, mask)
    assert torch.equal(again.logits, output.logits)
    assert output.embeddings is not None
    assert torch.any(output.embeddings[mask] == 0)
    assert torch.any(output.hidden[mask] == 0)
    assert torch.equal(model.eval()(tokens, mask).logits, model(tokens, mask).logits)


def test_attend_gradients_in_float64() -> None:
    model, (_, mask) = AttentionClassifier(SPEC).double(), make_batch()
    hidden = torch.randn(3, 7, 256, dtype=torch.float64)
    scores = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)

    def logits(scores: Tensor) -> Tensor:
        output = model.attend(hidden, scores, mask)
        assert output.logits.dtype == torch.float64
        return output.logits

    assert torch.autograd.gradcheck(logits, scores)
    assert torch.autograd.gradgradcheck(logits, scores)


def test_initial_word_vectors() -> None:
    weights = torch.randn(20, 6)
    weights[0] = 0
    model = AttentionClassifier(spec(embedding_weights=weights))
    assert torch.equal(model.embedding.weight, weights)
    with torch.no_grad():
        model.embedding.weight += 1
    assert weights[0].eq(0).all(), "the spec's own table must not be trained"
    drawn = AttentionClassifier(spec(vocabulary_size=2000)).embedding.weight
    assert drawn[0].eq(0).all()
    assert drawn[1:].std().item() == pytest.approx(0.1, rel=0.05)


def test_padding_row_gets_no_gradient() -> None:
    model, (tokens, mask) = AttentionClassifier(SPEC), make_batch(extra=2)
    model(tokens, mask).logits.square().sum().backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient[0].eq(0).all()
    assert gradient[tokens[mask]].abs().sum(-1).gt(0).all()


def test_parameter_groups() -> None:
    model = AttentionClassifier(SPEC, freeze_embeddings=True)
    assert [p.requires_grad for p in model.embedding_parameters()] == [False]
    assert {id(p) for p in model.attention_parameters()} == {id(p) for p in model.scorer.parameters()}
    assert all(p.requires_grad for p in model.attention_parameters())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"vocabulary_size": 0}, "vocabulary_size"),
        ({"segment_shape": (2,)}, "segment_shape"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"embedding_weights": torch.zeros(20, 5)}, "shape"),
        ({"embedding_weights": torch.ones(20, 6)}, "row 0"),
    ],
)
def test_unfit_data_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        AttentionClassifier(spec(**changes))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
@pytest.mark.parametrize("name", ["embedding_dropout", "encoder_dropout"])
def test_dropout_rates_are_checked(name: str, rate: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        AttentionClassifier(SPEC, **{name: rate})


class Owner:
    def __init__(self, backbone: Callable[[DataSpec], Backbone] = AttentionClassifier) -> None:
        self.backbone = backbone(SPEC)


def parser() -> ArgumentParser:
    made = ArgumentParser(exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_class_arguments(Owner, "model")
    return made


def test_command_line_builds_it_and_its_configuration_round_trips(tmp_path: Any) -> None:
    arguments = [
        "--model.backbone.encoder=CNN",
        "--model.backbone.encoder.filters=5",
        "--model.backbone.encoder.kernel_sizes=[1,3]",
        "--model.backbone.scorer=ScaledDotScorer",
        "--model.backbone.normalizer=Uniform",
        "--model.backbone.encoder_dropout=0.25",
    ]
    config = parser().parse_args(arguments)
    (tmp_path / "config.yaml").write_text(parser().dump(config))
    again = parser().parse_args(["--config", str(tmp_path / "config.yaml")])
    for parsed in (config, again):
        backbone = parser().instantiate(parsed).model.backbone
        assert isinstance(backbone, AttentionClassifier)
        assert isinstance(backbone.encoder, CNN)
        assert backbone.encoder.output_size == 10
        assert isinstance(backbone.scorer, ScaledDotScorer)
        assert isinstance(backbone.normalizer, Uniform)
        assert backbone.encoder_dropout.p == 0.25


def test_command_line_defaults_and_errors() -> None:
    backbone = parser().instantiate(parser().parse_args([])).model.backbone
    assert isinstance(backbone.encoder, BiLSTM)
    with pytest.raises(ArgumentError, match="filterz"):
        parser().parse_args(["--model.backbone.encoder=CNN", "--model.backbone.encoder.filterz=5"])
