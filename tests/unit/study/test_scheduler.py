"""Which cell is next, and what is said of those that have ended: an engine of a few lines runs them at once."""

import contextlib
import io
import json
import os
import time
from collections import deque

from rich.console import Console

from attn_lightning.locks import Claim
from attn_lightning.study.cell_run import HELD, claim_path
from attn_lightning.study.display import Display
from attn_lightning.study.engines import Ended
from attn_lightning.study.scheduler import Scheduler
from support import cells
from support.cells import based, parse, planned


class AtOnce:
    """Runs a job in this process when it is asked what has ended, the oldest first."""

    place = "here"

    def __init__(self, room=2, queues=False):
        self.room, self.queues = room, queues
        self.jobs, self.after, self.closed = deque(), {}, False

    def has_room(self):
        return len(self.jobs) < self.room

    def submit(self, job):
        self.jobs.append(job)
        self.after[job.name] = job.after

    def ended(self, seconds):
        if not self.jobs:
            time.sleep(0.05)
            return []
        job = self.jobs.popleft()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a") as log, contextlib.redirect_stdout(log):
            print("$ cell")
            code = cells.run(*job.arguments)
        return [Ended(job.name, code)]

    def stop(self, name):
        raise AssertionError

    def close(self):
        self.closed = True
        return ""


def scheduler(tmp_path, engine=None):
    output = io.StringIO()
    display = Display(9, 0, Console(file=output, width=500))
    root = tmp_path / "study"
    return Scheduler(root, engine or AtOnce(), lambda plan: cells.command(root, plan), parse, display), output


def state(tmp_path, plan):
    return plan.state(tmp_path / "study", parse).state


def test_failures_stay_with_their_cell(tmp_path):
    plan = [planned("a"), planned("b", behave="fails"), planned("c", behave="broken"), planned("d")]
    runner, output = scheduler(tmp_path)
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["complete", "failed", "missing", "complete"]
    errors = {cell.name: error for cell, error in runner.failed.items()}
    assert errors == {"b": "NumericalError: not finite", "c": "error: no such option"}
    assert runner.engine.closed
    assert "no such option" in (tmp_path / "study" / "logs" / "c.seed_0.log").read_text()
    assert "FAILED   c/seed_0" in output.getvalue()
    assert "[4/9]" in output.getvalue()


def test_a_failed_cell_runs_again_only_if_asked_and_is_kept(tmp_path):
    scheduler(tmp_path)[0].run([planned("a", behave="fails")])
    scheduler(tmp_path)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "failed"
    runner, output = scheduler(tmp_path)
    runner.run([planned("a", retry=True)])
    assert state(tmp_path, planned("a")) == "complete"
    kept = tmp_path / "study" / "a" / "seed_0.set_aside_0" / "metrics.json"
    assert json.loads(kept.read_text())["status"] == "failed"
    assert "is a failed run, and is kept beside it" in output.getvalue()
    assert "seed_0.set_aside_0" in (tmp_path / "study" / "logs" / "a.seed_0.log").read_text()


def test_a_run_of_another_configuration_is_set_aside(tmp_path):
    scheduler(tmp_path)[0].run([planned("a")])
    config = tmp_path / "study" / "a" / "seed_0" / "config.yaml"
    config.write_text("seed_everything: 0\ntrainer: {max_epochs: 99}\n")
    assert state(tmp_path, planned("a")) == "different"
    scheduler(tmp_path)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert "99" in (tmp_path / "study" / "a" / "seed_0.set_aside_0" / "config.yaml").read_text()


def test_an_interrupted_cell_goes_on_from_its_checkpoint(tmp_path):
    unfinished(tmp_path, "a")
    runner, output = scheduler(tmp_path)
    runner.run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert "resumed  a/seed_0" in output.getvalue()
    assert not list((tmp_path / "study" / "a").glob("*.set_aside_*"))


def test_one_that_cannot_be_resumed_starts_again_beside_it(tmp_path):
    unfinished(tmp_path, "a")
    runner, _ = scheduler(tmp_path)
    runner.run([planned("a", behave="refuses")])
    assert state(tmp_path, planned("a")) == "complete"
    assert (tmp_path / "study" / "a" / "seed_0.set_aside_0" / "metrics.json").exists()
    assert "could not be resumed: no resuming here" in (tmp_path / "study" / "logs" / "a.seed_0.log").read_text()
    assert runner.failed == {}


def test_one_without_a_checkpoint_is_set_aside(tmp_path):
    unfinished(tmp_path, "a")
    (tmp_path / "study" / "a" / "seed_0" / "checkpoints" / "last.ckpt").unlink()
    scheduler(tmp_path)[0].run([planned("a")])
    assert state(tmp_path, planned("a")) == "complete"
    assert (tmp_path / "study" / "a" / "seed_0.set_aside_0").is_dir()


