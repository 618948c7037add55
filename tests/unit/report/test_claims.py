"""Claims of papers, their verdicts, and what is said of a file that is none."""

import logging
import math

import numpy as np
import pytest
import scipy
import yaml

from attn_lightning.commands.validation import shared_validator
from attn_lightning.errors import ConfigurationError
from attn_lightning.experiments import FOLDER
from attn_lightning.metrics.statistics import Comparison, compare
from attn_lightning.report.claims import Claim, Finding, findings, markdown, read_claims
from support.archived import entries_of, rewrite
from support.archived import write as write_archive
from support.studies import tiny_study

PARSE = shared_validator().parse
CLAIM = {
    "claim": "It predicts better",
    "source": "Somebody 2020",
    "study": "tiny",
    "data": "planted",
    "method": "ivat",
    "against": "vanilla",
    "metric": "test/accuracy",
    "direction": "higher",
}


def found(low, high, **options):
    middle = (low + high) / 2
    return Finding(Claim(**{**CLAIM, **options}), 5, Comparison(5, middle, low, high, 1.0, 0.0625, 12.0))


@pytest.mark.parametrize(
    ("low", "high", "options", "verdict"),
    [
        (0.01, 0.03, {}, "holds"),
        (-0.03, -0.01, {}, "does not hold"),
        (-0.01, 0.03, {}, "cannot be told"),
        (-0.03, -0.01, {"direction": "lower"}, "holds"),
        (0.01, 0.03, {"direction": "lower"}, "does not hold"),
        (-0.002, 0.004, {"matters": 0.005}, "does not hold"),
        (-0.002, 0.006, {"matters": 0.005}, "cannot be told"),
        (0.001, 0.004, {"matters": 0.005}, "holds"),
        (-0.008, 0.006, {"at_least": -0.01}, "holds"),
        (-0.02, -0.005, {"at_least": -0.01}, "cannot be told"),
        (-0.02, -0.011, {"at_least": -0.01}, "does not hold"),
        (-0.02, 0.001, {"at_least": -0.01, "matters": 0.005}, "cannot be told"),
        (math.nan, math.nan, {}, "cannot be told"),
    ],
)
def test_a_verdict_is_the_place_of_the_interval(low, high, options, verdict):
    each = found(low, high, **options)
    assert each.verdict == verdict
    assert each.why


@pytest.mark.parametrize(
    ("published", "direction", "left_out"),
    [
        (0.05, "higher", True),
        (-0.02, "higher", True),
        (0.02, "higher", False),
        (math.nan, "higher", False),
        (0.05, "lower", True),
    ],
)
def test_an_open_claim_says_whether_its_published_number_is_excluded(published, direction, left_out):
    each = found(-0.01, 0.03, published=published, direction=direction)
    assert each.verdict == "cannot be told"
    assert ("leaves out the published" in each.why) == left_out


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.03, 0.06, "from −0.030 to +0.060"),
        (-0.03, -0.01, "below 0"),
        (-0.004, -0.001, "below 0, but above -0.005, which"),
        (-0.004, 0.002, "difference of -0.005 is excluded"),
    ],
)
def test_a_reason_has_the_sign_of_the_difference_beside_it(low, high, said):
    each = found(low, high, direction="lower", matters=0.005, published=-0.05)
    assert said in each.why
    # -.05 is not between -.03 and .06, and was between the turned ends.
    assert ("leaves out the published −0.050" in each.why) == (high == 0.06)


def test_nothing_is_decided_before_all_seeds_are_there():
    measured = Comparison(4, 0.02, 0.01, 0.03, 1.0, 0.125, 12.0)
    each = Finding(Claim(**CLAIM), 5, measured)
    assert (each.verdict, each.why) == ("cannot be told", "4 of the 5 seeds are there")
    assert Finding(Claim(**CLAIM), 4, measured).verdict == "holds"
    row = markdown([each]).splitlines()[4]
    assert "+0.020 [+0.010, +0.030] | 4/5" in row


