"""The contract of explainers: scores per batch become one number per token, and progress counts every example."""

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.subject import Subject, no_progress
from support.texts import random_texts


class Words(Explainer):
    name = "words"

    def scores(self, subject, batch):
        return batch.tokens.double()


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_scores_of_batches_land_in_their_rows(batch_size):
    texts, finished = random_texts((5, 1, 7, 3)), []
    found = Words().explain(Subject(nn.Identity(), texts, 2, batch_size=batch_size), finished.append)
    for row, text in enumerate(texts.texts):
        np.testing.assert_array_equal(found[row], text.numpy())
    assert sum(finished) == 4


def test_an_explainer_is_available_and_no_control_unless_it_says_so():
    subject = Subject(nn.Identity(), random_texts((2,)), 2)
    assert Words().unavailable(subject) is None
    assert not Words.is_control
    with pytest.raises(NotImplementedError):
        Explainer().explain(subject, no_progress)
    assert torch.equal(Words().scores(subject, subject.examples[[0]]), subject.examples[[0]].tokens.double())
