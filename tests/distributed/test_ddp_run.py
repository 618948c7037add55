"""A run on two processes, started by the command line as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_leave_one_complete_run(tmp_path, prepared_data):
    command = [
        sys.executable, "-m", "attn_lightning", "fit", "--config", str(REPOSITORY / "experiments/ivat_planted.yaml"),
        "--data.train_documents=48", "--data.validation_documents=17", "--data.test_documents=17",
        "--data.max_length=20", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
        "--model.backbone.encoder.hidden_size=4", "--trainer.max_epochs=1", "--run.control=false",
        "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu", "--run.root", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "ATTN_LIGHTNING_CACHE": str(prepared_data), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    # Every process has the metrics of the whole split, and Lightning is told so: it warned of seventy names once.
    assert "sync_dist" not in result.stderr
    (folder,) = tmp_path.glob("ivat_planted/*")
    record = json.loads((folder / "metrics.json").read_text())
    assert record["status"] == "complete"
    assert {"best.ckpt", "last.ckpt"} == {path.name for path in (folder / "checkpoints").iterdir()}
    rows = pq.read_table(folder / "predictions.parquet").column("row").to_pylist()
    assert sorted(rows) == list(range(17))
    assert not list(folder.glob(".*"))
