"""Key numbers: which, with which interval, beside which controls."""

import json
import math

import pytest
from scipy import stats

from attn_lightning.metrics.statistics import summarize
from attn_lightning.report.key_numbers import MOST, chosen_metrics, key_numbers, wilson
from attn_lightning.report.run_data import read_run

AOPC = "evaluation/faithfulness/attention/aopc_comprehensiveness"


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (3, 7), (450, 500)])
def test_wilson_agrees_with_scipy(right, count):
    theirs = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_a_single_run_has_intervals_over_documents(make_run):
    run = read_run(make_run())
    found = {
        number.metric: number
        for number in key_numbers([run], ["test/accuracy", "test/f1", "test/evidence_mass_mean", AOPC])
    }
    assert found["test/accuracy"].over == "documents"
    assert (found["test/accuracy"].low, found["test/accuracy"].high) == wilson(0.8, 3)
    assert found["test/f1"].over == ""
    assert math.isnan(found["test/f1"].low)
    half = stats.norm.ppf(0.975) * 0.1 / math.sqrt(25)
    mass = found["test/evidence_mass_mean"]
    assert (mass.low, mass.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    half = stats.norm.ppf(0.975) * 0.2 / math.sqrt(16)
    assert (found[AOPC].low, found[AOPC].high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-6)


def test_controls_stand_beside(make_run):
    run = read_run(make_run())
    accuracy, aopc = key_numbers([run], ["test/accuracy", AOPC])
    assert accuracy.controls == {"TF-IDF": 0.6}
    assert aopc.controls == {"random": 0.1, "untrained": 0.05}


def test_an_evaluation_on_other_data_gives_no_control(make_run):
    folder = make_run()
    path = folder / "evaluation" / "best-mine-test" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "another"}))
    (aopc,) = key_numbers([read_run(folder)], [AOPC])
    assert aopc.controls == {"random": 0.1}
    assert math.isnan(aopc.low)


def test_seeds_have_intervals_over_seeds(make_run):
    values = [0.8, 0.7, 0.9]
    runs = [read_run(make_run(version=f"seed_{k}", seed=k, accuracy=v)) for k, v in enumerate(values)]
    (accuracy,) = key_numbers(runs, ["test/accuracy"])
    expected = summarize(values, (0.0, 1.0))
    assert (accuracy.value, accuracy.low, accuracy.high) == (expected.mean, expected.low, expected.high)
    assert accuracy.over == "seeds"


def test_at_most_ten_and_each_idea_once(make_run):
    run = read_run(make_run())
    many = {f"test/{name}": 0.5 for name in ("accuracy", "f1", "macro_f1", "log_loss", "ece", "ftpt", "ffpt", "auroc")}
    suite = dict.fromkeys(
        (AOPC, "evaluation/agreement/gradient/kendall", "evaluation/plausibility/attention/auprc"), 0.5
    )
    full = read_run(make_run("full", test={**many, "test/gradient_kendall_mean": 0.5}, evaluation=suite))
    chosen = chosen_metrics([run, full])
    assert len(chosen) == MOST
    assert chosen[0] == "test/accuracy"
    assert "test/macro_f1" not in chosen
    assert "test/gradient_kendall_mean" not in chosen


def test_a_run_without_numbers_has_none(make_run):
    run = read_run(make_run(test={}, evaluation={}, cost={}))
    assert chosen_metrics([run]) == []
    assert key_numbers([run], ["test/accuracy"]) == []


def test_a_study_does_not_show_one_number_under_two_names(make_run):
    kendall, suite = "test/gradient_kendall_mean", "evaluation/agreement/gradient/kendall"
    run = read_run(make_run(test={"test/accuracy": 0.8, kendall: 0.1}, evaluation={suite: 0.1}))
    assert suite in chosen_metrics([run])
    assert suite not in chosen_metrics([run], ["test/accuracy", kendall])
    assert kendall not in chosen_metrics([run], [suite])
    assert "test/accuracy" in chosen_metrics([run], ["test/accuracy", kendall])
