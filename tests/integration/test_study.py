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

from support.studies import tiny_study

REPOSITORY = Path(__file__).resolve().parents[2]


def folders(tmp_path):
    root = tmp_path / "runs" / "tiny"
    return {str(path.relative_to(root).parent): path for path in root.glob("*/*/metrics.json")}


def status(path):
    return json.loads(path.read_text()).get("status")


def start(tmp_path, study, *options):
    command = [sys.executable, "-m", "attn_lightning", "study", str(study), "--root", str(tmp_path / "runs"), *options]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again(tmp_path):
    metrics = ["test/accuracy", "cost/step_seconds"]
    study = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], metrics, trainer__max_epochs=12)
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
    controls = ["majority class (control)", "TF-IDF linear (control)"]
    assert [row["method"] for row in accuracy] == ["vanilla", "ivat", *controls]
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
