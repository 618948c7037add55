"""All explainers by name: none depends on batches or the order of the texts."""

import numpy as np
import pytest

from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.subject import no_progress
from support.explained import LENGTHS, Texts, subject

INSIDE = {"rollout", "transformer"}
CHEAP = {"ig": {"steps": 4}, "lime": {"samples": 20}, "shap": {"samples": 128}}


@pytest.mark.parametrize("name", sorted(explainers()))
@pytest.mark.parametrize(("batch_size", "token_budget"), [(1, 2**16), (4, 10), (3, 2**16)])
def test_no_explainer_depends_on_batches(name, batch_size, token_budget):
    explainer, encoder = explainers()[name](**CHEAP.get(name, {})), "transformer" if name in INSIDE else "lstm"
    expected = explainer.explain(subject(encoder), no_progress)
    finished = []
    found = explainer.explain(subject(encoder, batch_size=batch_size, token_budget=token_budget), finished.append)
    assert sum(finished) == 6
    np.testing.assert_array_equal(found.lengths, LENGTHS)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(found.values), np.isnan(expected.values))


@pytest.mark.parametrize("name", sorted(set(explainers()) - {"random", "lime"}))
def test_the_order_of_the_texts_changes_no_explanation_that_is_not_drawn(name):
    explainer, order = explainers()[name](**CHEAP.get(name, {})), [3, 0, 5, 1, 4, 2]
    encoder = "transformer" if name in INSIDE else "lstm"
    expected = explainer.explain(subject(encoder), no_progress)
    found = explainer.explain(subject(encoder, texts=Texts(order=order)), no_progress)
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


def test_the_rationale_is_unavailable_without_rationales_and_nothing_else_is():
    for name, explainer in explainers().items():
        encoder = "transformer" if name in INSIDE else "lstm"
        without = subject(encoder, texts=Texts(has_rationales=False))
        assert explainer().unavailable(subject(encoder)) is None
        reason = explainer().unavailable(without)
        assert reason == ("the data has no rationales" if name == "rationale" else None)
