"""Runs that are told to stop from outside, in processes of their own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attn_lightning.run_folder import read_metrics
from support.results import record, weights

REPOSITORY = Path(__file__).resolve().parents[2]

OPTIONS = (
    "--data.train_documents=96", "--data.validation_documents=32", "--data.test_documents=40", "--data.max_length=20",
    "--data.batch_size=16", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4", "--trainer.accelerator=cpu", "--run.suite=none", "--run.control=false",
)  # fmt: skip


def command(root: Path, *options: str) -> list[str]:
    config = str(REPOSITORY / "experiments" / "ivat_planted.yaml")
    return [sys.executable, "-m", "attn_lightning", "fit", "--config", config, *OPTIONS, f"--run.root={root}", *options]


def stopped_after(line: str, number: int, arguments: list[str], **environment: str) -> tuple[int, str]:
    """Send a signal when the run has printed a line; its exit code and all it said."""
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stdout is not None
        said = []
        for text in process.stdout:
            said.append(text)
            if re.match(line, text):
                process.send_signal(number)
                line = "never again"
    return process.returncode, "".join(said)


@pytest.mark.slow
def test_sigterm_leaves_an_interrupted_run_that_goes_on_exactly(tmp_path, tiny_fit):
    code, said = stopped_after("epoch 2/4", signal.SIGTERM, command(tmp_path / "broken", "--trainer.max_epochs=4"))
    assert code == 143, said
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    broken, whole = (tmp_path / name / "ivat_planted" / "version_0" for name in ("broken", "whole"))
    assert read_metrics(broken)["status"] == "interrupted"
    assert not list(broken.glob(".*"))
    options = ["--trainer.max_epochs=4", "--run.suite=none", "--run.control=false"]
    outcome = tiny_fit("--run.root", tmp_path / "broken", *options, "--run.resume=auto")
    assert outcome.code == 0, outcome.err
    assert "epoch 1/4" not in outcome.out
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    assert record(broken) == record(whole)
    assert weights(broken, "last") == weights(whole, "last")


SLURM = {
    "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}  # fmt: skip


@pytest.mark.slow
def test_sigusr1_in_a_slurm_job_requeues_it_and_the_run_goes_on(tmp_path):
    tools, calls = tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (tools / "scontrol").chmod(0o755)
    environment = {**SLURM, "PATH": f"{tools}:{os.environ['PATH']}"}
    arguments = command(tmp_path / "runs", "--trainer.max_epochs=3", "--run.test=false")
    code, said = stopped_after("epoch 2/3", signal.SIGUSR1, arguments, **environment)
    assert code == 128 + signal.SIGUSR1, said
    assert calls.read_text() == "requeue 1234\n"
    (folder,) = (tmp_path / "runs" / "ivat_planted").iterdir()
    assert read_metrics(folder)["status"] == "interrupted"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    again = {**os.environ, **environment, "SLURM_RESTART_COUNT": "1"}
    result = subprocess.run(arguments, capture_output=True, text=True, env=again, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "epoch 1/3" not in result.stdout
    assert [path.name for path in (tmp_path / "runs" / "ivat_planted").iterdir()] == ["version_0"]
    assert [row["epoch"] for row in read_metrics(folder)["history"]] == [0, 1, 2]
