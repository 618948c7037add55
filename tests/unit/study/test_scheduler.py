"""Running cells: a program that only writes the files of a run stands for `fit`, so that deaths cost no training."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from attn_lightning.study.display import Display
from attn_lightning.study.expansion import Cell
from attn_lightning.study.scheduler import Planned, Scheduler
from attn_lightning.study.state import Wanted, cell_state, comparable

FAKE = """
import json, os, sys, time
from pathlib import Path

options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv if a.startswith("--") and "=" in a)
if options.get("run.resume") == "auto":
    folder = Path(options["run.root"]) / options["run.name"] / options["run.version"]
    if "refuses" in str(folder):
        sys.exit("error: no resuming here")
else:
    if options.get("behave") == "broken":
        sys.exit("error: no such option")
    folder = Path(options["run.root"]) / options["run.name"] / options["run.version"]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps({"seed_everything": int(options["seed_everything"])}))
started = folder / "starts.txt"
with started.open("a") as file:
    file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}\\n")

def record(**contents):
    (folder / ".new").write_text(json.dumps(contents))
    (folder / ".new").replace(folder / "metrics.json")

record(status="running")
if options.get("behave") == "fails":
    record(status="failed", error="NumericalError: not finite")
    sys.exit(1)
(folder / "checkpoints").mkdir(exist_ok=True)
(folder / "checkpoints" / "last.ckpt").write_text("")
try:
    time.sleep(float(os.environ["FAKE_SECONDS"]))
except KeyboardInterrupt:
    record(status="interrupted")
    sys.exit(1)
record(status="complete", test={"test/accuracy": 0.5})
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    monkeypatch.setenv("FAKE_SECONDS", "0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return (sys.executable, "-S", str(path))


def planned(name, seed=0, retry=False, **options):
    cell = Cell(name, "planted", "", seed, Path("x.yaml"), tuple(options.items()), name, True)
    return Planned(cell, Wanted(comparable({"seed_everything": seed})), retry)


def based(name, base, seed=0, **options):
    """A cell that begins from the run `base` of its seed."""
    values = (*options.items(), ("method.base", "{first}/checkpoints/last.ckpt"))
    cell = Cell(name, "planted", "", seed, Path("x.yaml"), values, name, True, (("first", base),))
    return Planned(cell, Wanted(comparable({"seed_everything": seed})))


def parse(arguments):
    return yaml.safe_load(Path(arguments[2]).read_text())


def scheduler(tmp_path, fake, jobs=2):
    output = io.StringIO()
    display = Display(9, 0, Console(file=output, width=500))
    return Scheduler(tmp_path / "study", jobs, parse, display, {}, fake), output


def state(tmp_path, plan):
    root = tmp_path / "study"
    return cell_state(plan.cell.folder(root), plan.wanted, parse, plan.cell.base_files(root)).state


def starts(tmp_path, name, seed=0):
    return (tmp_path / "study" / name / f"seed_{seed}" / "starts.txt").read_text().splitlines()


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_failures_stay_with_their_cell(tmp_path, fake):
    plan = [planned("a"), planned("b", behave="fails"), planned("c", behave="broken"), planned("d")]
    runner, output = scheduler(tmp_path, fake)
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["complete", "failed", "missing", "complete"]
    errors = {cell.name: error for cell, error in runner.failed.items()}
    assert errors == {"b": "NumericalError: not finite", "c": "error: no such option"}
    assert "no such option" in (tmp_path / "study" / "logs" / "c.seed_0.log").read_text()
    assert "FAILED   c/seed_0" in output.getvalue()
    assert "[4/9]" in output.getvalue()


def test_the_cores_are_shared_unless_the_user_says_otherwise(tmp_path, fake, monkeypatch):
    monkeypatch.setattr("attn_lightning.study.scheduler.cores", lambda: 8)
    scheduler(tmp_path, fake, jobs=2)[0].run([planned("a")])
    assert starts(tmp_path, "a")[0].split()[1] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    scheduler(tmp_path, fake, jobs=2)[0].run([planned("b")])
    assert starts(tmp_path, "b")[0].split()[1] == "3"


def test_a_failed_cell_runs_again_only_if_asked_and_is_kept(tmp_path, fake):
    scheduler(tmp_path, fake)[0].run([planned("a", behave="fails")])
    scheduler(tmp_path, fake)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "failed"
    runner, output = scheduler(tmp_path, fake)
    runner.run([planned("a", retry=True)])
    assert state(tmp_path, planned("a")) == "complete"
    kept = tmp_path / "study" / "a" / "seed_0.set_aside_0" / "metrics.json"
    assert json.loads(kept.read_text())["status"] == "failed"
    assert "seed_0.set_aside_0" in output.getvalue()


def test_a_run_of_another_configuration_is_set_aside(tmp_path, fake):
    scheduler(tmp_path, fake)[0].run([planned("a")])
    config = tmp_path / "study" / "a" / "seed_0" / "config.yaml"
    config.write_text("seed_everything: 0\ntrainer: {max_epochs: 99}\n")
    assert state(tmp_path, planned("a")) == "different"
    scheduler(tmp_path, fake)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert "99" in (tmp_path / "study" / "a" / "seed_0.set_aside_0" / "config.yaml").read_text()


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path, fake):
    unfinished(tmp_path, "a")
    runner, output = scheduler(tmp_path, fake)
    runner.run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert "resumed  a/seed_0" in output.getvalue()
    assert not list((tmp_path / "study" / "a").glob("*.set_aside_*"))


