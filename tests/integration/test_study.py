"""A real study: two methods, two seeds, tiny planted data, killed in the middle and run again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

STUDY = """
methods: [vanilla, {method}]
data: [planted]
seeds: 2
experiments: {experiments}
options:
  data.train_documents: 96
  data.validation_documents: 32
  data.test_documents: 40
  data.max_length: 20
  data.batch_size: 8
  data.embeddings: RandomEmbeddings
  data.embeddings.dimension: 8
  model.backbone.encoder.hidden_size: 4
  trainer.max_epochs: {epochs}
  trainer.accelerator: cpu
metrics: [test/accuracy, cost/step_seconds]
"""


@pytest.fixture
def write(tmp_path):
    def written(method="ivat", epochs=3):
        path = tmp_path / "tiny.yaml"
        path.write_text(STUDY.format(method=method, epochs=epochs, experiments=REPOSITORY / "experiments"))
        return path

    return written


def folders(tmp_path):
    root = tmp_path / "runs" / "tiny"
    return {str(path.relative_to(root).parent): path for path in root.glob("*/*/metrics.json")}


def status(path):
    return json.loads(path.read_text()).get("status")


def start(tmp_path, study, *options):
    command = [sys.executable, "-m", "attn_lightning", "study", str(study), "--root", str(tmp_path / "runs"), *options]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_dry_run_prints_commands_that_are_accepted(cli, write, tmp_path):
    outcome = cli("study", write(), "--dry-run", "--root", tmp_path / "runs")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.strip().splitlines()
    assert len(lines) == 5
    assert all(line.startswith("python -m attn_lightning fit --config ") for line in lines[:-1])
    assert "4 commands, all accepted" in lines[-1]
    assert not (tmp_path / "runs").exists()


def test_commands_that_fit_would_refuse_are_listed_before_anything_runs(cli, write, tmp_path):
    path = write()
    path.write_text(path.read_text().replace("trainer.accelerator", "trainer.acelerator"))
    outcome = cli("study", path, "--root", tmp_path / "runs")
    assert outcome.code == 1
    assert "2 it refuses" in outcome.err
    assert "trainer.acelerator" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_bad_arguments_are_one_line(cli, write):
    for arguments in (("--jobs", 0), ("--jobs", "two"), ("--dry",), ("--dry-run", "--publish", "results.md")):
        outcome = cli("study", write(), *arguments)
        assert outcome.code == 1
        assert outcome.err.startswith("error: ")
        assert len(outcome.err.splitlines()) == 1


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(write, tmp_path):
    study = write(epochs=12)
    process = start(tmp_path, study, "--jobs", "2")
    while not list(tmp_path.glob("runs/tiny/*/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert "running" in {status(path) for path in folders(tmp_path).values()}

    again = start(tmp_path, study, "--jobs", "2")
    out, _ = again.communicate(timeout=900)
    assert again.returncode == 0, out
    assert "resumed" in out
    cells = {f"{method}_planted/seed_{seed}" for method in ("vanilla", "ivat") for seed in (0, 1)}
    found = {name: path for name, path in folders(tmp_path).items() if "set_aside" not in name}
    assert set(found) == cells
    assert {status(path) for path in found.values()} == {"complete"}
    assert all(len(json.loads(path.read_text())["history"]) == 12 for path in found.values())

    rows = list(csv.DictReader((tmp_path / "runs" / "tiny" / "table.csv").open()))
    accuracy = [row for row in rows if row["metric"] == "test/accuracy"]
    assert [row["method"] for row in accuracy] == ["vanilla", "ivat", "TF-IDF linear (control)"]
    values = [json.loads(found[f"ivat_planted/seed_{s}"].read_text())["test"]["test/accuracy"] for s in (0, 1)]
    assert float(accuracy[1]["mean"]) == pytest.approx(sum(values) / 2)
    assert "INCOMPLETE" not in (tmp_path / "runs" / "tiny" / "table.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in found.values()}
    third = start(tmp_path, study, "--publish", str(tmp_path / "results.md"))
    out, _ = third.communicate(timeout=900)
    assert third.returncode == 0
    assert "(4 complete)" in out
    assert {path: path.stat().st_mtime_ns for path in found.values()} == before
    published = (tmp_path / "results.md").read_text()
    assert published.startswith(
        f"## tiny\n\n<!-- study tiny -->\n`python -m attn_lightning study {study}`: 4 of 4 runs"
    )
    assert "\n### planted\n\n| method | seeds | accuracy ↑ | step_seconds ↓ |\n" in published


def test_a_file_that_cannot_be_published_to_is_refused_before_anything_runs(cli, write, tmp_path):
    (tmp_path / "results.md").write_text("<!-- study tiny -->")
    outcome = cli("study", write(), "--root", tmp_path / "runs", "--publish", tmp_path / "results.md")
    assert outcome.code == 1
    assert "mend them by hand" in outcome.err
    assert not (tmp_path / "runs").exists()
