"""Tables for papers: best in bold, significance marked, captions that explain, and text that stays text."""

import csv
import io
import math
import re
from dataclasses import replace

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.metrics.intervals import INTERVAL
from attn_lightning.metrics.statistics import Comparison, Summary
from attn_lightning.report.key_numbers import Number
from attn_lightning.report.paper_tables import (
    STYLES,
    check_style,
    comma_separated,
    latex,
    markdown,
    of_runs,
    of_study,
)
from attn_lightning.study.configuration import Study
from attn_lightning.study.record import bare_variant
from attn_lightning.study.table import MetricTable, Row

NAN = math.nan


def row(method, mean, p_holm=NAN, asked=5, complete=5):
    summary = Summary(complete, mean, 0.01, mean - 0.02, mean + 0.02)
    compared = None if math.isnan(p_holm) else Comparison(complete, 0.1, 0.05, 0.15, 2.0, p_holm, 6)
    return Row(method, asked, complete, 0, 0, summary, compared, p_holm)


def table(metric, *rows, data="planted", condition=""):
    return MetricTable(data, "", metric, "vanilla", condition, rows)


@pytest.fixture
def study(tmp_path):
    return Study(
        name="mine",
        experiments=tmp_path,
        methods=tuple(map(bare_variant, ("vanilla", "ivat"))),
        data=(bare_variant("planted"),),
        options=(bare_variant(""),),
        seeds=tuple(range(5)),
        metrics=("test/accuracy", "test/log_loss"),
        baseline="vanilla",
    )


@pytest.fixture
def found():
    control = Row("TF-IDF linear (control)", 0, 0, 0, 0, Summary(1, 0.99, NAN, NAN, NAN), None, NAN)
    return [
        table("test/accuracy", row("vanilla", 0.8), row("ivat", 0.9, p_holm=0.03), control),
        table("test/log_loss", row("vanilla", 0.3), row("ivat", 0.2, p_holm=0.5)),
    ]


def test_latex_has_bold_marks_and_a_caption(study, found):
    (made,) = of_study(study, found, "sd")
    text = latex(made, "sd")
    assert made.name == "mine-planted"
    assert r"\toprule" in text
    assert r"Method & Accuracy $\uparrow$ & Log loss $\downarrow$ \\" in text
    assert r"ivat & \textbf{0.900} $\pm$ 0.010$^{*}$ & \textbf{0.200} $\pm$ 0.010 \\" in text
    assert r"vanilla & 0.800 $\pm$ 0.010 & 0.300 $\pm$ 0.010 \\" in text
    assert r"TF-IDF linear (control) & 0.990 & -- \\" in text
    assert r"standard deviation over 5 seeds. Best mean in bold. $^{*}$: p of the difference to vanilla" in text
    assert "two-sided paired permutation test over seeds, Holm-adjusted over the rows, below 0.05" in text
    assert "With 5 seeds, no p is below 0.062" in text
    assert INTERVAL not in text
    assert INTERVAL in of_study(study, found, "interval")[0].caption


@pytest.mark.parametrize(
    ("style", "shown"), [("sd", "**0.900** ± 0.010"), ("interval", "**0.900** [0.880, 0.920]"), ("mean", "**0.900**")]
)
def test_styles(study, found, style, shown):
    (made,) = of_study(study, found, style)
    assert f"| ivat | {shown}\\* |" in markdown(made, style)


def test_another_style_is_refused():
    for style in STYLES:
        check_style(style)
    with pytest.raises(ConfigurationError, match="Expected `style` to be one of sd, interval, mean, but got 'sdd'"):
        check_style("sdd")


def test_several_data_have_a_table_of_methods_by_data(study, found, tmp_path):
    wide = replace(study, data=tuple(map(bare_variant, ("planted", "sst"))), metrics=("test/accuracy",))
    tables = [found[0], table("test/accuracy", row("vanilla", 0.7), row("ivat", 0.6, p_holm=1.0), data="sst")]
    made = of_study(wide, tables, "mean")
    assert [one.name for one in made] == ["mine-planted", "mine-sst", "mine-test-accuracy"]
    assert made[2].columns == ("planted", "sst")
    assert "| vanilla | 0.800 | **0.700** |" in markdown(made[2], "mean")