def test_one_that_cannot_be_resumed_starts_again_beside_it(tmp_path, fake):
    unfinished(tmp_path, "refuses")
    runner, output = scheduler(tmp_path, fake)
    runner.run([planned("refuses")])
    assert state(tmp_path, planned("refuses")) == "complete"
    assert (tmp_path / "study" / "refuses" / "seed_0.set_aside_0" / "metrics.json").exists()
    assert "could not be resumed" in output.getvalue()
    assert runner.failed == {}


def test_one_without_a_checkpoint_is_set_aside(tmp_path, fake):
    unfinished(tmp_path, "a")
    (tmp_path / "study" / "a" / "seed_0" / "checkpoints" / "last.ckpt").unlink()
    scheduler(tmp_path, fake)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert (tmp_path / "study" / "a" / "seed_0.set_aside_0").is_dir()


def unfinished(tmp_path, name):
    folder = tmp_path / "study" / name / "seed_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    (folder / "metrics.json").write_text('{"status": "running"}')


STUDY = """
    import io, sys
    from pathlib import Path
    from attn_lightning.signals import stopping_raises
    sys.path.insert(0, {here!r})
    from test_scheduler import parse, planned, Scheduler, Display, Console
    display = Display(3, 0, Console(width=500))
    plan = [planned("a", seed) for seed in range(3)]
    with stopping_raises():
        Scheduler(Path({root!r}), 2, parse, display, {{}}, {fake!r}).run(plan)
"""


def study_process(tmp_path, fake, seconds):
    script = tmp_path / "study.py"
    here = str(Path(__file__).parent)
    script.write_text(textwrap.dedent(STUDY.format(here=here, root=str(tmp_path / "study"), fake=list(fake))))
    return subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "FAKE_SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def checkpoints(tmp_path, count):
    return lambda: len(list((tmp_path / "study" / "a").glob("*/checkpoints/last.ckpt"))) >= count


