"""Tables of a study from what its run folders say."""

import math

import pytest

from attn_lightning.study.controls import LINEAR
from attn_lightning.study.state import CellState
from attn_lightning.study.table import direction, tables, unknown_metrics, value
from attn_lightning.study.writing import note
from support.studies import cell, complete, results, study


def test_means_differences_and_p_values_by_hand():
    found = results([complete(v) for v in (0.5, 0.6, 0.7)], [complete(v) for v in (0.6, 0.8, 0.7)])
    (table,) = tables(study(), found)
    vanilla, iat = table.rows
    assert vanilla.summary.mean == pytest.approx(0.6)
    assert vanilla.summary.std == pytest.approx(0.1)
    assert vanilla.comparison is None
    assert iat.comparison.difference == pytest.approx(0.1)
    # Differences .1, .2, 0: |sum| >= .3 for the signs ++, -- of the first two, whatever the third: 4 of 8.
    assert iat.comparison.p == 0.5
    assert iat.p_holm == 0.5
    assert vanilla.seeds == iat.seeds == "3/3"


def test_holm_goes_over_the_rows_of_a_table():
    methods = ("vanilla", "a", "b")
    values = {"vanilla": 0.0, "a": 1.0, "b": 2.0}
    found = [(cell(m, s), complete(values[m] + s / 10)) for m in methods for s in range(5)]
    (table,) = tables(study(methods, 5), found)
    assert [row.comparison.p for row in table.rows[1:]] == [0.0625, 0.0625]
    assert [row.p_holm for row in table.rows[1:]] == [0.125, 0.125]


def test_failed_missing_and_undefined_runs_are_counted_not_dropped():
    states = [complete(0.5), CellState("failed", {"test": {"test/accuracy": 0.1}}), CellState("missing")]
    (table,) = tables(study(), results(states, [complete(None), complete(0.7), CellState("unfinished")]))
    vanilla, iat = table.rows
    assert vanilla.seeds == "1/3 INCOMPLETE: 1 failed, 1 missing"
    assert iat.seeds == "1/3 INCOMPLETE: 1 missing, 1 undefined"
    assert vanilla.summary.mean == 0.5
    assert math.isnan(vanilla.summary.std)
    assert iat.comparison.n == 0


def test_the_control_is_a_row_of_test_metrics():
    control = {"tfidf_logistic_regression": {"accuracy": 0.8}}
    found = results([complete(0.5, control=control), complete(0.6)], [complete(0.7), complete(0.7)])
    test, gradient, cost = tables(study(metrics=("test/accuracy", "test/gradient_kendall_mean", "cost/x")), found)
    assert [row.method for row in test.rows] == ["vanilla", "iat", LINEAR]
    assert test.rows[-1].summary.mean == 0.8
    assert len(gradient.rows) == len(cost.rows) == 2


def test_the_control_of_a_run_on_files_that_have_changed_since_is_left_out():
    old, new = ({"tfidf_logistic_regression": {"accuracy": accuracy}} for accuracy in (0.8, 0.6))
    changed = CellState("different", complete(0.5, control=old).record)
    (table,) = tables(study(), results([changed, complete(0.6)], [changed, complete(0.7)]))
    assert LINEAR not in [row.method for row in table.rows]
    (table,) = tables(study(), results([changed, complete(0.6, control=new)], [changed, complete(0.7)]))
    assert table.rows[-1].summary.mean == 0.6


def test_where_a_metric_is_found():
    record = {"test": {"test/f1": 0.1}, "best": {"val/f1": 0.2}, "cost": {"fit_seconds": 3.0}}
    assert [value(record, name) for name in ("test/f1", "val/f1", "cost/fit_seconds")] == [0.1, 0.2, 3.0]
    assert math.isnan(value(record, "test/accuracy"))
    assert math.isnan(value({}, "val/accuracy"))


def test_directions():
    assert direction("test/accuracy")[1].startswith("higher")
    assert direction("val/log_loss")[1].startswith("lower")
    assert direction("cost/step_seconds")[1] == "lower"
    assert direction("cost/train_tokens_per_second")[1] == "higher"
    assert direction("test/own_metric") == ("-", "not declared")


def test_a_metric_that_no_run_has_is_reported_with_the_nearest():
    found = results([complete(0.5)], [CellState("missing")])
    (line,) = unknown_metrics(study(metrics=("test/acuracy", "test/accuracy")), found)
    assert "'test/acuracy'" in line
    assert "Did you mean test/accuracy" in line
    assert unknown_metrics(study(metrics=("test/acuracy",)), results([CellState("missing")], [])) == []
    (line,) = unknown_metrics(study(require={"test/acuracy": 0.9}), found)
    assert "'test/acuracy'" in line


def test_runs_that_meet_what_is_required_have_tables_of_their_own():
    require = {"test/accuracy": 0.6}
    asked = study(metrics=("test/accuracy", "test/f1"), require=require)
    vanilla = [CellState("complete", {"test": {"test/accuracy": a, "test/f1": f}}) for a, f in ((0.6, 1), (0.5, 3))]
    iat = [CellState("complete", {"test": {"test/accuracy": a, "test/f1": f}}) for a, f in ((0.7, 2), (0.8, 4), (1, 6))]
    found = tables(asked, results([*vanilla, CellState("failed")], iat))
    assert [table.condition for table in found] == ["", "", "test/accuracy >= 0.6", "test/accuracy >= 0.6"]
    everything, of_those = found[1], found[3]
    assert [row.summary.mean for row in everything.rows] == [2, 4]
    assert [row.summary.mean for row in of_those.rows] == [1, 4]
    assert of_those.rows[0].seeds == "1/3 INCOMPLETE: 1 failed"
    assert of_those.rows[0].left_out == 1
    # Only the first seed meets it with both methods.
    assert (of_those.rows[1].comparison.n, of_those.rows[1].comparison.difference) == (1, 1)
    assert "runs with test/accuracy >= 0.6 alone" in of_those.title


def test_without_a_baseline_nothing_is_compared():
    (table,) = tables(study(baseline=None), results([complete(0.5)], [complete(0.6)]))
    assert all(row.comparison is None for row in table.rows)
    assert "Difference" not in note(study(baseline=None))
    assert "below 0.25" in note(study())
