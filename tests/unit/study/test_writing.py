"""The tables of a study as people and spreadsheets read them."""

import csv
import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.study.controls import LINEAR
from attn_lightning.study.state import CellState
from attn_lightning.study.table import tables
from attn_lightning.study.writing import comma_separated, markdown, number, overviews, short_names, terminal
from support.studies import complete, results, study


def test_the_same_numbers_in_all_three_forms():
    found = results([complete(v) for v in (0.5, 0.6, 0.7)], [complete(v) for v in (0.6, 0.8, 0.7)])
    shown = tables(study(), found)
    text = markdown(study(), shown, ["A remark."])
    assert "| iat | 3/3 | 0.7000 ± 0.1000 | [0.3850, 1.0000] | +0.1000 | [-0.1484, +0.3484] |" in text
    assert "| +1.0000 | 0.5000 | 0.5000 | 10 |" in text
    assert text.count(INTERVAL) == 2
    assert "(0..1; better: higher)" in text
    assert "A remark." in text
    rows = list(csv.DictReader(io.StringIO(comma_separated(shown))))
    assert [row["method"] for row in rows] == ["vanilla", "iat"]
    assert float(rows[1]["difference"]) == pytest.approx(0.1)
    assert rows[0]["difference"] == rows[0]["baseline"] == ""
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal(shown[0]))
    assert "0.7000 ± 0.1000" in console.file.getvalue()


def test_brackets_are_no_markup():
    """Settings of a metric and lists among the options of a method stand in brackets."""
    metric = "evaluation/robustness/accuracy_area[where=scores,attack=pgd]"
    record = {"test": {}, "evaluation": {metric: 0.5}}
    (shown,) = tables(study(seeds=1, metrics=(metric,)), results([CellState("complete", record)], []))
    shown = replace(shown, rows=[replace(row, method="cnn,sizes=[3, 5]") for row in shown.rows])
    console = Console(file=io.StringIO(), width=160)
    console.print(terminal(shown))
    printed = console.file.getvalue()
    assert "[where=scores,attack=pgd]" in printed
    assert "cnn,sizes=[3, 5]" in printed


def test_long_labels_are_whole_in_a_narrow_terminal():
    label = "relation,sigma=softmax,weight=0.1,temperature=0.01"
    records = [CellState("complete", {"test": {"test/accuracy": value}}) for value in (0.5, 0.7)]
    (shown,) = tables(study(seeds=2, metrics=("test/accuracy",)), results(records, records))
    console = Console(file=io.StringIO(), width=100)
    console.print(terminal(replace(shown, rows=[replace(row, method=label) for row in shown.rows])))
    column = [line.split("│")[1].strip() for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert "".join(column) == 2 * label


def test_the_overview_has_all_metrics_of_the_same_runs_side_by_side():
    control = {"tfidf_logistic_regression": {"accuracy": 0.8}}
    records = [{"test": {"test/accuracy": a, "test/log_loss": a / 2}, "control": control} for a in (0.5, 0.7)]
    states = [CellState("complete", record) for record in records]
    found = tables(study(seeds=2, metrics=("test/accuracy", "test/log_loss")), results(states, states))
    ((title, header, rows),) = overviews(found)
    assert title == "planted"
    assert header == ("method", "seeds", "accuracy ↑", "log_loss ↓")
    assert rows[0] == ("vanilla", "2/2", "0.600 [0.000, 1.000]", "0.300 [0.000, 1.294]")
    assert [row[0] for row in rows] == ["vanilla", "iat", LINEAR]
    assert rows[2] == (LINEAR, "-", "0.800", "-")
    assert "| vanilla | 2/2 | 0.600 [0.000, 1.000] | 0.300 [0.000, 1.294] |" in markdown(study(), found, [])


def test_the_overview_marks_what_differs_from_the_baseline():
    few = results([complete(0.1 * s) for s in range(6)], [complete(0.1 * s + 0.5) for s in range(6)])
    ((_, _, rows),) = overviews(tables(study(seeds=6), few))
    assert [row[2].endswith(" *") for row in rows] == [False, True]


def test_short_names_stay_distinct():
    loo, gradient = "evaluation/agreement/loo/kendall", "evaluation/agreement/gradient/kendall"
    assert short_names([loo, "test/accuracy"]) == ["kendall ↑", "accuracy ↑"]
    assert short_names([loo, gradient]) == ["loo/kendall ↑", "gradient/kendall ↑"]
    assert short_names([loo, f"{loo}[with=gradient]"]) == ["kendall ↑", "kendall[with=gradient] ↑"]


def test_one_seed_has_no_interval():
    (table,) = tables(study(seeds=1), results([complete(0.5)], [complete(0.6)]))
    text = markdown(study(seeds=1), [table], [])
    assert "| iat | 1/1 | 0.6000 | - | +0.1000 | - | - | - | - |" in text


def test_numbers():
    assert number(math.nan) == "-"
    assert number(0.12345, sign=True) == "+0.1235"
    assert number(12345.67) == "12,345.7"


@pytest.mark.parametrize(
    ("value", "sign", "shown"), [(-0.00004, False, "0.0000"), (-0.00004, True, "+0.0000"), (-0.00006, True, "-0.0001")]
)
def test_what_rounds_to_zero_has_no_minus(value, sign, shown):
    assert number(value, sign) == shown
