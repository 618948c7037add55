"""Jobs on this machine: a small program stands for the command, so that nothing heavy is imported."""

import os
import textwrap
import time

import pytest

from attn_lightning.study.engines import Job
from attn_lightning.study.engines.local import LocalEngine

PROGRAM = """
    import os, signal, sys, time
    print("argument", sys.argv[1], "threads", os.environ["OMP_NUM_THREADS"], "sees", os.environ.get("SEEN"), flush=True)
    print("session", os.getsid(0) == os.getpid(), "input", sys.stdin.read() == "", "tty", sys.stdout.isatty())
    match sys.argv[1]:
        case "fails":
            sys.exit(3)
        case "exits":
            os._exit(4)
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "raises":
            raise ValueError("a mistake")
        case "sleeps":
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("interrupted in order")
        case "child":
            if os.fork() == 0:
                time.sleep(60)
            os.wait()
"""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    (tmp_path / "small_program.py").write_text(textwrap.dedent(PROGRAM))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    made = LocalEngine(8, program="small_program", preload=())
    yield made
    made.close()


def submit(engine, tmp_path, *names):
    for name in names:
        engine.submit(Job(name, (name,), tmp_path / "logs" / f"{name}.log"))


def until_all_ended(engine, count, seconds=30.0):
    found, end = [], time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < end
        found += engine.ended(1.0)
    return {ended.name: (ended.code, ended.reason) for ended in found}


def log(tmp_path, name):
    return (tmp_path / "logs" / f"{name}.log").read_text()


def test_no_job_takes_others_with_it(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEN", "yes")
    monkeypatch.setattr("attn_lightning.study.engines.local.cores", lambda: 16)
    submit(engine, tmp_path, "works", "fails", "exits", "crashes", "raises")
    assert until_all_ended(engine, 5) == {
        "works": (0, ""),
        "fails": (3, ""),
        "exits": (4, ""),
        "crashes": (-11, "killed by SIGSEGV"),
        "raises": (1, ""),
    }
    assert log(tmp_path, "works").splitlines() == [
        "$ python -m small_program works",
        "argument works threads 2 sees yes",
        "session True input True tty False",
    ]
    assert "ValueError: a mistake" in log(tmp_path, "raises")


def test_threads_that_the_user_has_chosen_stay(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    submit(engine, tmp_path, "works")
    until_all_ended(engine, 1)
    assert "threads 3" in log(tmp_path, "works")
    assert "SEEN" not in os.environ


def test_closing_interrupts_what_runs_and_all_that_it_has_started(engine, tmp_path):
    submit(engine, tmp_path, "sleeps", "child")
    while "session" not in log_or_empty(tmp_path, "sleeps") or "session" not in log_or_empty(tmp_path, "child"):
        time.sleep(0.02)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 20
    assert log(tmp_path, "sleeps").splitlines()[-1] == "interrupted in order"
    assert engine.ended(0.0) == []


def test_one_job_can_be_stopped_while_others_go_on(engine, tmp_path):
    submit(engine, tmp_path, "sleeps", "child")
    while "session" not in log_or_empty(tmp_path, "sleeps"):
        time.sleep(0.02)
    engine.stop("sleeps")
    assert until_all_ended(engine, 1) == {"sleeps": (-15, "killed by SIGTERM")}


def log_or_empty(tmp_path, name):
    path = tmp_path / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""
