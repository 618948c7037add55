"""Jobs of SLURM: the signal before the end of their time, and the processes."""

import os
import signal
import subprocess

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from attn_lightning.commands.slurm import cluster, requeued_in_time, was_requeued
from attn_lightning.errors import ConfigurationError
from attn_lightning.signals import Stopped


@pytest.fixture
def calls(monkeypatch):
    """What would have been said to SLURM."""
    said = []

    def run(command, **options):
        said.append(command)
        if "99" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    return said


@requeued_in_time()
def stopped(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2"}, "12_2"),
    ],
)
def test_the_signal_requeues_the_job(monkeypatch, calls, environment, job, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Stopped):
        stopped(signal.SIGUSR1)
    assert calls == [["scontrol", "requeue", job]]
    assert "its run will go on" in capsys.readouterr().out


def test_a_job_that_cannot_be_requeued_says_so(monkeypatch, calls, capsys):
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    with pytest.raises(Stopped):
        stopped(signal.SIGUSR1)
    assert "could not be requeued" in capsys.readouterr().out


def test_outside_a_job_the_signal_is_not_ours(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with requeued_in_time():
        assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize(("count", "expected"), [("", False), ("0", False), ("2", True)])
def test_a_requeued_job_is_known(monkeypatch, count, expected):
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    assert was_requeued() == expected


def test_lightning_does_not_requeue(monkeypatch):
    for name in ("SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.setenv(name, "1")
    found = cluster()
    assert isinstance(found, SLURMEnvironment)
    assert not found.auto_requeue


def test_without_srun_it_is_no_cluster(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    assert isinstance(cluster(), LightningEnvironment)


def test_what_lightning_refuses_is_one_line(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ConfigurationError, match="ntasks-per-node"):
        cluster()
