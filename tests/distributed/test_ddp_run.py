"""A run on two processes, started by the command line as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def command(root: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "attn_lightning", "fit", "--config", str(REPOSITORY / "experiments/ivat_planted.yaml"),
        "--data.train_documents=48", "--data.validation_documents=17", "--data.test_documents=17",
        "--data.max_length=20", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
        "--model.backbone.encoder.hidden_size=4", "--run.control=false",
        "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--run.root", str(root), *options,
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_leave_one_complete_run(tmp_path, prepared_data):
    environment = {**os.environ, "ATTN_LIGHTNING_CACHE": str(prepared_data), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command(tmp_path, "--trainer.max_epochs=1"),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    # Every process has the metrics of the whole split, and Lightning is told so: it warned of seventy names once.
    assert "sync_dist" not in result.stderr
    (folder,) = tmp_path.glob("ivat_planted/*")
    record = json.loads((folder / "metrics.json").read_text())
    assert record["status"] == "complete"
    assert record["cost"]["train_tokens"] == record["data"]["splits"]["train"]["tokens"]
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (folder / "checkpoints").iterdir()}
    rows = pq.read_table(folder / "predictions.parquet").column("row").to_pylist()
    assert sorted(rows) == list(range(17))
    assert not list(folder.glob(".*"))


@pytest.mark.slow
def test_a_killed_process_ends_the_other_with_a_line_that_names_it(tmp_path, prepared_data):
    environment = {**os.environ, "ATTN_LIGHTNING_CACHE": str(prepared_data), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(tmp_path, "--trainer.max_epochs=5000"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(line.startswith("epoch 2/") for line in process.stdout)
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "the process of rank 1 was killed by SIGKILL" in errors[0]
    assert "Traceback" not in said
    assert "gloo" not in said.lower()
    (folder,) = tmp_path.glob("ivat_planted/*")
    record = json.loads((folder / "metrics.json").read_text())
    assert record["status"] == "failed"
    assert "rank 1 was killed by SIGKILL" in record["error"]
    assert not list(folder.glob(".*"))