def test_turning_method_and_baseline_around_with_the_direction_keeps_the_verdict():
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = [dict(enumerate(generator.normal(mean, 0.02, 5))) for mean in generator.normal(0.8, 0.02, 2)]
        forth = Finding(Claim(**CLAIM, matters=0.01), 5, compare(*values))
        back = Finding(Claim(**{**CLAIM, "direction": "lower"}, matters=0.01), 5, compare(*values[::-1]))
        assert forth.verdict == back.verdict


@pytest.fixture
def study(tmp_path):
    """A study of two methods and three seeds with an archive beside it."""
    path = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], ["test/accuracy"])
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "seeds": 3}))
    write_archive(path, {"vanilla": [0.80, 0.81, 0.79], "ivat": [0.84, 0.86, 0.82]}, PARSE)
    return path


def write(path, *claims):
    path.write_text(yaml.safe_dump({"claims": list(claims)}))
    return path


def test_numbers_come_from_the_archive_of_the_study(study, tmp_path):
    claim = {**CLAIM, "study": str(study), "published": 0.05}
    (each,) = findings(read_claims(write(tmp_path / "claims.yaml", claim)), tmp_path, PARSE)
    assert (each.measured.n, each.asked) == (3, 3)
    assert each.measured.difference == pytest.approx(0.04)
    # By hand: all eight signs of .04, .05, .03; only all plus and all minus are as far from 0.
    assert each.p_holm == pytest.approx(2 / 8)
    assert "+0.050" in markdown([each])
    assert "3/3" in markdown([each])
    assert markdown([each]).startswith("Of 1 comparisons 1 hold, 0 do not, and 0 cannot be told.")


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry["config"]["trainer"].update(max_epochs=7),
        lambda entry: entry["record"].update(status="failed"),
        lambda entry: entry["record"]["finished"].pop("test"),
    ],
    ids=["another configuration", "failed", "not tested"],
)
def test_a_run_that_the_study_does_not_ask_for_now_is_not_counted_and_this_is_said(study, tmp_path, caplog, change):
    archive = study.with_name("tiny.jsonl.gz")
    entries = entries_of(archive)
    change(next(entry for entry in entries if entry["cell"] == "ivat_planted/seed_1"))
    rewrite(archive, entries)
    with caplog.at_level(logging.WARNING):
        (each,) = findings(
            read_claims(write(tmp_path / "claims.yaml", {**CLAIM, "study": str(study)})), tmp_path, PARSE
        )
    assert (each.measured.n, each.asked) == (2, 3)
    assert each.measured.difference == pytest.approx(0.035)
    assert "1 of the runs" in caplog.text
    assert "ivat_planted/seed_1" in caplog.text


def test_a_run_on_other_data_is_not_mixed_in(study, tmp_path):
    archive = study.with_name("tiny.jsonl.gz")
    entries = entries_of(archive)
    for entry in entries:
        content = "b" if entry["cell"] == "ivat_planted/seed_1" else "a"
        source = {"kind": "folder", "location": "here", "revision": content}
        entry["record"]["data"] = {"name": "planted", "source": source, "splits": {"test": {"sha256": content}}}
    rewrite(archive, entries)
    (each,) = findings(read_claims(write(tmp_path / "claims.yaml", {**CLAIM, "study": str(study)})), tmp_path, PARSE)
    assert each.measured.n == 2


def test_a_claim_is_about_one_set_of_options(tmp_path):
    path = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], ["test/accuracy"])
    contents = yaml.safe_load(path.read_text())
    options = {**contents["options"], "trainer.max_epochs": [1, 2]}
    path.write_text(yaml.safe_dump({**contents, "seeds": 2, "options": options}))
    write_archive(path, {"vanilla": [0.80, 0.81], "ivat": [0.84, 0.86]}, PARSE)
    archive = path.with_name("tiny.jsonl.gz")
    entries = entries_of(archive)
    for entry in entries:
        if "max_epochs=2" in entry["cell"] and entry["cell"].startswith("ivat"):
            entry["record"]["test"]["test/accuracy"] -= 0.1
    rewrite(archive, entries)
    claim = {**CLAIM, "study": str(path)}
    with pytest.raises(ConfigurationError, match="correct method, data and `options`"):
        findings(read_claims(write(tmp_path / "claims.yaml", claim)), tmp_path, PARSE)
    both = [{**claim, "options": f"max_epochs={epochs}"} for epochs in (1, 2)]
    first, second = findings(read_claims(write(tmp_path / "claims.yaml", *both)), tmp_path, PARSE)
    assert [each.measured.difference for each in (first, second)] == pytest.approx([0.045, -0.055])
    assert second.claim.on.startswith("planted, max_epochs=2: ivat")


