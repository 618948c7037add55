"""Metrics that runs will have or not, told from their configuration."""

import pytest

from attn_lightning.study.logged import why_not_logged
from attn_lightning.study.named import named_study, study_names
from attn_lightning.study.table import measure_of

RUN = {"monitor": "val/accuracy", "test": True, "suite": "fast", "suite_explainers": "attention,random"}


def config(callbacks=(), **run):
    chosen = [{"class_path": path, "init_args": {}} for path in callbacks]
    return {"run": {**RUN, **run}, "trainer": {"callbacks": chosen}, "method": None}


@pytest.mark.parametrize(
    "metric",
    [
        "test/accuracy",
        "val/log_loss",
        "best/val/accuracy",
        "train/loss",
        "train/virtual_weight",
        "cost/fit_seconds",
        "test/gradient_kendall_mean",
        "evaluation/faithfulness/attention/comprehensiveness[fraction=0.2]",
        "val/faithfulness_decision_flip",
    ],
)
def test_what_is_declared_may_be_asked_for(metric):
    assert why_not_logged(metric, config()) is None


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("test/acuracy", "nothing logs it. Did you mean test/accuracy"),
        ("val/acuracy", "Did you mean val/accuracy"),
        ("accuracy", "nothing logs it. Did you mean val/accuracy or test/accuracy"),
        ("best/val/f1", "chosen by val/accuracy: use best/val/accuracy"),
        ("cost/fit_second", "no such cost. Did you mean fit_seconds"),
        ("evaluation", "nothing logs it"),
        (
            "evaluation/faithfulness/attention/decision_flp",
            "Did you mean evaluation/faithfulness/attention/decision_flip",
        ),
    ],
)
def test_a_misspelled_one_names_the_nearest(metric, why):
    found = why_not_logged(metric, config())
    assert found is not None
    assert why in found


def test_what_is_switched_off_is_not_measured():
    flip = "evaluation/faithfulness/attention/decision_flip"
    assert why_not_logged(flip, config(suite="none")) == "`run.suite: none` does not measure faithfulness"
    assert why_not_logged(flip, config(suite="plausibility")) is not None
    mass = "evaluation/plausibility/{}/rationale_mass"
    why = "`run.suite_explainers: attention,random` does not have uniform"
    assert why_not_logged(mass.format("uniform"), config(suite="plausibility")) == why
    assert why_not_logged(mass.format("random"), config(suite="plausibility")) is None
    assert why_not_logged(mass.format("uniform"), config(suite="plausibility", suite_explainers="all")) is None
    assert why_not_logged(mass.format("attention"), config(suite="plausibility", suite_explainers="random")) is None
    assert why_not_logged("test/accuracy", config(test=False)) == "the runs have `run.test: false`"


def test_data_without_a_test_file_is_not_tested():
    files = {"class_path": "attn_lightning.data.TextFiles", "init_args": {"train": "a.csv", "test": None}}
    assert "a file for training alone" in why_not_logged("test/accuracy", {**config(), "data": files})
    assert "a file for training alone" in why_not_logged(
        "evaluation/faithfulness/attention/decision_flip", {**config(suite="fast"), "data": files}
    )
    assert why_not_logged("val/accuracy", {**config(), "data": files}) is None
    tested = {**files, "init_args": {"train": "a.csv", "test": "b.csv"}}
    assert why_not_logged("test/accuracy", {**config(), "data": tested}) is None


def test_a_class_of_the_users_own_may_log_under_any_name():
    assert why_not_logged("val/mine", config(["lightning.pytorch.callbacks.EarlyStopping"])) is not None
    assert why_not_logged("val/mine", config(["my_module.MyCallback"])) is None


def test_every_study_that_comes_with_the_project_asks_for_what_is_declared():
    for name in study_names():
        study = named_study(name)
        assert [metric for metric in (*study.metrics, *study.require) if measure_of(metric) is None] == [], name
