"""Tables of an evaluation: what beats what, names of the results, text that is safe to print."""

import io
import json
from typing import ClassVar

import numpy as np
from rich.console import Console

from attn_lightning.evaluation.families.faithfulness import Faithfulness
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.naming import flat_name
from attn_lightning.evaluation.results import print_tables
from attn_lightning.evaluation.suite import Findings
from attn_lightning.evaluation.summary import Summary, summary_markdown
from attn_lightning.metrics.measure import Measure, by_name


class Judged(Family):
    """One metric where more is better, one where less is, one without direction."""

    name = "judged"
    heading = "How good explanations are"
    measures: ClassVar = by_name(
        (
            Measure("high", "how high"),
            Measure("low", "how low", -1.0, 1.0, higher_is_better=False, unit="nats"),
            Measure("size", "how large", 0.0, float("inf"), higher_is_better=None),
            Measure("accuracy", "share of right predictions"),
            Measure("accuracy_area", "mean of it"),
            Measure("shared", "the same whatever an explanation names"),
        )
    )
    uncontrolled = frozenset({"shared"})


def row(metric, explainer, value, **setting):
    return Row(metric, explainer, value, 0.1, 9, 10, setting)


def summary(rows, untrained=(), linear=None):
    return Summary(
        [Judged()],
        Findings({"judged": list(rows)}, {"explainer x": "no \x1b[31m"}),
        Findings({"judged": list(untrained)}),
        linear or {},
        ("random", "uniform", "inverted"),
    )


def test_a_control_that_is_as_good_is_named():
    rows = [
        row("high", "attention", 0.5, k=1),
        row("high", "random", 0.5, k=1),
        row("high", "uniform", 0.4, k=1),
        row("high", "random", 0.9, k=2),
        row("low", "attention", 0.5),
        row("low", "inverted", 0.6),
        row("low", "random", 0.2),
        row("size", "attention", 1.0),
        row("size", "random", 2.0),
        row("shared", "attention", 0.5),
        row("shared", "random", 0.5),
    ]
    found = summary(rows, untrained=[row("high", "attention", 0.7, k=1), row("low", "attention", 0.9)])
    marks = {(r.metric, r.explainer, *r.setting.values()): found.beaten_by(Judged(), r) for r in rows}
    assert marks == {
        ("high", "attention", 1): ["random", "untrained"],
        ("high", "random", 1): [],
        ("high", "uniform", 1): [],
        ("high", "random", 2): [],
        ("low", "attention"): ["random"],
        ("low", "inverted"): [],
        ("low", "random"): [],
        ("size", "attention"): [],
        ("size", "random"): [],
        ("shared", "attention"): [],
        ("shared", "random"): [],
    }


def test_a_model_without_training_is_no_rival_where_a_flat_prediction_wins():
    """Sufficiency and post-hoc accuracy are perfect where the prediction does not depend on the text."""
    suffices, tells = row("aopc_sufficiency", "attention", 0.2), row("aopc_comprehensiveness", "attention", 0.2)
    control, flat = row("aopc_sufficiency", "random", 0.1), row("aopc_sufficiency", "attention", 0.0)
    rows, untrained = [suffices, tells, control], [flat, row("aopc_comprehensiveness", "attention", 0.3)]
    family = Faithfulness()
    found = Summary([family], Findings({family.name: rows}), Findings({family.name: untrained}), {}, ("random",))
    assert found.beaten_by(family, suffices) == ["random"]
    assert found.beaten_by(family, tells) == ["untrained"]
    assert not found.beaten_by(family, row("post_hoc_accuracy", "attention", 0.5))
    # It is shown beside the others all the same.
    assert found.rivals(family, suffices)["untrained"] == 0.0
    assert Faithfulness.free_untrained <= Faithfulness.measures.keys()


def test_the_best_possible_value_is_beaten_by_nothing():
    rows = [row("high", "attention", 1.0), row("high", "random", 1.0), row("low", "attention", -1.0)]
    rows.append(row("low", "random", -1.0))
    assert [summary(rows).beaten_by(Judged(), found) for found in rows] == [[], [], [], []]


