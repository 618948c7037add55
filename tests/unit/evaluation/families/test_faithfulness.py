"""The family of faithfulness, against numbers worked out by hand for a linear model and a plain loop for others."""

from math import ceil, exp

import numpy as np
import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.families.faithfulness import Faithfulness
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.types import AttentionOutput, DataSpec
from support.texts import Texts

UNKNOWN = 1


class Linear(Backbone):
    """`p_1 = sigmoid(sum_t a_t v(w_t))`, attention in proportion to a weight per word; the unknown word has value 0."""

    def __init__(self, words):
        super().__init__()
        self.table = torch.tensor([(0.0, 1.0), (0.0, 1.0), *words], dtype=torch.float64)

    def embed(self, tokens):
        return self.table[tokens]

    def encode(self, embeddings, mask):
        return embeddings.masked_fill(~mask.unsqueeze(-1), 0)

    def score(self, hidden, mask):
        return hidden[..., 1].clamp_min(1e-9).log()

    def attend(self, hidden, scores, mask, attention=None):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        logits = torch.stack([torch.zeros_like(context[:, 0]), context[:, 0]], 1)
        return AttentionOutput(logits, weights, scores, hidden, context, mask)


def sigmoid(z):
    return 1 / (1 + exp(-z))


def evidence_of(subject, **explanations):
    texts = subject.examples.texts
    probabilities = [
        subject.model(text[None], torch.ones(1, len(text), dtype=torch.bool)).logits[0].detach().double().softmax(-1)
        for text in texts
    ]
    ragged = {
        name: Ragged(np.concatenate(scores).astype(np.float32), subject.examples.lengths)
        for name, scores in explanations.items()
    }
    return Explained(torch.stack(probabilities).numpy(), np.zeros(len(texts), np.int64), ragged)


def by_key(rows):
    return {(row.metric, row.explainer, *row.setting.values()): row for row in rows}


WORDS = [(2.0, 5.0), (-1.0, 3.0), (-3.0, 2.0), (1.0, 4.0), (-0.5, 1.0)]
"""(value, weight) of the words 2, 3, 4, 5 and 6."""


def hand_run(texts, attention, **options):
    subject = Subject(Linear(WORDS), Texts(texts), 2, erased=UNKNOWN)
    return by_key(Faithfulness(**options).run(subject, evidence_of(subject, attention=attention), no_progress))


def test_a_linear_model_by_hand():
    # Attention .5, .3, .2 on values 2, -1, -3: the margin is 1 - .3 - .6 = .1, so class 1.
    found = hand_run([[2, 3, 4]], [[0.5, 0.3, 0.2]], bins=(0.2, 0.5), top=(1, 2, 5))
    whole = sigmoid(0.1)
    # ceil(.6) = 1: without the first token attention is .6, .4 on -1, -3; with it alone the margin is 2.
    assert found["comprehensiveness", "attention", 0.2].value == pytest.approx(whole - sigmoid(-1.8))
    assert found["sufficiency", "attention", 0.2].value == pytest.approx(whole - sigmoid(2))
    # ceil(1.5) = 2: without two tokens -3 is left; with them attention is 5/8, 3/8 on 2, -1.
    assert found["comprehensiveness", "attention", 0.5].value == pytest.approx(whole - sigmoid(-3))
    assert found["sufficiency", "attention", 0.5].value == pytest.approx(whole - sigmoid(7 / 8))
    losses = [whole - sigmoid(-1.8), whole - sigmoid(-3)]
    assert found["aopc_comprehensiveness", "attention"].value == pytest.approx(sum(losses) / 2)
    assert found["decision_flip", "attention"].value == pytest.approx(1 / 3)
    assert [found["post_hoc_accuracy", "attention", v].value for v in (1, 2, 5)] == [1, 1, 1]


def test_flips_after_two_tokens_and_never_by_hand():
    # Weights 4, 3 on values 1, -1 and 1: 2 without the first, then -0.5 alone.
    found = hand_run([[5, 2, 6], [2, 5]], [[0.9, 0.5, 0.1], [0.9, 0.1]])
    flips = found["decision_flip", "attention"]
    assert flips.value == pytest.approx((2 / 3 + 1) / 2)
    assert flips.n_valid == 2


