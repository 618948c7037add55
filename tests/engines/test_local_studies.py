"""Studies on this machine that are killed, interrupted and shared, with cells that only write the files of a run."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import psutil
import pytest
from rich.console import Console

from attn_lightning.study.display import Display
from attn_lightning.study.engines.local import LocalEngine
from attn_lightning.study.scheduler import Scheduler
from support import cells
from support.cells import parse, planned

pytestmark = pytest.mark.slow

PRELOAD = ("support.cells",)

STUDY = """
    import sys
    from pathlib import Path
    from rich.console import Console
    from attn_lightning.signals import stopping_raises
    from attn_lightning.study.display import Display
    from attn_lightning.study.engines.local import LocalEngine
    from attn_lightning.study.scheduler import Scheduler
    from support import cells

    root, count = Path(sys.argv[1]), int(sys.argv[2])
    if __name__ == "__main__":
        plan = [cells.planned("a", seed) for seed in range(count)]
        engine = LocalEngine(2, program="support.cells", preload=("support.cells",))
        with stopping_raises():
            display = Display(count, 0, Console(width=500))
            Scheduler(root, engine, lambda cell: cells.command(root, cell), cells.parse, display).run(plan)
"""


@pytest.fixture(scope="module", autouse=True)
def warm_server():
    """A server that has imported what the cells need: one that other tests have started would not."""
    path = os.pathsep.join([str(Path(cells.__file__).parents[1]), *sys.path])
    with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
        forkserver._forkserver._stop()
        yield
        forkserver._forkserver._stop()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def start(tmp_path, root):
    """Start a study of so many cells in a process of its own."""
    script = tmp_path / "study.py"
    script.write_text(textwrap.dedent(STUDY))
    started = []

    def one(count, seconds, output=subprocess.PIPE):
        environment = {**os.environ, "FAKE_SECONDS": str(seconds)}
        command = [sys.executable, str(script), str(root), str(count)]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield one
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def run_here(root, count):
    output = io.StringIO()
    display = Display(count, 0, Console(file=output, width=500))
    engine = LocalEngine(2, program="support.cells", preload=PRELOAD)
    runner = Scheduler(root, engine, lambda cell: cells.command(root, cell), parse, display)
    runner.run([planned("a", seed) for seed in range(count)])
    return runner, output.getvalue()


def states(root, count):
    return [planned("a", seed).state(root, parse).state for seed in range(count)]


def starts(root, seed):
    return (root / "a" / f"seed_{seed}" / "starts.txt").read_text().splitlines()


def num_begun(root):
    return len(list(root.glob("a/*/checkpoints/last.ckpt")))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_killed_study_leaves_its_runs_to_the_next_one(start, root, monkeypatch):
    process = start(3, 6, subprocess.DEVNULL)
    wait_for(lambda: num_begun(root) == 2)
    process.kill()
    process.wait()
    pids = [line.split()[0] for seed in (0, 1) for line in starts(root, seed)]
    monkeypatch.setenv("FAKE_SECONDS", "0")
    runner, output = run_here(root, 3)
    assert states(root, 3) == ["complete"] * 3
    # The two runs outlived their study and were waited for; nobody started them again.
    assert [len(starts(root, seed)) for seed in range(3)] == [1, 1, 1]
    assert runner.failed == {}
    assert all(f"is being run by process {pid} on " in output for pid in pids)


def test_killed_together_with_its_runs_it_resumes_them(start, root, monkeypatch):
    process = start(3, 60)
    wait_for(lambda: num_begun(root) == 2)
    process.kill()
    for seed in (0, 1):
        os.kill(int(starts(root, seed)[0].split()[0]), signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    _, output = run_here(root, 3)
    assert states(root, 3) == ["complete"] * 3
    assert [len(starts(root, seed)) for seed in range(3)] == [2, 2, 1]
    assert output.count("resumed") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_runs_in_order(start, root, number):
    process = start(3, 60)
    wait_for(lambda: num_begun(root) == 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in out or "Stopped" in out
    for seed in (0, 1):
        record = json.loads((root / "a" / f"seed_{seed}" / "metrics.json").read_text())
        assert record["status"] == "interrupted"
    assert not (root / "a" / "seed_2").exists()


def test_a_run_that_the_system_kills_is_a_failed_cell_and_the_others_go_on(start, root):
    process = start(3, 3)
    wait_for(lambda: num_begun(root) >= 1)
    (seed,) = [seed for seed in range(3) if (root / "a" / f"seed_{seed}" / "checkpoints").exists()][:1]
    os.kill(int(starts(root, seed)[0].split()[0]), signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert sorted(states(root, 3)) == ["complete", "complete", "unfinished"]
    assert f"FAILED   a/seed_{seed}" in out
    assert "killed by SIGKILL" in out


def test_five_hundred_cells_two_shells_and_one_of_them_killed(start, root):
    count = 500
    first, second = (start(count, 0, subprocess.DEVNULL) for _ in range(2))
    wait_for(lambda: num_begun(root) > 100, 240)
    family = [first.pid, *(child.pid for child in psutil.Process(first.pid).children(recursive=True))]
    for pid in family:
        kill(pid)
    assert second.wait(timeout=300) == 0
    first.wait()
    runner, _ = run_here(root, count)
    assert runner.failed == {}
    assert states(root, count) == ["complete"] * count
    begun = [len(starts(root, seed)) for seed in range(count)]
    # Only what the killed shell was at may have been taken up again.
    assert begun.count(1) >= count - 2
    assert set(begun) <= {1, 2}


def kill(pid):
    with contextlib.suppress(ProcessLookupError):  # a cell that has ended by itself
        os.kill(pid, signal.SIGKILL)
