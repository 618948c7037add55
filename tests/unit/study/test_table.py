"""Tables of a study from what its run folders say."""

import csv
import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.study.configuration import Study, Variant
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import CellState
from attn_lightning.study.table import CONTROL, direction, tables, unknown_metrics, value
from attn_lightning.study.writing import comma_separated, markdown, note, number, overviews, short_names, terminal


def variant(name):
    return Variant(name, name, name, ())


def study(methods=("vanilla", "iat"), seeds=3, metrics=("test/accuracy",), baseline="vanilla", require=()):
    return Study(
        name="tried",
        experiments=Path(),
        methods=tuple(map(variant, methods)),
        data=(variant("planted"),),
        options=(variant(""),),
        seeds=tuple(range(seeds)),
        metrics=metrics,
        baseline=baseline,
        require=dict(require),
    )


def cell(method, seed):
    return Cell(method, "planted", "", seed, Path("x.yaml"), (), f"{method}_planted", False)


def complete(accuracy, **more):
    return CellState("complete", {"test": {"test/accuracy": accuracy}, **more})


def results(vanilla, iat):
    found = [(cell("vanilla", seed), state) for seed, state in enumerate(vanilla)]
    return found + [(cell("iat", seed), state) for seed, state in enumerate(iat)]


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
    assert [row.method for row in test.rows] == ["vanilla", "iat", CONTROL]
    assert test.rows[-1].summary.mean == 0.8
    assert len(gradient.rows) == len(cost.rows) == 2


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


def test_the_same_numbers_in_all_three_forms():
    found = results([complete(v) for v in (0.5, 0.6, 0.7)], [complete(v) for v in (0.6, 0.8, 0.7)])
    shown = tables(study(), found)
    text = markdown(study(), shown, ["A remark."])
    assert "| iat | 3/3 | 0.7000 ± 0.1000 | [0.3850, 1.0000] | +0.1000 | [-0.2150, +0.4150] |" in text
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


def test_the_overview_has_all_metrics_of_the_same_runs_side_by_side():
    control = {"tfidf_logistic_regression": {"accuracy": 0.8}}
    records = [{"test": {"test/accuracy": a, "test/log_loss": a / 2}, "control": control} for a in (0.5, 0.7)]
    states = [CellState("complete", record) for record in records]
    found = tables(study(seeds=2, metrics=("test/accuracy", "test/log_loss")), results(states, states))
    ((title, header, rows),) = overviews(found)
    assert title == "planted"
    assert header == ("method", "seeds", "accuracy ↑", "log_loss ↓")
    assert rows[0] == ("vanilla", "2/2", "0.600 [0.000, 1.000]", "0.300 [0.000, 1.294]")
    assert [row[0] for row in rows] == ["vanilla", "iat", CONTROL]
    assert rows[2] == (CONTROL, "-", "0.800", "-")
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


def test_without_a_baseline_nothing_is_compared():
    (table,) = tables(study(baseline=None), results([complete(0.5)], [complete(0.6)]))
    assert all(row.comparison is None for row in table.rows)
    assert "Difference" not in note(study(baseline=None))
    assert "below 0.25" in note(study())


def test_numbers():
    assert number(math.nan) == "-"
    assert number(0.12345, sign=True) == "+0.1235"
    assert number(12345.67) == "12,345.7"