def test_equal_means_are_all_bold_and_missing_seeds_are_named(study):
    (made,) = of_study(study, [table("test/accuracy", row("vanilla", 0.9), row("ivat", 0.90004, complete=3))], "mean")
    text = markdown(made, "mean")
    assert "| vanilla | **0.900** |" in text
    assert r"| ivat (3/5 INCOMPLETE: 2 missing) | **0.900** |" in text
    assert "INCOMPLETE" in latex(made, "mean")


def test_no_direction_no_bold(study):
    tables = [table("evaluation/sparsity/attention/entropy", row("vanilla", 2.0), row("ivat", 1.0))]
    assert "**" not in markdown(of_study(study, tables, "mean")[0], "mean")


def test_csv_has_numbers_in_full(study, found):
    lines = list(csv.DictReader(io.StringIO(comma_separated(of_study(study, found, "mean")[0], "mean"))))
    assert lines[1]["Method"] == "ivat"
    assert lines[1]["Seeds"] == "5/5"
    assert float(lines[1]["Accuracy ↑: mean"]) == 0.9
    assert float(lines[1]["Accuracy ↑: p (Holm)"]) == 0.03
    assert lines[2]["Log loss ↓: mean"] == ""


def test_hostile_names_are_text_everywhere(study):
    names = ["=cmd|' /C calc'!A0", "\\input{/etc/passwd}", "a|b<script>", "$x_1$ & 5 % #", "\x1b[31m\u202e"]
    (made,) = of_study(study, [table("test/accuracy", *(row(name, 0.5) for name in names))], "mean")
    cells = [line[0] for line in csv.reader(io.StringIO(comma_separated(made, "mean")))]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    text = latex(made, "mean")
    assert "\\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\}" in text
    assert r"\$x\_1\$ \& 5 \% \#" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    lines = markdown(made, "mean").splitlines()
    assert len(lines) == 4 + len(names)
    assert r"a\|b\<script\>" in lines[-3]


def test_single_runs_stand_beside_controls():
    numbers = {
        "a/v": [Number("test/accuracy", 0.9, 0.8, 0.95, "documents", {"TF-IDF": 0.85})],
        "b/v": [Number("test/accuracy", 0.8, 0.7, 0.9, "documents", {"TF-IDF": 0.85})],
    }
    made = of_runs(numbers, "planted", "interval")
    text = markdown(made, "interval")
    assert "| a/v | **0.900** [0.800, 0.950] |" in text
    assert "| TF-IDF (control) | 0.850 |" in text
    assert "95 % intervals over documents" in text


def test_runs_of_several_seeds_have_their_deviation_behind_the_mean():
    single = Number("test/accuracy", 0.8, 0.7, 0.9, "documents", {})
    numbers = {"a (5 seeds)": [Number("test/accuracy", 0.9, 0.8, 0.95, "seeds", {}, std=0.012)], "b/v": [single]}
    made = of_runs(numbers, "planted", "sd")
    assert "| a (5 seeds) | **0.900** ± 0.012 |" in markdown(made, "sd")
    assert "| b/v | 0.800 |" in markdown(made, "sd")
    assert "of several seeds mean ± standard deviation" in made.caption
    assert "deviation" not in of_runs({"b/v": [single]}, "planted", "sd").caption


@pytest.mark.parametrize("style", ["sd", "interval", "mean"])
def test_latex_is_a_whole_table_whatever_names_it_holds(study, found, style):
    """What LaTeX would stumble over: braces and environments that do not close, rows of another width, bare signs."""
    hostile = "a & b % c $ d # e _ f ^ g ~ h { i } j \\ k [l]"
    renamed = replace(found[0], rows=tuple(replace(row, method=hostile + row.method) for row in found[0].rows))
    for made in of_study(study, [renamed, *found[1:]], style):
        text = latex(made, style)
        bare = re.sub(r"\\[\\{}&%$#_]", "", text.replace(r"\\", ""))
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert [text.count(rf"\{end}{{{kind}}}") for end in ("begin", "end") for kind in ("table", "tabular")] == [
            1
        ] * 4
        assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{"))
        (body,) = re.findall(r"\\toprule\n(.*)\\bottomrule", text, flags=re.DOTALL)
        rows = [line for line in body.splitlines() if line != r"\midrule"]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(made.columns)}
        assert all(row.endswith(r" \\") for row in rows)
