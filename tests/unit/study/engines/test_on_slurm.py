"""What is handed in to SLURM: a `sbatch` that only keeps what it is given; `tests/engines` runs the jobs."""

import os
import re
import time

import pytest

from attn_lightning.errors import ConfigurationError
from attn_lightning.study.engines import Job

pytest.importorskip("submitit", reason="needs the extra `slurm`")

from attn_lightning.study.engines import on_slurm
from attn_lightning.study.engines.on_slurm import SlurmEngine, Task

# The extra is installed for the slow suite.
pytestmark = pytest.mark.slow

SBATCH = """#!/bin/sh
number=$(ls {folder} | wc -l)
cp "$1" {folder}/$number
echo "Submitted batch job $((100 + number))"
"""


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    """The scripts that were handed in, by the order."""
    tools, folder = tmp_path / "bin", tmp_path / "handed_in"
    tools.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=folder)), ("srun", "#!/bin/sh\n"), ("sacct", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    # One for all jobs of a process, which would know those of another test.
    known = on_slurm.submitit.SlurmJob
    monkeypatch.setattr(known, "watcher", type(known.watcher)())
    return lambda: [path.read_text() for path in sorted(folder.iterdir(), key=lambda path: int(path.name))]


def options(script):
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.MULTILINE))


def job(tmp_path, name, *after):
    return Job(name, ("study", name), tmp_path / f"{name}.log", after)


@pytest.mark.parametrize("missing", ["sbatch", "srun", "sacct"])
def test_without_its_commands_nothing_begins(tmp_path, handed_in, missing, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin" / missing).unlink()
    with pytest.raises(ConfigurationError, match=f"the command `{missing}` of SLURM") as error:
        SlurmEngine(tmp_path / ".slurm")
    assert "\n" not in str(error.value)


def test_options_reach_sbatch(tmp_path, handed_in):
    engine = SlurmEngine(
        tmp_path / ".slurm", 3, "long", minutes=90, gpus=1, cpus=4, gigabytes=16, extra={"account": "mine"}
    )
    for name in "abcd":
        engine.submit(job(tmp_path, name))
    assert engine.ended(0.0) == []
    (script,) = handed_in()
    expected = {
        "partition": "long", "time": "90", "gpus-per-node": "1", "cpus-per-task": "4", "mem": "16GB", "requeue": "",
        "account": "mine", "array": "0-3%3", "signal": "USR1@90", "open-mode": "append", "kill-on-invalid-dep": "yes",
    }  # fmt: skip
    assert expected.items() <= options(script).items()
    assert "dependency" not in options(script)
    assert engine.close() == "4 jobs stay in the queue; `scancel 100` takes them out"


def test_what_begins_from_others_waits_in_the_queue_for_them(tmp_path, handed_in):
    engine = SlurmEngine(tmp_path / ".slurm")
    for name, *after in (("a",), ("b",), ("c", "a"), ("d", "b"), ("e", "a"), ("f", "c")):
        engine.submit(job(tmp_path, name, *after))
    engine.ended(0.0)
    found = [(options(script).get("array"), options(script).get("dependency")) for script in handed_in()]
    assert found == [
        ("0-1%2", None),
        ("0-1%2", "afterok:100_0"),
        (None, "afterok:100_1"),
        (None, "afterok:101_0"),
    ]


SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
echo "100_0|RUNNING|here"
echo "100_1|PENDING|here"
echo "100_2|FAILED|here"
echo "100_3|COMPLETED|here"
"""


def test_another_process_hands_in_only_what_is_not_in_the_queue(tmp_path, handed_in, capsys):
    first = SlurmEngine(tmp_path / ".slurm")
    for name in "abcd":
        first.submit(job(tmp_path, name))
    first.ended(0.0)
    (tmp_path / "bin" / "sacct").write_text(SACCT)
    second = SlurmEngine(tmp_path / ".slurm")
    for name in "acd":
        second.submit(job(tmp_path, name))
    second.submit(Job("b", ("study", "b", "--retry-failed"), tmp_path / "b.log"))
    second.submit(job(tmp_path, "e", "a"))
    second.ended(0.0)
    found = [(options(script).get("array"), options(script).get("dependency")) for script in handed_in()]
    assert found == [("0-3%4", None), ("0-2%3", None), (None, "afterok:100_0")]
    assert "1 of 5 jobs are in the queue already" in capsys.readouterr().out
    second.close()


def test_a_job_that_slurm_does_not_know_yet_is_waited_for_but_not_for_ever(tmp_path, handed_in, monkeypatch):
    now = time.time()
    for late, scripts in ((0, 1), (30, 1), (120, 2)):
        monkeypatch.setattr(on_slurm.time, "time", lambda late=late: now + late)
        engine = SlurmEngine(tmp_path / ".slurm")
        for name in "ab":
            engine.submit(job(tmp_path, name))
        engine.ended(0.0)
        assert len(handed_in()) == scripts


def test_what_slurm_refuses_is_one_line(tmp_path, handed_in):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    engine = SlurmEngine(tmp_path / ".slurm")
    engine.submit(job(tmp_path, "a"))
    with pytest.raises(ConfigurationError, match=r"take 1 jobs, but it says: .*invalid partition"):
        engine.ended(0.0)


def test_a_task_that_comes_too_early_to_hear_the_signal_is_handed_in_as_it_is():
    task = Task("program", ("argument",), "log")
    assert task.checkpoint().function == task
