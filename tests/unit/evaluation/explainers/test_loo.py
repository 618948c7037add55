"""Leave-one-out, against a plain loop that deletes one token of one text at a time."""

import numpy as np
import pytest
import torch

from attn_lightning.backbone.encoders import CNN, Average, BiLSTM
from attn_lightning.evaluation.explainers.loo import LeaveOneOut
from attn_lightning.evaluation.subject import Subject, no_progress
from support.texts import Texts, random_texts, small_model

ENCODERS = {"lstm": BiLSTM, "cnn": CNN, "average": Average}
UNKNOWN = 1
LENGTHS = (5, 1, 9, 3, 2, 7)


def by_hand(model, text):
    def probabilities(tokens):
        tokens = tokens if len(tokens) else torch.tensor([UNKNOWN])
        return model(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool)).logits[0].detach().double().softmax(-1)

    whole = probabilities(text)
    without = [probabilities(torch.cat([text[:t], text[t + 1 :]])) for t in range(len(text))]
    return [float((whole - other).abs().sum()) / 2 for other in without]


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_equals_one_deletion_at_a_time(encoder, num_classes):
    model, texts = small_model(ENCODERS[encoder], num_classes), random_texts(LENGTHS)
    found = LeaveOneOut().explain(Subject(model, texts, num_classes, erased=UNKNOWN), no_progress)
    for row, text in enumerate(texts.texts):
        expected = by_hand(model, text)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
        assert max(expected) > 1e-3


@pytest.mark.parametrize(("batch_size", "token_budget"), [(1, 1), (2, 10), (4, 16), (128, 2**16)])
def test_batches_and_budgets_change_nothing(batch_size, token_budget):
    model, texts, finished = small_model(), random_texts(LENGTHS), []
    expected = LeaveOneOut().explain(Subject(model, texts, 3, erased=UNKNOWN), no_progress)
    subject = Subject(model, texts, 3, erased=UNKNOWN, batch_size=batch_size, token_budget=token_budget)
    found = LeaveOneOut().explain(subject, finished.append)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    assert sum(finished) == len(texts)


def test_the_order_of_the_split_changes_nothing():
    model, texts, order = small_model(), random_texts(LENGTHS), [3, 0, 5, 1, 4, 2]
    expected = LeaveOneOut().explain(Subject(model, texts, 3, erased=UNKNOWN), no_progress)
    turned = Texts([texts.texts[row] for row in order])
    found = LeaveOneOut().explain(Subject(model, turned, 3, erased=UNKNOWN), no_progress)
    for place, row in enumerate(order):
        np.testing.assert_allclose(found[place], expected[row], atol=1e-6)


@pytest.mark.parametrize("encoder", ["lstm", "cnn"])
def test_no_pass_has_more_tokens_than_the_budget(encoder):
    model, texts, sizes = small_model(ENCODERS[encoder]), random_texts([12] * 30), []
    model.scorer.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    LeaveOneOut().explain(Subject(model, texts, 3, erased=UNKNOWN, token_budget=200), no_progress)
    assert max(sizes) <= 200
    assert len(sizes) < 360 / 12
