"""A Ray cluster of local nodes, of which workers and nodes are killed and to which one is added."""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from unittest import mock

import psutil
import pytest
from rich.console import Console

from attn_lightning.study.display import Display
from attn_lightning.study.engines import Job
from attn_lightning.study.scheduler import Scheduler
from support import light_cell
from support.cells import parse, planned
from support.ports import free_ports

ray = pytest.importorskip("ray", reason="needs the extra `ray`")

from attn_lightning.study.engines.on_ray import RayEngine  # noqa: E402

pytestmark = pytest.mark.slow

COUNT = 12

QUICK_FIT = """
    import json, pathlib, sys
    options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
    folder = pathlib.Path(options["run.root"], options["run.name"], options["run.version"])
    folder.mkdir(parents=True)
    epoch = {"epoch": 0, "val/accuracy": float(options["method.epsilon"])}
    record = {"status": "complete", "history": [epoch], "best": epoch}
    (folder / "metrics.json").write_text(json.dumps(record))
"""


def family(process):
    found = psutil.Process(process.pid)
    return [found, *found.children(recursive=True)]


def kill(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, 20)


class Cluster:
    """A head node and others, each of `ray start`."""

    def __init__(self, temporary):
        self.port, self.client = free_ports(2)
        self.temporary = temporary
        self.nodes = []
        self.all = set()
        ports = (f"--port={self.port}", f"--ray-client-server-port={self.client}", f"--temp-dir={temporary}")
        self.start("--head", "--include-dashboard=false", *ports)
        self.wait_until_reachable(self.client)

    def start(self, *options):
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=2", *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        limits = ["--object-store-memory=80000000", "--disable-usage-stats"]
        self.nodes.append(subprocess.Popen([*command, *limits], **quiet))

    def join(self):
        self.start(f"--address=127.0.0.1:{self.port}")
        return self.nodes[-1]

    @staticmethod
    def wait_until_reachable(port):
        end = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert time.monotonic() < end, "the head node did not start"
                time.sleep(0.2)

    def close(self):
        kill([process for node in self.nodes if node.poll() is None for process in family(node)])
        for node in self.nodes:
            node.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One for all tests of this file: it takes a while to start."""
    tests, scripts = Path(light_cell.__file__).parents[1], tmp_path_factory.mktemp("scripts")
    (scripts / "quick_fit.py").write_text(textwrap.dedent(QUICK_FIT))
    path = os.pathsep.join([str(tests), str(scripts), *filter(None, sys.path)])
    temporary = tempfile.mkdtemp(dir="/tmp", prefix="ray")  # a socket's name may have 107 characters
    with mock.patch.dict(os.environ, {"PYTHONPATH": path}):
        made = Cluster(temporary)
        yield made
        made.close()
    shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(autouse=True)
def disconnected():
    yield
    ray.shutdown()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def runs_on(node):
    """The processes of cells that a node has started."""
    return [process for process in family(node) if "support.light_cell" in line_of(process)]


def begun_on(node, root):
    """Whether a cell of a node has made its run folder."""
    noted = {int(line) for path in root.glob("a/*/starts.txt") for line in lines(path)}
    return any(process.pid in noted for process in runs_on(node))


def line_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie
        return ""


def worker_of(cell):
    return next(parent for parent in cell.parents() if "ray::" in line_of(parent))


def test_twelve_cells_while_a_worker_and_a_node_die_and_a_node_joins(cluster, tmp_path):
    second = cluster.join()
    engine = RayEngine(f"127.0.0.1:{cluster.port}", program="support.light_cell")
    wait_for(lambda: ray.cluster_resources().get("CPU", 0) == 4)
    root, output = tmp_path / "study", io.StringIO()
    cells = [planned("a", seed) for seed in range(COUNT)]

    def disturb():
        wait_for(lambda: begun_on(cluster.nodes[0], root) and begun_on(second, root))
        # The worker alone: its cell lives on and keeps its claim, and whoever comes second has to wait for it.
        os.kill(worker_of(runs_on(cluster.nodes[0])[0]).pid, signal.SIGKILL)
        kill(family(second))
        cluster.join()

    thread = threading.Thread(target=disturb)
    thread.start()
    display = Display(COUNT, 0, Console(file=output, width=500))
    runner = Scheduler(root, engine, lambda plan: [str(root), "a", str(plan.cell.seed), "3"], parse, display)
    runner.run(cells)
    thread.join()
    assert runner.failed == {}, output.getvalue()
    assert [cell.state(root, parse).state for cell in cells] == ["complete"] * COUNT
    ends = [len(lines(root / "a" / f"seed_{seed}" / "ends.txt")) for seed in range(COUNT)]
    assert ends == [1] * COUNT
    starts = [len(lines(root / "a" / f"seed_{seed}" / "starts.txt")) for seed in range(COUNT)]
    assert sum(starts) > COUNT, "nothing was lost, so nothing was shown"
    assert len(list((root / "a").iterdir())) == COUNT


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{client}"])
def test_one_task_is_stopped_in_order_and_a_command_killed_is_tried_again(cluster, tmp_path, address):
    engine = RayEngine(address.format_map(vars(cluster)), program="support.light_cell")
    for seed, seconds in ((0, "600"), (1, "3")):
        arguments = (str(tmp_path), "a", str(seed), seconds)
        engine.submit(Job(f"a/{seed}", arguments, tmp_path / "logs" / f"{seed}.log"))
    starts = [tmp_path / "a" / f"seed_{seed}" / "starts.txt" for seed in (0, 1)]
    wait_for(lambda: all(path.exists() for path in starts))
    engine.stop("a/0")
    os.kill(int(lines(starts[1])[0]), signal.SIGKILL)
    ended = []
    while len(ended) < 2:
        ended += engine.ended(60)
    assert {one.name: (one.code, one.reason) for one in ended} == {"a/0": (None, "stopped"), "a/1": (0, "")}
    assert [len(lines(path)) for path in starts] == [1, 2]
    assert not psutil.pid_exists(int(lines(starts[0])[0]))
    engine.close()


def test_a_search_of_which_every_trial_is_a_task(cluster, tmp_path):
    pytest.importorskip("optuna", reason="needs the extra `search`")
    from attn_lightning.study.search import Search
    from attn_lightning.study.sweeps import read_sweep

    path = tmp_path / "quick.yaml"
    path.write_text(
        "command: ['${env}', '${interpreter}', -m, attn_lightning, fit, '${args}']\n"
        "method: grid\n"
        "metric: {name: best/val/accuracy, goal: maximize}\n"
        "parameters: {method.epsilon: {values: [0.25, 0.75, 0.5]}}\n"
    )
    search = Search(read_sweep(path), tmp_path / "runs")
    search.run(9, RayEngine(f"127.0.0.1:{cluster.port}", program="quick_fit"), 2, lambda line: None)
    assert [trial.value for trial in search.study.trials] == [0.25, 0.75, 0.5]
    assert search.study.best_params == {"method.epsilon": 0.75}