def test_what_begins_from_another_run_waits_for_it_while_others_go_on(tmp_path, fake, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    plan = [based("c", "b"), based("b", "a"), planned("a"), planned("d")]
    runner, output = scheduler(tmp_path, fake)
    runner.run(plan)
    assert runner.failed == {}
    assert [state(tmp_path, p) for p in plan] == ["complete"] * 4
    started = [line.split()[1] for line in output.getvalue().splitlines() if line.startswith("started")]
    assert started == ["a/seed_0", "d/seed_0", "b/seed_0", "c/seed_0"]
    lines = output.getvalue()
    assert lines.index("done     a/seed_0") < lines.index("started  b/seed_0")
    assert lines.index("done     b/seed_0") < lines.index("started  c/seed_0")


def test_without_its_base_a_cell_is_not_started(tmp_path, fake):
    plan = [planned("a", behave="fails"), based("b", "a"), based("c", "gone"), planned("d")]
    runner, output = scheduler(tmp_path, fake)
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["failed", "missing", "missing", "complete"]
    errors = {cell.name: error for cell, error in runner.failed.items()}
    assert f"begins from {tmp_path / 'study' / 'a' / 'seed_0'}, which is not complete" in errors["b"]
    assert "gone" in errors["c"]
    assert "FAILED   b/seed_0 (not started)" in output.getvalue()
    scheduler(tmp_path, fake)[0].run([planned("a", retry=True), based("b", "a")])
    assert [state(tmp_path, p) for p in plan[:2]] == ["complete", "complete"]


def test_a_base_made_again_makes_what_began_from_it_again(tmp_path, fake):
    plan = [planned("a"), based("b", "a")]
    scheduler(tmp_path, fake)[0].run(plan)
    checkpoint = tmp_path / "study" / "a" / "seed_0" / "checkpoints" / "last.ckpt"
    later = time.time() + 60
    os.utime(checkpoint, (later, later))
    assert [state(tmp_path, p) for p in plan] == ["complete", "different"]
    os.utime(checkpoint, (1, 1))
    assert [state(tmp_path, p) for p in plan] == ["complete", "complete"]
    checkpoint.unlink()  # what is gone cannot be newer
    assert state(tmp_path, plan[1]) == "complete"


@pytest.mark.slow
def test_a_killed_study_leaves_its_runs_to_the_next_one(tmp_path, fake, monkeypatch):
    process = study_process(tmp_path, fake, seconds=4)
    wait_for(checkpoints(tmp_path, 2))
    process.kill()
    process.wait()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    runner, output = scheduler(tmp_path, fake)
    plan = [planned("a", seed) for seed in range(3)]
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["complete"] * 3
    # The two runs outlived their study and were waited for; nobody started them again.
    assert [len(starts(tmp_path, "a", seed)) for seed in range(3)] == [1, 1, 1]
    assert f"is being run by process {process.pid} on " in output.getvalue()


@pytest.mark.slow
def test_killed_together_with_its_runs_it_resumes_them(tmp_path, fake, monkeypatch):
    process = study_process(tmp_path, fake, seconds=60)
    wait_for(checkpoints(tmp_path, 2))
    process.kill()
    for seed in (0, 1):
        os.kill(int(starts(tmp_path, "a", seed)[0].split()[0]), signal.SIGKILL)
    process.wait()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    plan = [planned("a", seed) for seed in range(3)]
    runner, output = scheduler(tmp_path, fake)
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["complete"] * 3
    assert [len(starts(tmp_path, "a", seed)) for seed in range(3)] == [2, 2, 1]
    assert output.getvalue().count("resumed") == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_runs_in_order(tmp_path, fake, number):
    process = study_process(tmp_path, fake, seconds=60)
    wait_for(checkpoints(tmp_path, 2))
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in out or "Stopped" in out
    for seed in (0, 1):
        record = json.loads((tmp_path / "study" / "a" / f"seed_{seed}" / "metrics.json").read_text())
        assert record["status"] == "interrupted"
    assert not (tmp_path / "study" / "a" / "seed_2").exists()


@pytest.mark.slow
def test_two_studies_share_the_cells_of_one(tmp_path, fake):
    processes = [study_process(tmp_path, fake, seconds=0.5) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert [len(starts(tmp_path, "a", seed)) for seed in range(3)] == [1, 1, 1]
    assert all(state(tmp_path, planned("a", seed)) == "complete" for seed in range(3))
