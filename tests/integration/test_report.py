"""A run ends in a page that anybody can open, unless it was told not to."""

import json
import re


def test_fit_ends_with_the_path_of_its_report(tiny_fit, tmp_path):
    outcome = tiny_fit("--run.root", tmp_path, "--run.report=true", "--run.suite=none", "--trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    page = tmp_path / "ivat_planted" / "version_0" / "report" / "report.html"
    assert outcome.out.splitlines()[-1] == f"report: {page}"
    content = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])
    assert content["notes"] == []
    assert content["runs"][0]["documents"]["rationale"] is not None
    assert content["groups"][0]["numbers"][0]["metric"] == "test/accuracy"


def test_no_report_where_none_is_wanted(finished):
    assert not (finished / "report").exists()
