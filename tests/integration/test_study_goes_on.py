"""Studies whose runs were stopped in their evaluation, or whose data has changed: the next `study` does what is due."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from attn_lightning.run_folder import read_metrics

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]

SIZES = {
    "data.max_length": 20, "data.batch_size": 16, "data.embeddings": "RandomEmbeddings", "data.embeddings.dimension": 8,
    "model.backbone.encoder.hidden_size": 4, "trainer.max_epochs": 2, "trainer.accelerator": "cpu",
    "run.suite": "calibration,robustness", "run.report": False,
}  # fmt: skip

BEFORE = ("history", "test", "control")
"""What a run has recorded when its evaluation begins."""


def write_texts(path, seed):
    draws = random.Random(seed)
    lines = []
    for row in range(160):
        words = draws.choices([f"word{number}" for number in range(60)], k=16)
        words[draws.randrange(16)] = ("good", "bad")[row % 2]
        lines.append(json.dumps({"text": " ".join(words), "label": row % 2}))
    path.write_text("\n".join([*lines, ""]))


def write_study(folder):
    for seed, split in enumerate(("train", "test")):
        write_texts(folder / f"{split}.jsonl", seed)
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"data": {"class_path": "TextFiles", "init_args": files}}))
    contents = {
        "methods": ["vanilla"],
        "data": {"mine": {"experiment": str(folder / "mine.yaml")}},
        "seeds": 2,
        "metrics": ["test/accuracy", "evaluation/calibration/ece"],
        "experiments": str(REPOSITORY / "experiments"),
        "options": SIZES,
    }
    (folder / "tried.yaml").write_text(yaml.safe_dump(contents, sort_keys=False))


def command(folder):
    return ["study", str(folder / "tried.yaml"), "--root", str(folder / "runs"), "--jobs", "1", "--no-report"]


def start(folder):
    line = [sys.executable, "-m", "attn_lightning", *command(folder)]
    return subprocess.Popen(line, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_folder_of(folder, seed):
    return folder / "runs" / "tried" / "vanilla_mine" / f"seed_{seed}"


def in_its_evaluation(run):
    """The process of a run that has measured the first family of two."""
    end = time.monotonic() + 600
    while not list(run.glob("evaluation/*/calibration.json")):
        assert time.monotonic() < end, f"{run} has not come to its evaluation"
        time.sleep(0.01)
    return psutil.Process(json.loads((run / ".lock").read_text())["pid"])


def last_attempt(folder, seed):
    return (folder / "runs" / "tried" / "logs" / f"vanilla_mine.seed_{seed}.log").read_text().rpartition("\n$ ")[2]


def table(folder):
    with (folder / "runs" / "tried" / "table.csv").open() as file:
        return {row["metric"]: row for row in csv.DictReader(file) if row["method"] == "vanilla"}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A study of two runs: one was told to end in its evaluation, and all processes were killed in that of the other.

    Gives its folder and the records that the two had left.
    """
    folder = tmp_path_factory.mktemp("stopped")
    write_study(folder)
    with start(folder) as process:
        first = in_its_evaluation(run_folder_of(folder, 0))
        first.send_signal(signal.SIGTERM)
        second = in_its_evaluation(run_folder_of(folder, 1))
        for one in (psutil.Process(process.pid), second):
            one.kill()
        process.communicate()
    records = [read_metrics(run_folder_of(folder, seed)) for seed in (0, 1)]
    return folder, records


@pytest.fixture(scope="module")
def gone_on(stopped):
    """The same study after the same command, with what had been finished before and what it said."""
    folder, records = stopped
    finished = [kept(folder, seed) for seed in (0, 1)]
    with start(folder) as process:
        out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return folder, records, finished, out


def kept(folder, seed):
    """When what had been finished was written: weights, predictions and the first family."""
    run = run_folder_of(folder, seed)
    paths = [*run.glob("checkpoints/*"), run / "predictions.parquet", *run.glob("evaluation/*/calibration.json")]
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_runs_stopped_in_their_evaluation_are_finished_without_training(gone_on):
    folder, records, finished, out = gone_on
    assert [record["status"] for record in records] == ["interrupted", "running"]
    assert all("test" in record and "evaluation" not in record for record in records)
    assert out.count("resumed  vanilla_mine/seed_") == 2
    for seed, record in enumerate(records):
        after = read_metrics(run_folder_of(folder, seed))
        assert after["status"] == "complete"
        assert after["evaluation"]
        assert {part: after.get(part) for part in BEFORE} == {part: record.get(part) for part in BEFORE}
        assert kept(folder, seed) == finished[seed]
        assert set(finished[seed]) == {"best.ckpt", "last.ckpt", "predictions.parquet", "calibration.json"}
        assert "epoch 1/" not in last_attempt(folder, seed)
    assert [path.name for path in (folder / "runs" / "tried" / "vanilla_mine").iterdir()].count("seed_0") == 1
    assert not list((folder / "runs").rglob("*set_aside*"))
    assert {row["seeds_complete"] for row in table(folder).values()} == {"2"}


def test_a_table_never_mixes_runs_on_other_files_and_all_are_run_again(gone_on, cli):
    folder = gone_on[0]
    before = {seed: read_metrics(run_folder_of(folder, seed)) for seed in (0, 1)}
    write_texts(folder / "test.jsonl", seed=7)
    assert cli(*command(folder), "--table").code == 1
    with (folder / "runs" / "tried" / "table.csv").open() as file:
        assert {row["mean"] for row in csv.DictReader(file)} == {""}, "not even that of the control"
    assert cli(*command(folder)[:4], "--cell", "vanilla_mine/seed_1").code == 0
    assert cli(*command(folder), "--table").code == 1
    new = read_metrics(run_folder_of(folder, 1))
    assert new["data"]["splits"]["test"]["sha256"] != before[1]["data"]["splits"]["test"]["sha256"]
    assert table(folder)["test/accuracy"]["seeds_complete"] == "1"
    assert float(table(folder)["test/accuracy"]["mean"]) == pytest.approx(new["test"]["test/accuracy"])
    assert cli(*command(folder)[:4], "--cell", "vanilla_mine/seed_0").code == 0
    assert cli(*command(folder), "--table").code == 0
    assert table(folder)["test/accuracy"]["seeds_complete"] == "2"
    for seed in (0, 1):
        aside = run_folder_of(folder, seed).with_name(f"seed_{seed}.set_aside_0")
        assert read_metrics(aside) == before[seed]
