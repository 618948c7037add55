"""Controls, and what comes with the clean pass: against plain loops and the explainers one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.backbone.importance import importances
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.explainers.controls import Inverted, Random, Rationale, Uniform
from attn_lightning.evaluation.explainers.gradients import NATIVE, Attention, native_explanations
from attn_lightning.evaluation.subject import Subject, no_progress
from attn_lightning.types import Batch, DataSpec

ENCODERS = {"lstm": BiLSTM, "cnn": CNN, "average": Average}
LENGTHS = (5, 1, 7, 3, 7, 2)
CHEAP = {"ig": {"steps": 4}, "lime": {"samples": 20}, "shap": {"samples": 128}}


class Texts:
    """A split in memory, every third text without a rationale."""

    def __init__(self, lengths=LENGTHS, has_rationales=True, order=None):
        generator = torch.Generator().manual_seed(0)
        texts = [torch.randint(2, 20, (length,), generator=generator) for length in lengths]
        self.order = list(range(len(lengths))) if order is None else list(order)
        self.texts = [texts[row] for row in self.order]
        self.lengths = np.array(lengths)[self.order]
        self.has_rationales = has_rationales

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, rows):
        tokens = nn.utils.rnn.pad_sequence([self.texts[row] for row in rows], batch_first=True)
        originals = torch.tensor([self.order[row] for row in rows])
        marks = {}
        if self.has_rationales:
            has = originals % 3 != 0
            marks = {"rationale": (tokens % 2 == 1) & has.unsqueeze(1), "has_rationale": has}
        return Batch(tokens, tokens > 0, originals % 3 - 1, torch.tensor(rows), **marks)


def small_model(encoder="lstm"):
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(3, 20, 6, ("no", "maybe", "yes")), encoder=ENCODERS[encoder])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def subject(encoder="lstm", texts=None, **options):
    return Subject(small_model(encoder), texts or Texts(), 3, erased=1, **options)


def alone(examined, row):
    """The output for one text without padding."""
    tokens = examined.examples.texts[row].unsqueeze(0)
    with torch.no_grad():
        return examined.model(tokens, torch.ones_like(tokens, dtype=torch.bool))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_clean_pass_equals_every_text_alone(encoder):
    examined = subject(encoder)
    probabilities, labels, found = native_explanations(examined, ["attention", "inverted", "hidden"], no_progress)
    assert probabilities.dtype == np.float64
    np.testing.assert_array_equal(labels, [-1, 0, 1, -1, 0, 1])
    assert list(found) == ["attention", "inverted", "hidden"]
    for row in range(6):
        output = alone(examined, row)
        attention = output.attention[0].numpy()
        np.testing.assert_allclose(probabilities[row], output.logits[0].softmax(0).numpy(), atol=1e-6)
        np.testing.assert_allclose(found["attention"][row], attention, atol=1e-6)
        np.testing.assert_allclose(found["inverted"][row], attention.max() + attention.min() - attention, atol=1e-6)


def test_together_and_alone_all_native_explainers_give_the_same():
    examined, known, finished = subject(), explainers(), []
    _, _, found = native_explanations(examined, sorted(NATIVE), finished.append)
    assert sum(finished) == 6
    for name in NATIVE:
        np.testing.assert_allclose(found[name].values, known[name]().explain(examined, no_progress).values, atol=1e-6)
        assert np.isfinite(found[name].values).all()


def test_gradients_are_those_of_importances():
    examined = subject()
    _, _, found = native_explanations(examined, ["gradient_x_input", "gradient", "hidden"], no_progress)
    kinds = {"gradient": "gradient", "gradient_x_input": "gradient_full", "hidden": "hidden"}
    for row, text in enumerate(examined.examples.texts):
        batch = Batch(text[None], torch.ones(1, len(text), dtype=torch.bool), torch.zeros(1), torch.zeros(1))
        _, expected = importances(examined.model, batch, tuple(kinds.values()))
        for name, kind in kinds.items():
            np.testing.assert_allclose(found[name][row], expected[kind][0].numpy(), atol=1e-6)
            assert found[name][row].max() > 0


def test_one_run_of_the_encoder_serves_all_and_attention_needs_no_autograd():
    examined, modes = subject(), []
    examined.model.encoder.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    native_explanations(examined, sorted(NATIVE), no_progress)
    assert modes == [True]
    native_explanations(examined, ["attention", "inverted"], no_progress)
    assert modes == [True, False]
    examined.model.train()
    native_explanations(examined, ["attention"], no_progress)
    assert examined.model.training


def test_an_unknown_native_explainer_is_refused():
    with pytest.raises(ConfigurationError, match=r"gradient.*'loo'"):
        native_explanations(subject(), ["attention", "loo"], no_progress)


@pytest.mark.parametrize("name", sorted(explainers()))
@pytest.mark.parametrize(("batch_size", "token_budget"), [(1, 2**16), (4, 10), (3, 2**16)])
def test_no_explainer_depends_on_batches(name, batch_size, token_budget):
    explainer = explainers()[name](**CHEAP.get(name, {}))
    expected = explainer.explain(subject(), no_progress)
    finished = []
    found = explainer.explain(subject(batch_size=batch_size, token_budget=token_budget), finished.append)
    assert sum(finished) == 6
    np.testing.assert_array_equal(found.lengths, LENGTHS)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.values), np.isnan(expected.values))


@pytest.mark.parametrize("name", sorted(set(explainers()) - {"random", "lime"}))
def test_the_order_of_the_texts_changes_no_explanation_that_is_not_drawn(name):
    explainer, order = explainers()[name](**CHEAP.get(name, {})), [3, 0, 5, 1, 4, 2]
    expected = explainer.explain(subject(), no_progress)
    found = explainer.explain(subject(texts=Texts(order=order)), no_progress)
    for row, original in enumerate(order):
        np.testing.assert_allclose(found[row], expected[original], atol=1e-5)


def test_the_names_are_those_of_the_classes_in_the_order_of_the_tables():
    known = explainers()
    assert list(known)[:2] == ["attention", "gradient"]
    assert {"ig", "loo", "lime", "shap", "hidden", "gradient_x_input", "rationale"} < set(known)
    assert all(issubclass(explainer, Explainer) and explainer.name == name for name, explainer in known.items())
    assert {name for name, explainer in known.items() if explainer.is_control} == {
        "random",
        "uniform",
        "inverted",
    }


def test_random_is_uniform_and_depends_on_the_seed_alone():
    texts = Texts(lengths=(9,) * 400)
    values = Random().explain(subject(texts=texts), no_progress).values
    assert 0 <= values.min() <= values.max() < 1
    np.testing.assert_allclose(np.quantile(values, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    np.testing.assert_array_equal(values, Random().explain(subject("cnn", texts), no_progress).values)
    other = Random().explain(subject(texts=texts, seed=1), no_progress).values
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.05


def test_uniform_shares_one_among_the_tokens():
    found = Uniform().explain(subject(), no_progress)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(found[row], np.full(length, 1 / length))


def test_inverted_turns_the_order_of_attention_around():
    examined = subject()
    inverted = Inverted().explain(examined, no_progress)
    attention = Attention().explain(examined, no_progress)
    for row in range(6):
        np.testing.assert_array_equal(np.argsort(inverted[row]), np.argsort(-attention[row]))
        assert inverted[row].min() == pytest.approx(attention[row].min(), abs=1e-6)
    assert inverted[1] == attention[1] == 1.0


def test_the_rationale_is_0_and_1_and_nan_where_there_is_none():
    examined = subject()
    found = Rationale().explain(examined, no_progress)
    for row, text in enumerate(examined.examples.texts):
        expected = np.full(len(text), np.nan) if row % 3 == 0 else (text % 2 == 1).float().numpy()
        np.testing.assert_array_equal(found[row], expected)


def test_the_rationale_is_unavailable_without_rationales_and_nothing_else_is():
    without = subject(texts=Texts(has_rationales=False))
    for name, explainer in explainers().items():
        assert explainer().unavailable(subject()) is None
        reason = explainer().unavailable(without)
        assert reason == ("the data has no rationales" if name == "rationale" else None)
