"""Names of results, and the one declaration behind each of them."""

import ast
import json
from pathlib import Path

import pytest

import attn_lightning
from attn_lightning.callbacks.cost import COSTS
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.catalog import FAMILIES
from attn_lightning.evaluation.family import MODEL, Row
from attn_lightning.evaluation.naming import declared, flat_name, logged_name, monitor_mode, monitored, split_measures
from attn_lightning.metrics import agreement, faithfulness, plausibility, sparsity
from attn_lightning.study.table import direction

PACKAGE = Path(attn_lightning.__file__).parent


def row(metric, explainer=MODEL, **setting):
    return Row(metric, explainer, 1.0, None, 1, 1, setting)


def test_names_of_a_row():
    assert flat_name("f", row("high", "attention")) == "f/attention/high"
    assert flat_name("f", row("high", epsilon=0.5, attack="pgd")) == "f/high[epsilon=0.5,attack=pgd]"
    assert logged_name("f", row("high", "attention")) == "f_high"
    assert logged_name("f", row("high", fraction=0.2)) == "f_high_fraction_0.2"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_metric_of_a_family_is_declared_under_each_of_its_names(family):
    for name, measure in family.measures.items():
        assert measure.name == name
        assert measure.meaning
        assert measure.minimum < measure.maximum
        for found in (row(name, "attention"), row(name, fraction=0.2, where="scores")):
            assert declared(f"evaluation/{flat_name(family.name, found)}") is measure
            assert declared(f"val/{logged_name(family.name, found)}") is measure
    assert family.uncontrolled <= set(family.measures)


def test_every_metric_of_a_finished_run_is_declared(finished):
    record = json.loads((finished / "metrics.json").read_text("utf-8"))
    names = {*record["test"], *record["evaluation"], *record["history"][-1]} - {"epoch"}
    costs = {f"cost/{name}" for name in record["cost"]}
    assert {f"cost/{name}" for name in COSTS} == costs
    # The terms of a method are its own affair: what they mean stands in its docstring.
    own = {name for name in names if name.startswith("train/attention_ivat")}
    unknown = [name for name in (names - own) | costs if direction(name) == ("-", "not declared")]
    assert not unknown
    assert {"test/accuracy", "val/hidden_pearson_std", "train/task"} < names


@pytest.mark.parametrize(
    ("family", "table"),
    [("agreement", agreement), ("faithfulness", faithfulness), ("plausibility", plausibility), ("sparsity", sparsity)],
)
def test_a_family_reports_the_whole_table_of_its_formulas(family, table):
    """So a metric is added in one file, and tested in another."""
    assert list(FAMILIES[family].measures.values()) == list(table.MEASURES)


def test_metrics_are_declared_beside_their_formulas_only():
    """A table, a family or a study that declared a metric again could disagree with the formula."""
    calls = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Measure"
    ]
    elsewhere = {path for path in calls if not path.startswith("metrics/")}
    assert elsewhere == {
        "callbacks/cost.py",
        "measurements.py",
        "evaluation/attention_tests.py",
        "evaluation/shortcut_probe.py",
    }


def test_a_quantity_has_one_direction_wherever_it_is_reported():
    names = ["test/ftpf", "val/ftpf", "evaluation/selective/attention/ftpf"]
    assert {declared(name).better for name in names} == {"lower"}
    everything = [*split_measures().values(), *(of for family in FAMILIES.values() for of in family.measures.values())]
    directions = {}
    for measure in everything:
        directions.setdefault(measure.name, set()).add((measure.span, measure.better))
    assert {name for name, found in directions.items() if len(found) > 1} == set()


@pytest.mark.parametrize("name", ["test/mine", "evaluation/none/attention/kendall", "evaluation/agreement/x", "mine"])
def test_what_is_not_declared_is_none(name):
    assert declared(name) is None
    assert direction(name) == ("-", "not declared")


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val/accuracy", "max"),
        ("val/log_loss", "min"),
        ("val/ece", "min"),
        ("val/gradient_kendall_mean", "max"),
        ("val/faithfulness_aopc_sufficiency", "min"),
        ("val/plausibility_auprc", "max"),
        ("train/loss", "min"),
        ("epoch", "max"),
    ],
)
def test_the_best_epoch_is_chosen_in_the_declared_direction(metric, expected):
    assert monitor_mode(metric) == expected
    assert monitor_mode(metric, "min") == "min"
    assert monitor_mode(metric, "max") == "max"


@pytest.mark.parametrize("metric", ["val/mine", "val/gradient_kendall_std", "val/acuracy", "train/attention_at"])
def test_without_a_declared_direction_the_user_must_say_it(metric):
    with pytest.raises(ConfigurationError, match=rf"'{metric}'.*--run.monitor_mode"):
        monitor_mode(metric)
    assert monitor_mode(metric, "min") == "min"


def test_help_names_what_can_be_monitored_and_what_is_measured(cli):
    shown = " ".join(cli("fit", "--help").out.split())
    for name in ("val/accuracy (higher)", "val/log_loss (lower)", "val/ftpf (lower)"):
        assert name in monitored()
        assert name in shown
    shown = " ".join(cli("evaluate", "--help").out.split())
    for family in FAMILIES.values():
        for measure in family.measures.values():
            assert measure.line in shown


def test_a_misspelled_metric_comes_with_the_nearest():
    with pytest.raises(ConfigurationError, match="Did you mean val/accuracy"):
        monitor_mode("val/acuracy")