def test_a_study_that_was_not_run_is_said_to_be_open(study, tmp_path):
    (tmp_path / "empty").mkdir()
    claims = read_claims(write(tmp_path / "claims.yaml", {**CLAIM, "study": str(study)}))
    (each,) = findings(claims, tmp_path / "empty", PARSE)
    assert (each.measured.n, each.verdict, each.why) == (0, "cannot be told", "not run")
    assert markdown([each, each]).splitlines()[4:] == ["", f"Not run: It predicts better ({study}: planted, planted)."]
    assert "Of 0 comparisons 0 hold, 0 do not, and 0 cannot be told." in markdown([each])


def test_one_seed_is_no_comparison(study, tmp_path):
    archive = study.with_name("tiny.jsonl.gz")
    rewrite(archive, [entry for entry in entries_of(archive) if entry["cell"].endswith("/seed_1")])
    (each,) = findings(read_claims(write(tmp_path / "claims.yaml", {**CLAIM, "study": str(study)})), tmp_path, PARSE)
    assert (each.is_compared, each.verdict, each.why) == (False, "cannot be told", "one seed")
    assert markdown([each]).splitlines()[-1] == f"Not run: It predicts better ({study}: planted with one seed)."
    assert "Of 0 comparisons" in markdown([each])


def test_p_values_are_adjusted_over_all_claims(study, tmp_path):
    claim = {**CLAIM, "study": str(study)}
    other = {**claim, "metric": "test/log_loss", "direction": "lower"}
    first, second, third = findings(read_claims(write(tmp_path / "claims.yaml", claim, claim, other)), tmp_path, PARSE)
    expected = scipy.stats.false_discovery_control([0.25, 0.25]) * 2  # equal p-values: Holm doubles both
    assert [first.p_holm, second.p_holm] == pytest.approx(list(expected))
    assert math.isnan(third.p_holm)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methd": "ivat"}, "Did you mean method"),
        ({"direction": "up"}, "higher or lower"),
        ({"published": "much"}, "a number in the unit of the metric"),
        ({"matters": math.inf}, "a number in the unit of the metric"),
        ({"metric": "test/acuracy"}, "Did you mean test/accuracy"),
        ({"metric": "accuracy"}, "Expected metrics that runs of the study have"),
        ({"study": 3}, "Expected `study`"),
        ({"method": "ivad"}, "Did you mean ivat on planted"),
        ({"data": ["planted", "plantd"]}, "Did you mean ivat on planted"),
    ],
)
def test_a_mistake_in_a_claim_is_one_line(study, tmp_path, changes, said):
    path = write(tmp_path / "claims.yaml", {**CLAIM, "study": str(study), **changes})
    with pytest.raises(ConfigurationError, match=said) as error:
        findings(read_claims(path), tmp_path, PARSE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("contents", ["", "- 1\n", "claims: 3\n", "claims: [3]\n", "claims: [{claim: x}]\n", "a: b\n"])
def test_a_file_without_claims_is_one_line(tmp_path, contents):
    path = tmp_path / "claims.yaml"
    path.write_text(contents)
    with pytest.raises(ConfigurationError, match="Expected") as error:
        read_claims(path)
    assert "\n" not in str(error.value)
    assert "claim" in str(error.value).replace(str(path), "")
    assert "seeds" not in str(error.value)


@pytest.mark.parametrize("name", ["claims.yaml", "nowhere/claims.yaml"])
def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path, name):
    with pytest.raises(ConfigurationError, match=f"{name}, but there is none; correct the path"):
        read_claims(tmp_path / name)


def test_our_own_claims_name_cells_that_exist(tmp_path):
    # Without their archives: to parse every command that they hold takes longer than all other tests here.
    assert findings(read_claims(FOLDER / "results" / "claims.yaml"), tmp_path, PARSE)