def test_a_linear_model_is_a_control_of_predictions():
    rows = [row("accuracy", MODEL, 0.8)]
    assert summary(rows, linear={"accuracy": 0.81}).beaten_by(Judged(), rows[0]) == ["TF-IDF linear"]
    assert summary(rows, linear={"accuracy": 0.79}).beaten_by(Judged(), rows[0]) == []


def test_names_of_results():
    assert flat_name("f", row("high", "attention", 1.0)) == "f/attention/high"
    assert flat_name("f", row("high", MODEL, 1.0, epsilon=0.5, attack="pgd")) == "f/high[epsilon=0.5,attack=pgd]"
    found = summary([row("high", "attention", 0.5), row("low", "attention", None)])
    assert found.flat() == {"judged/attention/high": 0.5, "judged/attention/low": None}


def test_the_summary_is_json_without_infinities():
    content = json.dumps(summary([row("size", "attention", np.float64(1.5))]).to_json(), allow_nan=False)
    stored = json.loads(content)["families"]["judged"]
    assert stored["measures"]["size"]["maximum"] is None
    assert stored["rows"][0]["value"] == 1.5
    assert stored["rows"][0]["beaten_by"] == []


def shown(found):
    out = io.StringIO()
    print_tables({}, found, True, Console(file=out, width=200))
    return out.getvalue()


def test_tables_show_range_direction_marks_and_what_was_skipped():
    rows = [row("high", "random", 0.6), row("high", "attention", 0.5), row("low", "attention", -0.25, k=3)]
    text = shown(summary(rows, untrained=[row("high", "attention", 0.1)]))
    lines = [line for line in text.splitlines() if "high" in line and "0.5000" in line]
    assert len(lines) == 1
    cells = [cell.strip() for cell in lines[0].strip("│").split("│")]
    assert cells == ["high", "0.5000†", "0.6000", "0.1000", "9", "0..1", "higher"]
    assert "low k=3" in text
    assert "-1..1, nats" in text
    assert "explainer x: no " in text
    assert "\x1b" not in text
    assert "† a control in the same row is as good or better (random)" in text


def test_the_note_stands_below_the_table_whose_marks_it_explains():
    marked = summary([row("high", "random", 0.6), row("high", "attention", 0.5)])
    plain = summary([row("high", "random", 0.4), row("high", "attention", 0.5)])
    lines = [line.strip() for line in shown(marked).splitlines()]
    assert lines[lines.index(next(line for line in lines if line.startswith("└"))) + 1].startswith("†")
    assert "†" not in shown(plain)


def test_markdown_has_every_table_and_what_each_metric_means():
    text = summary_markdown(summary([row("high", "attention", 0.5), row("low", "attention", 0.25, k=3)]), "best: 10")
    assert text.startswith("# best: 10\n")
    assert "| high | 0.5000 | 9 | 0..1 | higher |" in text
    assert "| low k=3 | 0.2500 | 9 | -1..1, nats | lower |" in text
    assert "| judged/size | how large | 0.. | - |" in text
    assert "Not measured: explainer x: no  [31m" in text


def test_curves_lie_on_their_side():
    strengths = (10.0, 0.5, 2.0)
    rows = [row("accuracy_area", MODEL, 0.7, where="scores", attack="pgd")]
    rows += [
        row("accuracy", MODEL, 1 - e / 10, where="scores", attack=a, epsilon=e)
        for a in ("pgd", "random")
        for e in strengths
    ]
    rows += [row("accuracy", MODEL, 0.25, where="words", attack="swap", budget=3)]
    text = shown(summary(rows))
    header, other = (line for line in text.splitlines() if "metric" in line)
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == [
        "metric", "ε 0.5", "ε 2", "ε 10", "area", "range", "better",
    ]  # fmt: skip
    assert "budget 3" in other
    line = next(line for line in text.splitlines() if "accuracy pgd" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["accuracy pgd", "0.9500", "0.8000", "0.0000", "0.7000", "0..1", "higher"]


def test_rows_of_a_class_are_left_to_the_file():
    rows = [row("high", "attention", 0.5), row("high", "attention", 0.1234, **{"class": 1})]
    assert "0.1234" not in shown(summary(rows))
    assert "0.1234" in json.dumps(summary(rows).to_json())
