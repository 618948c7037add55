"""A disk that is full during a training and during a study."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attn_lightning.run_folder import read_metrics

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

PROGRAM = [sys.executable, "-m", "attn_lightning"]

OPTIONS = {
    "data.train_documents": 96, "data.validation_documents": 32, "data.test_documents": 40, "data.max_length": 20,
    "data.batch_size": 16, "data.embeddings": "RandomEmbeddings", "data.embeddings.dimension": 8,
    "model.backbone.encoder.hidden_size": 4, "trainer.accelerator": "cpu",
}  # fmt: skip
BRIEF = ("--run.suite=none", "--run.control=false", "--run.report=false")


def small_files_only(limit: int) -> None:
    """In the child: a write that would make a file larger fails, as on a full disk, and no signal ends the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run(*arguments: object, limit: int | None = None, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env={**os.environ, "ATTN_LIGHTNING_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        preexec_fn=None if limit is None else lambda: small_files_only(limit),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def fit(root: Path, *options: str) -> list[str]:
    given = [f"--{name}={value}" for name, value in OPTIONS.items()]
    return ["fit", "--config", str(EXPERIMENTS / "ivat_planted.yaml"), *given, *BRIEF, f"--run.root={root}", *options]


@pytest.mark.slow
def test_a_full_disk_during_a_training_leaves_the_checkpoint_before(tmp_path: Path, prepared_data: Path) -> None:
    whole = fit(tmp_path, "--trainer.max_epochs=2", "--run.version=v", "--run.test=false", "--run.resume=auto")
    assert run(*whole, cache=prepared_data).returncode == 0
    folder = tmp_path / "ivat_planted" / "v"
    last = folder / "checkpoints" / "last.ckpt"
    before, limit = last.read_bytes(), last.stat().st_size // 2
    longer = ["fit", f"--ckpt_path={last}", "--trainer.max_epochs=4"]
    outcome = run(*longer, limit=limit, cache=prepared_data)
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("error: ") == outcome.stderr.count("make room") == 1
    assert last.read_bytes() == before
    torch.load(last, weights_only=True)
    record = read_metrics(folder)
    assert record["status"] == "failed"
    assert "File too large" in record["error"]
    outcome = run(*longer, cache=prepared_data)
    assert outcome.returncode == 0, outcome.stderr
    assert read_metrics(folder)["status"] == "complete"
    assert len(read_metrics(folder)["history"]) == 4


def study_file(folder: Path, **extra: object) -> Path:
    options = {**OPTIONS, "trainer.max_epochs": 1, "run.suite": "none", **extra}
    lines = [f"  {name}: {value}" for name, value in options.items()]
    text = [
        "methods: [vanilla, ivat]",
        "data: [planted]",
        "seeds: 1",
        f"experiments: {EXPERIMENTS}",
        "options:",
        *lines,
    ]
    path = folder / "tiny.yaml"
    path.write_text("\n".join([*text, "metrics: [test/accuracy]", ""]))
    return path


@pytest.mark.slow
def test_a_full_disk_during_a_study_is_said_and_the_next_call_finishes(tmp_path: Path, prepared_data: Path) -> None:
    study, root = study_file(tmp_path), tmp_path / "runs"
    call = ["study", study, "--root", root, "--jobs", 1, "--no-report"]
    outcome = run(*call, limit=20_000, cache=prepared_data)  # no checkpoint fits
    assert outcome.returncode == 1
    said = outcome.stdout + outcome.stderr
    assert said.count("FAILED") >= 2  # the first did not take the second with it
    assert "File too large" in said
    assert "Traceback" not in said
    outcome = run(*call, "--retry-failed", cache=prepared_data)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    for method in ("vanilla", "ivat"):
        assert read_metrics(root / "tiny" / f"{method}_planted" / "seed_0")["status"] == "complete"
