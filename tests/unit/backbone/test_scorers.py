"""From hidden states to scores."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.scorers import AdditiveScorer, ScaledDotScorer, Scorer
from attn_lightning.errors import ConfigurationError

SCORERS: list[Callable[[int], Scorer]] = [AdditiveScorer, ScaledDotScorer]
MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])


def test_additive_scorer_equals_its_formula() -> None:
    scorer, hidden = AdditiveScorer(6, attention_size=4), torch.randn(3, 4, 6)
    (vector,) = scorer.vector.weight
    expected = [
        [vector.dot(torch.tanh(scorer.projection.weight @ state + scorer.projection.bias)) for state in row]
        for row in hidden
    ]
    torch.testing.assert_close(scorer(hidden, MASK), torch.stack([torch.stack(row) for row in expected]))


def test_additive_scorer_takes_half_of_the_hidden_size() -> None:
    assert AdditiveScorer(256).projection.out_features == 128
    with pytest.raises(ConfigurationError, match="attention_size"):
        AdditiveScorer(4, attention_size=0)


def test_scaled_dot_scorer_equals_its_formula() -> None:
    scorer, hidden = ScaledDotScorer(9), torch.randn(3, 4, 9)
    torch.testing.assert_close(scorer(hidden, MASK), (hidden * scorer.query.weight[0]).sum(-1) / 3)


@pytest.mark.parametrize("build", SCORERS)
def test_scores_are_float32_under_autocast(build: Callable[[int], Scorer]) -> None:
    scorer, hidden = build(8), torch.randn(3, 4, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer(hidden, MASK)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, scorer(hidden.float(), MASK), atol=0, rtol=0)
    assert scorer.double()(hidden.double(), MASK).dtype == torch.float64


def random_scores() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
