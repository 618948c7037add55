"""Search: trials as run folders, pruning, resumption; a script of a few lines stands for `fit`."""

import contextlib
import csv
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import psutil
import pytest
import yaml

optuna = pytest.importorskip("optuna", reason="needs the extra `search`")

from attn_lightning.errors import ConfigurationError  # noqa: E402
from attn_lightning.study.engines.local import LocalEngine  # noqa: E402
from attn_lightning.study.search import Search, learning_curve, value_so_far  # noqa: E402
from attn_lightning.study.sweeps import read_sweep  # noqa: E402

FIT = """
    import json, pathlib, sys, time
    options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
    folder = pathlib.Path(options["run.root"], options["run.name"], options["run.version"])
    folder.mkdir(parents=True, exist_ok=True)
    x = float(options["method.epsilon"])
    path = folder / "metrics.json"
    history = json.loads(path.read_text())["history"] if path.exists() else []
    if x == 4.0:
        sys.exit(1)
    for epoch in range(len(history), 4):
        value = -((x - 2.0) ** 2) + 0.01 * epoch
        history.append({"epoch": epoch, "val/accuracy": value})
        best = max(history, key=lambda row: row["val/accuracy"])
        record = {"status": "running", "history": history, "best": best}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(path)
        time.sleep(float(options.get("pause", 0.0)))
    path.write_text(json.dumps({**record, "status": "complete"}))
"""


