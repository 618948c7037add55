"""A real study as a job array of six cells, one of which is killed and one of which is told that its time is up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import slurm
from support.studies import tiny_study

pytest.importorskip("submitit", reason="needs the extra `slurm`")

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path):
    slurm.install(tmp_path / "bin")
    (tmp_path / "queue").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "FAKE_SLURM": str(tmp_path / "queue"), "OMP_NUM_THREADS": "1"}
    for note in (tmp_path / "queue").glob("*.pid"):  # of a test that has failed
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(note.read_text()), signal.SIGKILL)


def process_of(runs, name):
    """The process of a cell that has finished an epoch."""
    checkpoint = runs / name / "seed_0" / "checkpoints" / "last.ckpt"
    end = time.monotonic() + 280
    while not checkpoint.exists():
        assert time.monotonic() < end, f"{name} has not begun"
        time.sleep(0.05)
    return int(json.loads((runs / ".claims" / f"{name}.seed_0.lock").read_text())["pid"])


def attempts(runs):
    return {path.name.removesuffix(".log"): path.read_text().count("\n$ ") + 1 for path in runs.glob("logs/*.log")}


def test_an_array_of_six_cells_with_one_killed_and_one_requeued(tmp_path, environment):
    study = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "at", "ivat"], ["test/accuracy"], trainer__max_epochs=10)
    command = [sys.executable, "-m", "attn_lightning", "study", str(study), "--root", str(tmp_path / "runs")]
    options = ["--on", "slurm", "--jobs", "2", "--slurm.partition=short", "--no-report"]
    start = {"cwd": REPOSITORY, "env": environment, "text": True, "stdout": subprocess.PIPE}
    runs = tmp_path / "runs" / "tiny"
    with subprocess.Popen([*command, *options], stderr=subprocess.STDOUT, **start) as process:
        os.kill(process_of(runs, "vanilla_planted"), signal.SIGKILL)
        os.kill(process_of(runs, "at_planted"), signal.SIGUSR1)
        out, _ = process.communicate(timeout=280)
    assert process.returncode == 1, out
    assert "FAILED   vanilla_planted/seed_0" in out
    assert "SLURM ended job 100_0: FAILED" in out
    script = (tmp_path / "queue" / "100.sh").read_text()
    assert "--partition=short" in script
    assert "--array=0-5%2" in script
    again = subprocess.run([*command, *options], stderr=subprocess.STDOUT, timeout=280, check=False, **start)
    assert again.returncode == 0, again.stdout
    assert "(5 complete, 1 unfinished)" in again.stdout
    assert sorted(path.name for path in (tmp_path / "queue").glob("*.sh")) == ["100.sh", "101.sh"]
    assert "--array" not in (tmp_path / "queue" / "101.sh").read_text()
    twice = ("vanilla_planted.seed_0", "at_planted.seed_0")
    assert attempts(runs) == {
        f"{name}_planted.seed_{seed}": 1 + (f"{name}_planted.seed_{seed}" in twice)
        for name in ("vanilla", "at", "ivat")
        for seed in (0, 1)
    }
    folders = sorted(str(path.parent.relative_to(runs)) for path in runs.glob("*/*/metrics.json"))
    assert folders == sorted(f"{name}_planted/seed_{seed}" for name in ("vanilla", "at", "ivat") for seed in (0, 1))
    history = json.loads((runs / "at_planted" / "seed_0" / "metrics.json").read_text())["history"]
    assert [row["epoch"] for row in history] == list(range(10))
