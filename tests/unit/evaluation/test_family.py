"""A row is the mean over the examples that have a value, and says how many those are."""

import numpy as np
import pytest

from attn_lightning.evaluation.family import MODEL, Row


def test_a_row_is_the_mean_of_what_is_defined():
    row = Row.of("auprc", "loo", np.array([1.0, np.nan, 0.0, 0.5], np.float32), k=3)
    assert (row.metric, row.explainer, row.setting) == ("auprc", "loo", {"k": 3})
    assert (row.value, row.n_valid, row.n) == (0.5, 3, 4)
    assert row.std == pytest.approx(np.std([1.0, 0.0, 0.5]))


def test_a_row_of_nothing_defined_has_no_value():
    row = Row.of("auprc", MODEL, np.full(2, np.nan))
    assert (row.value, row.std, row.n_valid, row.n) == (None, None, 0, 2)