def unfinished(tmp_path, name):
    folder = tmp_path / "study" / name / "seed_0"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    (folder / "metrics.json").write_text('{"status": "running"}')


def test_what_begins_from_another_run_waits_for_it_while_others_go_on(tmp_path):
    plan = [based("c", "b"), based("b", "a"), planned("a"), planned("d")]
    runner, output = scheduler(tmp_path)
    runner.run(plan)
    assert runner.failed == {}
    assert set(runner.engine.after.values()) == {()}
    assert [state(tmp_path, p) for p in plan] == ["complete"] * 4
    started = [line.split()[1] for line in output.getvalue().splitlines() if line.startswith("started")]
    assert started == ["a/seed_0", "d/seed_0", "b/seed_0", "c/seed_0"]
    lines = output.getvalue()
    assert lines.index("done     a/seed_0") < lines.index("started  b/seed_0")
    assert lines.index("done     b/seed_0") < lines.index("started  c/seed_0")


def test_without_its_base_a_cell_is_not_started(tmp_path):
    plan = [planned("a", behave="fails"), based("b", "a"), based("c", "gone"), planned("d")]
    runner, output = scheduler(tmp_path)
    runner.run(plan)
    assert [state(tmp_path, p) for p in plan] == ["failed", "missing", "missing", "complete"]
    errors = {cell.name: error for cell, error in runner.failed.items()}
    assert f"begins from {tmp_path / 'study' / 'a' / 'seed_0'}, which is not complete" in errors["b"]
    assert "gone" in errors["c"]
    assert "FAILED   b/seed_0 (not started)" in output.getvalue()
    scheduler(tmp_path)[0].run([planned("a", retry=True), based("b", "a")])
    assert [state(tmp_path, p) for p in plan[:2]] == ["complete", "complete"]


def test_a_base_made_again_makes_what_began_from_it_again(tmp_path):
    plan = [planned("a"), based("b", "a")]
    scheduler(tmp_path)[0].run(plan)
    checkpoint = tmp_path / "study" / "a" / "seed_0" / "checkpoints" / "last.ckpt"
    later = time.time() + 60
    os.utime(checkpoint, (later, later))
    assert [state(tmp_path, p) for p in plan] == ["complete", "different"]
    os.utime(checkpoint, (1, 1))
    assert [state(tmp_path, p) for p in plan] == ["complete", "complete"]
    checkpoint.unlink()  # what is gone cannot be newer
    assert state(tmp_path, plan[1]) == "complete"


def test_an_engine_with_a_queue_is_told_what_each_waits_for(tmp_path):
    engine = AtOnce(room=9, queues=True)
    plan = [based("c", "b"), based("b", "a"), planned("a"), based("e", "done")]
    scheduler(tmp_path)[0].run([planned("done")])
    runner, _ = scheduler(tmp_path, engine)
    runner.run(plan)
    assert runner.failed == {}
    waits = {"a/seed_0": (), "e/seed_0": (), "b/seed_0": ("a/seed_0",), "c/seed_0": ("b/seed_0",)}
    assert engine.after == waits
    assert list(engine.after) == ["a/seed_0", "b/seed_0", "c/seed_0", "e/seed_0"]


def test_a_cell_that_another_is_at_work_on_is_waited_for(tmp_path):
    root = tmp_path / "study"
    claim = Claim(claim_path(root, planned("a").cell))
    runner, output = scheduler(tmp_path)
    asked = runner.engine.ended

    def release_when_all_else_is_done(seconds):
        if not runner.engine.jobs and not release_when_all_else_is_done.released:
            release_when_all_else_is_done.released = True
            claim.release()
        return asked(seconds)

    release_when_all_else_is_done.released = False
    runner.engine.ended = release_when_all_else_is_done
    runner.run([planned("a"), planned("b")])
    assert [state(tmp_path, planned(name)) for name in "ab"] == ["complete", "complete"]
    lines = output.getvalue()
    assert f"a/seed_0 is being run by process {os.getpid()} on " in lines
    assert lines.index("done     b/seed_0") < lines.index("started  a/seed_0")


def test_one_that_was_taken_a_moment_earlier_is_not_called_failed(tmp_path):
    """Two studies may start a cell at the same time; the one that comes too late learns it from the cell itself."""
    runner, output = scheduler(tmp_path)
    asked, answers = runner.engine.ended, [[Ended("a/seed_0", HELD)]]

    def too_late(seconds):
        if answers:
            runner.engine.jobs.clear()
            return answers.pop()
        return asked(seconds)

    runner.engine.ended = too_late
    runner.run([planned("a")])
    assert runner.failed == {}
    assert state(tmp_path, planned("a")) == "complete"
    assert "FAILED" not in output.getvalue()
