"""Families and explainers by name: suites, order, options, and names that nobody knows."""

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.catalog import FAMILIES, SUITES, chosen_explainers, chosen_families


def test_a_suite_and_single_names_give_families_once_in_their_usual_order():
    names = [family.name for family in chosen_families("sparsity, fast,calibration")]
    assert names == [name for name in FAMILIES if name in {*SUITES["fast"], "calibration"}]
    assert [family.name for family in chosen_families("all")] == list(FAMILIES)


def test_options_reach_their_family():
    (family,) = chosen_families("agreement", {"agreement": {"k": 2}, "sparsity": {}})
    assert family.k == 2


def test_attention_comes_first_and_each_explainer_once():
    assert list(chosen_explainers("loo,random,loo")) == ["attention", "loo", "random"]
    assert next(iter(chosen_explainers("all"))) == "attention"


@pytest.mark.parametrize(("choose", "option"), [(chosen_families, "--suite"), (chosen_explainers, "--explainers")])
def test_an_unknown_name_is_refused_with_the_option(choose, option):
    with pytest.raises(ConfigurationError, match=rf"{option}.*'nothing'"):
        choose("nothing")
