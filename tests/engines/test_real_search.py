"""A search whose trials are real runs on tiny planted data: pruned at a validation, killed with -9, and resumed."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest
import yaml

from attn_lightning.commands.validation import shared_validator
from attn_lightning.run_folder import read_metrics
from attn_lightning.study.engines.local import LocalEngine
from attn_lightning.study.sweeps import read_sweep

optuna = pytest.importorskip("optuna", reason="needs the extra `search`")

from attn_lightning.study.search import Search  # noqa: E402

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
PLANTED = str(REPOSITORY / "experiments" / "ivat_planted.yaml")


TINY = (
    "--data.train_documents=96", "--data.validation_documents=32", "--data.test_documents=40", "--data.max_length=20",
    "--data.batch_size=16", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4", "--trainer.accelerator=cpu", "--run.suite=none", "--run.report=false",
)  # fmt: skip


def written(folder, method, parameters, *options):
    """A file as `wandb sweep` takes it."""
    options = ["--config", PLANTED, *TINY, "--run.wandb=true", *options]
    contents = {
        "command": ["${env}", "${interpreter}", "-m", "attn_lightning", "fit", *options, "${args}"],
        "method": method,
        "metric": {"name": "best/val/accuracy", "goal": "maximize"},
        "parameters": parameters,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(contents))
    return path


def test_killed_in_the_middle_and_run_again(tmp_path):
    ranges = {
        "method.epsilon": {"distribution": "log_uniform_values", "min": 0.1, "max": 10.0},
        "model.learning_rate": {"min": 0.001, "max": 0.01},
    }
    path = written(tmp_path, "bayes", ranges, "--trainer.max_epochs=8")
    arguments = [str(path), "--trials", "3", "--jobs", "2", "--root", str(tmp_path / "runs")]
    command = [sys.executable, "-m", "attn_lightning", "search", *arguments]
    folder = tmp_path / "runs" / "search_tiny"
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 200
    while not list(folder.glob("trial_*/checkpoints/last.ckpt")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    for each in [process, *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    process.wait()

    outcome = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False)
    assert outcome.returncode == 0, outcome.stderr
    # Two were running when all was killed: Optuna counts their second attempts, 2 and 3, which go on in the folders of
    # the first ones; a folder without a whole epoch is set aside and begun again.
    trials = [path for path in folder.glob("trial_*") if "set_aside" not in path.name]
    assert sorted(path.name for path in trials) == ["trial_0", "trial_1", "trial_4"]
    for path in trials:
        record = read_metrics(path)
        assert record["status"] == "complete"
        assert len(record["history"]) == 8
    assert {"trials.csv", "best.yaml", "history.png", "slice.png"} <= {path.name for path in folder.iterdir()}
    with (folder / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    best = max(rows, key=lambda row: float(row["best/val/accuracy"]))
    part = yaml.safe_load((folder / "best.yaml").read_text())
    assert part["method"]["init_args"]["epsilon"] == float(best["method.epsilon"])
    # The values that are printed change an experiment as a part of it does.
    assert f"learning_rate: {part['model']['learning_rate']}" in outcome.stdout
    config = shared_validator().parse(["fit", "--config", PLANTED, "--config", str(folder / "best.yaml")])
    assert config["method"]["init_args"]["epsilon"] == float(best["method.epsilon"])
    assert config["method"]["class_path"].endswith("AttentionIVAT")


def test_a_hopeless_trial_is_stopped_after_a_validation(tmp_path, monkeypatch):
    forkserver._forkserver._stop()  # one that other tests have started would not be warm
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    path = written(tmp_path, "grid", {"trainer.max_epochs": {"values": [6, 500]}})
    search, told = Search(read_sweep(path), tmp_path / "runs"), []
    search.run(2, LocalEngine(2), 2, told.append)
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "PRUNED"]
    record = read_metrics(search.folder / "trial_1")
    assert record["status"] == "pruned"
    assert 1 <= len(record["history"]) < 500
    assert any(line.startswith("pruned   trial_1 after ") for line in told)
