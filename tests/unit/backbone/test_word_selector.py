"""Selector and student: a loop by hand, and what the student cannot see."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.normalizers import TopK
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.backbone.word_selector import Student, WordSelector
from attn_lightning.errors import ConfigurationError
from attn_lightning.optimization.groups import parameter_groups
from attn_lightning.types import DataSpec

SPEC = DataSpec(2, 20, 6, ("a", "b"))
LENGTHS = (7, 4, 2)
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def make_model(**options: Any) -> WordSelector:
    torch.manual_seed(0)
    return WordSelector(SPEC, **{"encoder": partial(BiLSTM, hidden_size=4), "normalizer": partial(TopK, 3), **options})


def make_tokens(seed: int = 1) -> Tensor:
    return torch.randint(1, 20, MASK.shape, generator=torch.Generator().manual_seed(seed)) * MASK


def test_logits_are_those_of_a_loop_over_the_selected_words() -> None:
    model, tokens = make_model(), make_tokens()
    output = model(tokens, MASK)
    states = model.encoder(model.embedding(tokens), MASK)
    scores = model.scorer(states, MASK)
    student = model.classifier
    assert isinstance(student, Student)
    for row, n in enumerate(LENGTHS):
        chosen = sorted(range(n), key=lambda t: -scores[row, t].item())[:3]
        mean = sum(model.embedding.weight[tokens[row, t]] for t in chosen) / len(chosen)
        hidden = torch.clamp(student.hidden.weight @ mean + student.hidden.bias, min=0)
        torch.testing.assert_close(output.logits[row], student.output.weight @ hidden + student.output.bias)
        assert [t for t in range(7) if output.attention[row, t] > 0] == sorted(chosen)
    assert output.hidden.shape == (3, 7, 8 + 6)
    assert not output.hidden[~MASK].any()


def test_the_student_knows_nothing_of_other_words() -> None:
    """With the selection held, another word anywhere else leaves the logits as they are, to the bit."""
    model, tokens = make_model(), make_tokens()
    output = model(tokens, MASK)
    others = torch.where((output.attention > 0) | ~MASK, tokens, (tokens + 3) % 19 + 1)
    assert (others != tokens).any()
    assert torch.equal(model(others, MASK, output.attention.detach()).logits, output.logits)


def test_padding_changes_nothing_and_every_part_learns() -> None:
    model, tokens = make_model(), make_tokens()
    output = model(tokens, MASK)
    wide = torch.nn.functional.pad(tokens, (0, 3)), torch.nn.functional.pad(MASK, (0, 3))
    torch.testing.assert_close(model(*wide).logits, output.logits)
    output.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.named_parameters() if "bias" not in name)


def test_student_and_selector_share_no_parameter_and_are_the_whole_model() -> None:
    model = make_model()
    selector, student = model.attention_parameters(), model.classifier_parameters()
    everything = [id(parameter) for parameter in model.parameters()]
    assert sorted(map(id, [*selector, *student])) == sorted(everything)
    groups = parameter_groups(model, model, 0.1)
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.classifier.parameters()}


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (replace(SPEC, has_question=True), {}),
        (replace(SPEC, vocabulary=tuple("abcdefghijklmnopqrst")), {"encoder": Pretrained}),
        (SPEC, {"student_size": 0}),
    ],
)
def test_what_does_not_fit_is_refused(spec: DataSpec, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="WordSelector"):
        WordSelector(spec, **options)