def test_a_text_of_one_token_becomes_the_unknown_word():
    found = hand_run([[2]], [[0.7]], include_zero=True)
    for fraction in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert found["comprehensiveness", "attention", fraction].value == pytest.approx(sigmoid(2) - 0.5)
        assert found["sufficiency", "attention", fraction].value == pytest.approx(0)
    assert found["decision_flip", "attention"].value == 1
    assert found["aopc_comprehensiveness", "attention"].value == pytest.approx((sigmoid(2) - 0.5) * 5 / 6)
    assert found["aopc_sufficiency", "attention"].value == pytest.approx((sigmoid(2) - 0.5) / 6)


def test_equal_scores_are_erased_in_the_order_of_the_text():
    # Two of four tokens: 2 and 5 go, and attention 3/5, 2/5 on -1, -3 is left.
    found = hand_run([[2, 5, 3, 4]], [[0.25] * 4], bins=(0.5,))
    whole = sigmoid((10 + 4 - 3 - 6) / 14)
    assert found["comprehensiveness", "attention", 0.5].value == pytest.approx(whole - sigmoid(-9 / 5))


def test_soft_scores_of_a_linear_model_by_hand():
    # Scales 1, 1/3, 0: embeddings (and attention weights) shrink together, so 2 * 5 and -1/3 * 1 over 5 + 1 are left.
    found = hand_run([[2, 3, 4]], [[0.5, 0.3, 0.2]])
    whole, nothing = sigmoid(0.1), 0.5
    only = sigmoid((2 * 5 - 1 / 3 * 1) / 6)
    without = sigmoid((-2 / 3 * 2 - 3 * 2) / (2 + 2))
    assert only > whole > nothing > without
    assert found["soft_sufficiency", "attention"].value == pytest.approx(1)
    assert found["soft_comprehensiveness", "attention"].value == pytest.approx(1)
    found = hand_run([[2, 3]], [[0.6, 0.5]])
    whole, without = sigmoid(7 / 8), sigmoid(-1)
    assert found["soft_comprehensiveness", "attention"].value == pytest.approx(1)
    found = hand_run([[2, 5]], [[0.5, 0.5]])
    whole, half = sigmoid(14 / 9), sigmoid(7 / 9)
    assert found["soft_comprehensiveness", "attention"].value == pytest.approx((whole - half) / (whole - 0.5))
    assert found["soft_sufficiency", "attention"].value == pytest.approx((half - 0.5) / (whole - 0.5))


def small_model():
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(3, 20, 6, ("a", "b", "c")))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.embedding.weight.mul_(3)
        model.classifier.bias.zero_()
    return model.eval()


def small_case(order=None, **options):
    generator, draws = torch.Generator().manual_seed(0), np.random.default_rng(0)
    lengths = (5, 1, 12, 3, 7, 2, 9, 30)
    texts = [torch.randint(2, 20, (length,), generator=generator) for length in lengths]
    scores = [draws.normal(size=length) for length in lengths]
    rounded = [values.round() for values in scores]
    partial = [np.where(row % 3 == 0, np.nan, values) for row, values in enumerate(scores)]
    order = range(len(texts)) if order is None else order
    subject = Subject(small_model(), Texts([texts[row] for row in order]), 3, **{"erased": UNKNOWN, **options})
    pick = {"sharp": scores, "tied": rounded, "partial": partial}
    return subject, evidence_of(subject, **{name: [values[r] for r in order] for name, values in pick.items()})


