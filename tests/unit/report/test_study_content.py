"""What the page carries of studies."""

import json
from dataclasses import replace

import pytest

from attn_lightning.report.blocks import Blocks
from attn_lightning.report.study_content import study_content, study_tables
from attn_lightning.report.study_data import read_study_folder

POINT = "evaluation/robustness/accuracy[where=scores,attack=random,target=none,epsilon={}]"


@pytest.fixture
def data(make_run, tmp_path):
    for method, gain in (("vanilla", 0.0), ("ivat", 0.1)):
        for seed in range(3):
            curve = {POINT.format(epsilon): 0.9 - epsilon * (seed + 1) / 10 for epsilon in (0.5, 1.0)}
            make_run(
                f"{method}_mine",
                f"seed_{seed}",
                seed=seed,
                accuracy=0.7 + gain + seed / 100,
                evaluation=curve,
                texts=None,
            )
    return read_study_folder(tmp_path / "runs")


def test_tables_hold_every_run(data):
    content = study_content(data, study_tables(data), Blocks())
    json.dumps(content, allow_nan=False)
    accuracy = content["tables"][0]
    rows = {row["method"]: row for row in accuracy["rows"]}
    assert accuracy["metric"] == "test/accuracy"
    assert rows["ivat"]["values"] == {str(seed): pytest.approx(0.8 + seed / 100) for seed in range(3)}
    assert rows["ivat"]["comparison"]["difference"] == pytest.approx(0.1)
    assert rows["ivat"]["comparison"]["pairs"] == 3
    assert rows["ivat"]["cost"] == pytest.approx(3.0)
    assert rows["vanilla"]["comparison"] is None
    assert rows["TF-IDF linear (control)"]["control"]
    assert rows["TF-IDF linear (control)"]["mean"] == pytest.approx(0.6)


def test_curves_of_robustness_and_of_learning(data):
    content = study_content(data, study_tables(data), Blocks())
    (panel,) = content["curves"]
    assert [line["method"] for line in panel["lines"]] == ["ivat", "vanilla"]
    assert panel["lines"][0]["x"] == [0.5, 1.0]
    assert panel["lines"][0]["runs"][1] == [pytest.approx(0.8), pytest.approx(0.7)]
    assert len(content["histories"]) == 6


def test_tables_of_other_metrics(data):
    assert [table.metric for table in study_tables(data, ["cost/fit_seconds"])] == ["cost/fit_seconds"]
    assert len(study_tables(data)) > 1


def test_only_runs_that_meet_the_condition_are_dots_of_its_table(data):
    required = replace(data, study=replace(data.study, require={"test/accuracy": 0.715}))
    content = study_content(required, study_tables(required), Blocks())
    (table,) = [t for t in content["tables"] if t["condition"] and t["metric"] == "test/accuracy"]
    assert {row["method"]: list(row["values"]) for row in table["rows"]} == {"ivat": ["0", "1", "2"], "vanilla": ["2"]}


def test_the_time_of_a_study_is_named_without_a_unit(data):
    assert study_content(data, study_tables(data), Blocks())["time"] == "Time of fitting"
