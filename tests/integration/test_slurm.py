"""Runs in a SLURM job, which is simulated by its variables."""

import shutil

import pytest
import torch

SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.fixture
def in_slurm(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def test_a_checkpoint_of_another_run_in_the_current_folder_is_not_loaded(
    tiny_fit, finished, tmp_path, in_slurm, monkeypatch
):
    """Lightning looks for `hpc_ckpt_*.ckpt` in the current folder, whoever left it there."""
    shutil.copy(finished / "checkpoints" / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    monkeypatch.chdir(tmp_path)
    outcome = tiny_fit("--run.root", tmp_path / "runs", "--run.test=false", "--seed_everything=5")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("epoch ") == 2
    folder = tmp_path / "runs" / "ivat_planted" / "version_0"
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "hpc_ckpt_1.ckpt"}


def test_a_job_without_srun_is_one_process(tiny_fit, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    outcome = tiny_fit("--run.root", tmp_path, "--run.test=false", "--trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
