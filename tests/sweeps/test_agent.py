"""A real `wandb sweep` and a real `wandb agent` against a backend on the loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, TINY
from tests.sweeps.backend import Backend, serving

pytestmark = pytest.mark.slow

COMMAND = ["${env}", "${interpreter}", "-m", "attn_lightning", "fit", "--config", "ivat_planted", "--run.wandb=true"]
SMALL = [*TINY, "--run.suite=none", "--run.control=false"]


@pytest.fixture
def backend(tmp_path, monkeypatch):
    binaries = Path(sys.executable).parent
    with serving() as backend:
        for name, value in {
            "WANDB_BASE_URL": f"http://127.0.0.1:{backend.port}",
            "WANDB_API_KEY": "0" * 40,
            "WANDB_ENTITY": "me",
            "WANDB_AGENT_DISABLE_FLAPPING": "true",
            "HOME": str(tmp_path),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")
        yield backend


def run_agent(folder: Path, parameters: dict, *options: str) -> "subprocess.CompletedProcess[str]":
    """Register a sweep and let one agent run it to its end."""
    contents = {"method": "grid", "command": [*COMMAND, *SMALL, *options, "${args}"], "parameters": parameters}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(contents))
    command = [sys.executable, "-m", "attn_lightning", "sweep", "sweep.yaml", "--project", "p"]
    registered = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert registered.returncode == 0, registered.stderr
    agent = [sys.executable, "-m", "wandb", "agent", "me/p/sweep0"]
    return subprocess.run(agent, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def record(folder: Path, run: str) -> dict:
    return json.loads((folder / "runs" / "sweep_sweep0" / run / "metrics.json").read_text())


def test_a_grid_over_classes_runs_every_trial_in_a_folder_of_its_own(backend: Backend, tmp_path):
    """`method.epsilon` stands before or after `method`, as the server likes: both must arrive."""
    parameters = {"method": {"values": ["AttentionAT", "AttentionVAT"]}, "method.epsilon": {"value": 2.5}}
    agent = run_agent(tmp_path, parameters)
    assert agent.returncode == 0, agent.stderr
    classes = set()
    for name, run in backend.runs.items():
        found = record(tmp_path, name)
        classes.add(found["methods"][0]["class"])
        assert found["status"] == "complete"
        assert found["sweep"] == {"id": "sweep0", "run": name}
        assert found["methods"][0]["epsilon"] == 2.5
        assert run.exit_code == 0
        best = max(row["val/accuracy"] for row in found["history"])
        assert run.summary["best/val/accuracy"] == pytest.approx(best)
        assert run.summary["test/accuracy"] == pytest.approx(found["test"]["test/accuracy"])
        assert run.config["cfg/method.epsilon"]["value"] == 2.5
    assert classes == {"AttentionAT", "AttentionVAT"}


def test_a_nested_parameter_arrives_and_a_stop_from_the_server_is_an_interruption(backend: Backend, tmp_path):
    nested = {"class_path": {"value": "AttentionVAT"}, "init_args": {"parameters": {"xi": {"value": 0.5}}}}
    backend.stop_after["sweep0run0"] = 1
    run_agent(tmp_path, {"method": {"parameters": nested}}, "--trainer.max_epochs=100000")
    found = record(tmp_path, "sweep0run0")
    assert found["methods"][0]["xi"] == 0.5
    assert found["status"] == "interrupted"
    assert (tmp_path / "runs" / "sweep_sweep0" / "sweep0run0" / "checkpoints" / "last.ckpt").exists()
