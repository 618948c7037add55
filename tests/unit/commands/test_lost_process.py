"""Which process of a job died, said in words; real ones are killed in tests/distributed."""

import subprocess
import sys

import pytest
from lightning.pytorch.strategies.launchers import subprocess_script

from attn_lightning.commands.lost_process import ProcessLost, Watch, watched
from attn_lightning.errors import NumericalError

GLOO = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "rank 1 was killed by SIGKILL"),
        ("raise SystemExit(3)", "rank 1 ended with code 3"),
    ],
)
def test_a_child_that_died_is_named(program, words):
    child = subprocess.Popen([sys.executable, "-c", program])
    child.wait()
    with watched() as watch:
        watch.start([child])
        found = watch.explained(GLOO)
    assert isinstance(found, ProcessLost)
    assert words in str(found)
    assert "\n" not in str(found)
    assert "gloo" not in str(found), "what the network reports says nothing more"


@pytest.mark.parametrize(("rank", "other"), [("0", "rank 1"), ("1", "rank 0")])
def test_of_two_processes_it_was_the_other(monkeypatch, rank, other):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert other in str(Watch().explained(GLOO))


def test_among_many_it_is_not_guessed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert "one of the other processes" in str(Watch().explained(GLOO))


@pytest.mark.parametrize("size", ["2", "8"])
def test_where_nobody_is_known_to_have_died_the_cause_is_kept(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    said = RuntimeError("NCCL error: invalid usage\n  Duplicate GPU detected : rank 0 and rank 1 both on device 7000")
    found = str(Watch().explained(said))
    assert "NCCL error: invalid usage Duplicate GPU detected : rank 0 and rank 1 both on device 7000" in found
    assert "\n" not in found


@pytest.mark.parametrize("error", [NumericalError("nccl"), RuntimeError("shapes differ"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error):
    assert Watch().explained(error) is error


def test_the_observer_of_lightning_is_put_back():
    before = vars(subprocess_script)["_launch_process_observer"]
    with watched():
        assert vars(subprocess_script)["_launch_process_observer"] is not before
    assert vars(subprocess_script)["_launch_process_observer"] is before
