"""Studies in the browser: tables that sort, charts that answer to their choices."""

import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import make_run


@pytest.fixture
def studies(opened, report):
    seen = opened(report)
    seen.open("studies")
    return seen.page


def first_column(page):
    return page.locator("#studies table").first.locator("tbody th").all_inner_texts()


def drawn(marks, count):
    """Whether a chart has so many of them, once it is drawn: a busy browser draws later than it answers."""
    marks.nth(count - 1).wait_for(state="attached")
    return marks.count() == count


def test_tables_sort_by_a_click(studies):
    control = "TF-IDF linear (control)"
    assert first_column(studies) == ["ivat", "vanilla", control]
    head = studies.locator("#studies th").filter(has_text="Mean").first
    head.locator("button").click()
    assert first_column(studies) == ["ivat", "vanilla", control]
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert first_column(studies) == [control, "vanilla", "ivat"]
    assert head.get_attribute("aria-sort") == "ascending"


def test_paired_differences_and_how_they_were_tested(studies):
    row = studies.locator("#studies tbody tr").first.inner_text()
    assert "3/3" in row
    assert "+0.1000" in row
    assert "permutation test" in studies.inner_text("#studies")


def test_another_metric_changes_everything(studies):
    studies.select_option("#metric-0", label="Comprehensiveness (AOPC) ↑")
    assert "0.4100" in studies.locator("#studies tbody tr").first.inner_text()
    assert studies.get_by_role("img", name="Comprehensiveness (AOPC) of every run by method").is_visible()


def test_runs_are_dots_joined_by_seed(studies):
    chart = studies.get_by_role("img", name="Accuracy of every run by method")
    assert drawn(chart.locator("path.mark"), 6)
    assert drawn(chart.locator("path.seed"), 3)
    assert drawn(chart.locator("path.mean"), 2)
    assert "seed 0: 0.8000" in chart.locator("path.mark title").first.text_content()


def test_the_trade_off_has_a_front(studies):
    chart = studies.get_by_role("img", name="a point per method")
    assert drawn(chart.locator("path.mark"), 2)
    assert chart.locator("text.name").all_text_contents() == ["ivat", "vanilla"]
    studies.select_option("#trade-y-0", label="Time of fitting (s)")
    assert studies.get_by_role("img", name="Time of fitting (s) against Accuracy").is_visible()


def test_curves_of_robustness_and_learning(studies):
    robust = studies.get_by_role("img", name="Accuracy under")
    assert drawn(robust.locator("path.bold"), 2)
    assert drawn(robust.locator("path.thin"), 6)
    learning = studies.get_by_role("img", name="val/accuracy by epoch").last
    assert drawn(learning.locator("path.bold"), 2)
    studies.locator("#curve-study").select_option("train/loss")
    assert studies.get_by_role("img", name="train/loss by epoch").is_visible()


def test_curves_open_with_what_chose_the_epoch(opened, tmp_path):
    history = [{"epoch": k, "train/loss": 1.0, "val/accuracy": 0.5, "val/macro_f1": 0.3 + k / 10} for k in range(3)]
    run = make_run(tmp_path, history=history, best={"monitor": "val/macro_f1", "val/macro_f1": 0.5})
    page = opened(write_report([run], tmp_path / "page", ReportOptions(figures=False))).page
    assert page.get_by_role("img", name="val/macro_f1 by epoch").is_visible()


def test_charts_are_drawn_anew_for_another_width(studies):
    chart = studies.get_by_role("img", name="Accuracy of every run by method").locator("svg")
    wide = int(chart.get_attribute("width"))
    studies.set_viewport_size({"width": 420, "height": 900})
    studies.locator(f"#studies .chart svg:not([width='{wide}'])").first.wait_for()
    assert int(chart.get_attribute("width")) < wide
