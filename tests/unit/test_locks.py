"""One process in one place: locks of the system, and a marker where there are none."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from attn_lightning.locks import Claim, owner


def test_a_claim_excludes_others_until_it_is_released(tmp_path):
    path = tmp_path / "new" / ".lock"
    claim = Claim(path)
    with pytest.raises(BlockingIOError):
        Claim(path)
    assert owner(path).startswith(f"process {os.getpid()} on {socket.gethostname()} since ")
    claim.release()
    Claim(path).release()


def test_a_dead_process_holds_nothing(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from attn_lightning.locks import Claim\n"
        "claim = Claim(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / ".lock"], timeout=60).returncode == -9
    Claim(tmp_path / ".lock").release()


def test_a_process_that_inherits_the_claim_keeps_it(tmp_path):
    claim = Claim(tmp_path / ".lock")
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=(claim.descriptor,)) as process:
        claim.release()
        with pytest.raises(BlockingIOError):
            Claim(tmp_path / ".lock")
        process.communicate()
    Claim(tmp_path / ".lock").release()


def test_a_removed_lock_file_is_made_anew(tmp_path):
    Claim(tmp_path / ".lock").release(remove=True)
    assert list(tmp_path.iterdir()) == []
    Claim(tmp_path / ".lock").release()


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_a_marker_stands_for_one_and_it_is_said(tmp_path, without_locks, caplog):
    path = tmp_path / ".lock"
    claim = Claim(path)
    assert "No locks available" in caplog.text
    with pytest.raises(BlockingIOError):
        Claim(path)
    assert f"remove {tmp_path / '.lock.held'}" in owner(path)
    claim.release(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_who_waits_without_locks_is_told_so_once(tmp_path, without_locks, caplog):
    Claim(tmp_path / ".lock")
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            Claim(tmp_path / ".lock")
    assert caplog.text.count("No locks available") == 1


def test_the_marker_of_a_dead_process_is_taken_over_that_of_another_machine_is_not(tmp_path, without_locks):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    marker = tmp_path / ".lock.held"
    contents = {"pid": ended.pid, "host": socket.gethostname(), "started": "yesterday"}
    marker.write_text(json.dumps(contents))
    Claim(tmp_path / ".lock").release()
    marker.write_text(json.dumps({**contents, "host": "elsewhere"}))
    with pytest.raises(BlockingIOError):
        Claim(tmp_path / ".lock")
    assert "process" in owner(tmp_path / ".lock")


def test_an_error_of_another_kind_is_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        Claim(tmp_path / ".lock")


@pytest.mark.parametrize("contents", [None, "", "{}", "[]", "not json"])
def test_an_owner_that_left_no_word_is_another_process(tmp_path, contents):
    path = tmp_path / "a.lock"
    if contents is not None:
        path.write_text(contents)
    assert owner(path) == "another process"
