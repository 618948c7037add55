"""Names of metrics: the field's, for every key that runs record."""

import pytest

from attn_lightning.evaluation.catalog import FAMILIES
from attn_lightning.report.names import metric_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("test/accuracy", "Accuracy"),
        ("val/accuracy", "Accuracy (validation)"),
        ("test/gradient_kendall_mean", "Kendall's τ, attention to gradient"),
        ("test/evidence_mass_mean", "Attention mass on the evidence"),
        ("evaluation/agreement/gradient/kendall", "Kendall's τ, attention to gradient"),
        ("evaluation/agreement/loo/top_k_overlap[k=5]", "Top-k overlap, attention to loo, k 5"),
        ("evaluation/faithfulness/attention/aopc_comprehensiveness", "Comprehensiveness (AOPC)"),
        ("evaluation/faithfulness/gradient/sufficiency[fraction=0.2]", "Sufficiency, gradient, fraction 0.2"),
        ("evaluation/robustness/accuracy[where=scores,epsilon=1.0]", "Accuracy, where scores, epsilon 1.0"),
        ("cost/train_tokens_per_second", "Training speed (tokens/s)"),
        ("test/something_new", "something new"),
        ("no key", "no key"),
    ],
)
def test_keys_become_names(key, name):
    assert metric_name(key).name == name


def test_directions_have_arrows():
    assert metric_name("test/accuracy").arrow == "↑"
    assert metric_name("test/log_loss").arrow == "↓"
    assert metric_name("evaluation/sparsity/attention/entropy").arrow == ""
    assert metric_name("cost/fit_seconds").higher_is_better is False
    assert metric_name("cost/train_tokens_per_second").higher_is_better is True
    assert metric_name("test/unknown").higher_is_better is None


@pytest.mark.parametrize(("family", "measure"), [(name, m) for name, f in FAMILIES.items() for m in f.measures])
def test_every_measure_of_an_evaluation_has_a_range(family, measure):
    found = metric_name(f"evaluation/{family}/attention/{measure}")
    assert ".." in found.range
    assert found.better in ("higher", "lower", "-")
