"""Controls, against plain loops."""

import numpy as np
import pytest

from attn_lightning.evaluation.explainers.controls import Inverted, Random, Rationale, Uniform
from attn_lightning.evaluation.explainers.gradients import Attention
from attn_lightning.evaluation.subject import no_progress
from support.explained import LENGTHS, Texts, subject


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