pytestmark = pytest.mark.slow  # with `make test-slow`, which installs the extra


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Runs the script at its place of a `fit`; a search closes its engine."""
    (tmp_path / "quick_fit.py").write_text(textwrap.dedent(FIT))
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda: LocalEngine(2, program="quick_fit", preload=())


@pytest.fixture
def sweep(tmp_path):
    def read(parameters, method="bayes", options=""):
        path = tmp_path / "quick.yaml"
        path.write_text(
            f"command: ['${{env}}', '${{interpreter}}', -m, attn_lightning, fit, {options} '${{args}}']\n"
            f"method: {method}\n"
            "metric: {name: best/val/accuracy, goal: maximize}\n"
            f"parameters: {{method.epsilon: {parameters}}}\n"
        )
        return read_sweep(path)

    return read


def states(search):
    return [trial.state.name for trial in search.study.trials]


def test_every_trial_leaves_a_run_folder_and_the_best_is_a_part_of_an_experiment(tmp_path, engine, sweep):
    told = []
    search = Search(sweep("{min: 0.0, max: 3.9}"), tmp_path / "runs")
    search.run(6, engine(), 2, told.append)
    folders = sorted(path.name for path in search.folder.glob("trial_*"))
    assert folders == [f"trial_{k}" for k in range(6)]
    files = {path.name: path for path in search.write_results()}
    assert {"trials.csv", "best.yaml", "history.png", "slice.png"} <= set(files)
    best = yaml.safe_load(files["best.yaml"].read_text())
    epsilon = best["method"]["init_args"]["epsilon"]
    rows = list(csv.DictReader(files["trials.csv"].open()))
    values = {
        float(row["method.epsilon"]): float(row["best/val/accuracy"]) for row in rows if row["state"] == "complete"
    }
    assert epsilon == max(values, key=lambda key: values[key])
    assert values[epsilon] == pytest.approx(-((epsilon - 2.0) ** 2) + 0.03)
    assert sum(line.startswith("done") for line in told) == len(values)


def test_a_failed_trial_is_named_and_the_search_goes_on(tmp_path, engine, sweep):
    told = []
    search = Search(sweep("{values: [4.0, 2.0]}", "grid"), tmp_path / "runs")
    search.run(2, engine(), 1, told.append)
    assert sorted(states(search)) == ["COMPLETE", "FAIL"]
    assert any(line.startswith("FAILED") for line in told)


def test_a_second_call_runs_only_what_is_missing(tmp_path, engine, sweep):
    for trials in (2, 2, 3):
        search = Search(sweep("{min: 0.0, max: 3.0}"), tmp_path / "runs")
        search.run(trials, engine(), 1, lambda line: None)
    assert states(search) == ["COMPLETE"] * 3
    drawn = [trial.params["method.epsilon"] for trial in search.study.trials]
    assert len(set(drawn)) == 3, "a restart must not draw the same points again"


def test_a_hopeless_trial_is_stopped_and_recorded_as_pruned(tmp_path, engine, sweep, monkeypatch):
    search = Search(sweep("{min: 0.0, max: 3.0}", options="--pause=0.7,"), tmp_path / "runs")
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    search.run(2, engine(), 1, lambda line: None)
    assert states(search) == ["COMPLETE", "PRUNED"]
    assert '"pruned"' in (search.folder / "trial_1" / "metrics.json").read_text()


def test_a_killed_search_goes_on_in_the_folder_of_its_trial(tmp_path, engine, sweep):
    sweep("{min: 0.0, max: 3.0}", options="--pause=1.5,")
    code = (
        "from pathlib import Path; from attn_lightning.study.engines.local import LocalEngine;"
        "from attn_lightning.study.search import Search; from attn_lightning.study.sweeps import read_sweep;"
        f"Search(read_sweep(Path({str(tmp_path / 'quick.yaml')!r})), Path({str(tmp_path / 'runs')!r}))"
        ".run(1, LocalEngine(1, program='quick_fit', preload=()), 1, print)"
    )
    engine()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    record = tmp_path / "runs" / "search_quick" / "trial_0" / "metrics.json"
    while not record.exists():
        assert process.poll() is None
        time.sleep(0.1)
    killed = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    search = Search(read_sweep(tmp_path / "quick.yaml"), tmp_path / "runs")
    search.run(1, engine(), 1, lambda line: None)
    assert search.study.trials[-1].state.name == "COMPLETE"
    assert [path.name for path in search.folder.glob("trial_*")] == ["trial_0"]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (("{min: 0.0, max: 3.0}",), ("{min: 0.0, max: 9.0}",), None),
        (("{min: 0.0, max: 3.0}",), ("{min: 1, max: 9}",), "parameters.method.epsilon"),
        (("{values: [1.0, 2.0]}",), ("{values: [1.0, 2.0, 3.0]}",), "parameters.method.epsilon"),
        (("{min: 0.0, max: 3.0}",), ("{min: 0.0, max: 3.0}", "bayes", "--pause=0.1,"), "command"),
    ],
)
def test_a_search_of_another_sweep_is_not_gone_on_with(tmp_path, sweep, before, after, changed):
    Search(sweep(*before), tmp_path / "runs")
    if changed is None:
        Search(sweep(*after), tmp_path / "runs")
        return
    with pytest.raises(ConfigurationError, match=f"`{changed}` has changed"):
        Search(sweep(*after), tmp_path / "runs")


def test_another_metric_is_another_search(tmp_path, sweep):
    """Optuna keeps the direction of its first call: the largest loss would have been the best."""
    made = sweep("{min: 0.0, max: 3.0}")
    Search(made, tmp_path / "runs")
    with pytest.raises(ConfigurationError, match="`metric` has changed"):
        Search(replace(made, metric="best/val/log_loss", maximize=False), tmp_path / "runs")


def test_steps_of_a_logarithmic_range_are_refused_and_not_ignored(tmp_path, sweep):
    with pytest.raises(ConfigurationError, match="without `q`"):
        Search(sweep("{distribution: q_log_uniform_values, q: 0.5, min: 0.5, max: 8.0}"), tmp_path / "runs")


def test_the_best_class_and_its_options_are_one_part(tmp_path, sweep):
    nested = {"class_path": "AttentionAT", "init_args": {"weight": 2.0}}
    made = sweep("{min: 0.5, max: 3.0}")
    chosen = replace(made.parameters[0], name="method", kind="choice", values=(nested,))
    search = Search(replace(made, parameters=(*made.parameters, chosen)), tmp_path / "runs")
    trial = search.study.ask({"method": optuna.distributions.CategoricalDistribution([str(nested)])})
    epsilon = trial.suggest_float("method.epsilon", 0.5, 3.0)
    search.study.tell(trial, 0.5)
    assert search.best_part() == {
        "method": {"class_path": "AttentionAT", "init_args": {"weight": 2.0, "epsilon": epsilon}}
    }


def test_values_of_a_record():
    record = {
        "history": [{"epoch": 0, "val/a": 1.0, "train/loss": 3.0}, {"epoch": 1, "val/a": 0.5, "train/loss": 2.0}],
        "best": {"monitor": "val/a", "epoch": 0, "val/a": 1.0},
        "test": {"test/a": 0.7},
        "evaluation": {"evaluation/f/b": None},
    }
    assert value_so_far(record, "best/val/a") == value_so_far(record, "val/a") == 1.0
    assert value_so_far(record, "train/loss") == 2.0
    assert value_so_far(record, "test/a") == 0.7
    assert value_so_far(record, "evaluation/f/b") is None
    assert learning_curve(record, "best/val/a", maximize=True) == [(0, 1.0), (1, 1.0)]
    assert learning_curve(record, "val/a", maximize=False) == [(0, 1.0), (1, 0.5)]


def test_epochs_without_validation_say_nothing_of_its_metrics():
    history = [{"epoch": 0, "train/loss": 3.0}, {"epoch": 1, "val/a": 0.5, "train/loss": 2.0}]
    record = {"history": [*history, {"epoch": 2, "train/loss": 1.0}]}
    assert value_so_far(record, "val/a") == 0.5
    assert value_so_far(record, "train/loss") == 1.0
    assert value_so_far(record, "val/b") is None
    assert value_so_far({"history": []}, "val/a") is None
    assert learning_curve(record, "val/a", maximize=True) == [(1, 0.5)]