def loop(subject, explained, name, bins, tops, replacement):
    """Every metric of one explanation, one text at a time."""
    model, found = subject.model, {}

    def run(tokens):
        return model(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))

    def probabilities(text, keep):
        keep = torch.tensor([t in keep for t in range(len(text))])
        if replacement == "delete":
            output = run(text[keep] if keep.any() else torch.tensor([UNKNOWN]))
        elif replacement == "unknown":
            output = run(text.where(keep, torch.tensor(UNKNOWN)))
        else:
            whole = run(text)
            nothing = None if keep.any() else torch.zeros(1, len(text))
            output = model.attend(whole.hidden, whole.scores, keep[None] | (not keep.any()), nothing)
        return output.logits[0].detach().double().softmax(-1).numpy()

    for row, text in enumerate(subject.examples.texts):
        scores, predicted = explained.explanations[name][row], int(explained.predicted[row])
        known, n, whole = np.isfinite(scores).all(), len(text), explained.probabilities[row, predicted]
        order = sorted(range(n), key=lambda t: (-scores[t], t)) if known else list(range(n))
        for fraction in bins:
            k = ceil(fraction * n)
            lost = whole - probabilities(text, order[k:])[predicted]
            short = whole - probabilities(text, order[:k])[predicted]
            found.setdefault(("comprehensiveness", name, fraction), []).append(lost if known else np.nan)
            found.setdefault(("sufficiency", name, fraction), []).append(short if known else np.nan)
        for v in tops:
            agrees = float(probabilities(text, order[:v]).argmax() == predicted)
            found.setdefault(("post_hoc_accuracy", name, v), []).append(agrees if known else np.nan)
    return found


@pytest.mark.parametrize("replacement", ["delete", "unknown", "attention"])
def test_equals_a_loop_over_single_texts(replacement):
    subject, explained = small_case()
    bins, tops = (0.01, 0.1, 0.3, 0.5, 1.0), (1, 3, 10)
    rows = Faithfulness(bins, tops, replacement).run(subject, explained, no_progress)
    found = {(row.metric, row.explainer, *list(row.setting.values())[:1]): row for row in rows}
    for name in explained.explanations:
        for key, values in loop(subject, explained, name, bins, tops, replacement).items():
            row, known = found[key], np.array(values)[~np.isnan(values)]
            assert row.value == pytest.approx(known.mean(), abs=1e-6), key
            assert row.std == pytest.approx(known.std(), abs=1e-6), key
            assert (row.n_valid, row.n) == (len(known), 8)
            assert row.setting.get("replacement", "delete") == replacement


def test_budgets_batches_and_order_change_nothing():
    whole, finished = Faithfulness(include_zero=True), []
    expected = whole.run(*small_case(), finished.append)
    assert sum(finished) == 8
    for options in ({"token_budget": 1}, {"batch_size": 2, "token_budget": 64}, {"order": [3, 1, 7, 0, 2, 6, 5, 4]}):
        found = whole.run(*small_case(**options), no_progress)
        assert [(row.metric, row.explainer, row.setting) for row in found] == [
            (row.metric, row.explainer, row.setting) for row in expected
        ]
        for row, other in zip(found, expected, strict=True):
            close = 1e-4 if row.metric.startswith("soft") else 1e-6  # soft scores divide by what may be small
            assert row.value == pytest.approx(other.value, abs=close)
            assert row.std == pytest.approx(other.std, abs=close)
            assert row.n_valid == other.n_valid


def test_every_row_is_declared_and_in_range():
    rows = Faithfulness().run(*small_case(), no_progress)
    assert {row.metric for row in rows} == set(Faithfulness.measures)
    for row in rows:
        measure = Faithfulness.measures[row.metric]
        assert measure.minimum <= row.value <= measure.maximum
        assert row.n_valid <= (5 if row.explainer == "partial" else 8)
    assert min(row.n_valid for row in rows if row.explainer == "partial") >= 2
    flips = {row.explainer: row for row in rows if row.metric == "decision_flip"}
    assert flips["sharp"].value < 1


def test_an_explanation_that_is_known_nowhere_has_no_value():
    subject, explained = small_case()
    nothing = Ragged.empty(subject.examples.lengths)
    rows = Faithfulness().run(
        subject, Explained(explained.probabilities, explained.labels, {"none": nothing}), no_progress
    )
    assert all((row.value, row.std, row.n_valid, row.n) == (None, None, 0, 8) for row in rows)
    assert Faithfulness().run(subject, Explained(explained.probabilities, explained.labels, {}), no_progress) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": ()}, "Expected `bins`"),
        ({"bins": (0.0,)}, "Expected `bins`"),
        ({"bins": (1.5,)}, "Expected `bins`"),
        ({"top": (0,)}, "Expected `top`"),
        ({"replacement": "mask"}, "Expected `replacement`"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Faithfulness(**options)
