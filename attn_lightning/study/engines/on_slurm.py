"""Jobs in the queue of SLURM, as arrays that submitit hands in. All nodes need the same shared folders.

SLURM starts a preempted job again by itself, and one whose time is nearly up asks for it: `fit` is sent SIGUSR1 and has
itself requeued. The command is the same, so the run goes on in its folder.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import write_json
from attn_lightning.locks import patient_claim
from attn_lightning.study.engines import Ended, Job
from attn_lightning.study.engines.local import head, run_as_program, write_to_log

try:
    import submitit
except ImportError as error:  # an extra: most users have one machine
    raise ConfigurationError(
        "Expected the package submitit for `--on slurm`, but it is not installed; run `pip install "
        "'attn-lightning[slurm]'`."
    ) from error

_BEFORE_THE_END = "USR1@90"
"""What `fit` listens to, and the seconds that it then has; submitit's own is another signal."""
_COMMANDS = ("sbatch", "srun", "sacct")
_POLL_SECONDS = 1.0
_MOST_AT_A_TIME = 256
_IN_QUEUE = ("READY", "PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED")
_UNKNOWN_SECONDS = 60.0
"""How long a job may be unknown to `sacct` after it was handed in."""
_GOES_ON = (128 + signal.SIGUSR1, 128 + signal.SIGTERM)
"""Exit codes of a command that was told to stop, and that SLURM will start again or has cancelled."""


@dataclass(frozen=True)
class Task:
    """A job as it is kept for the node that will run it.

    Attributes:
        program: module that runs a command.
        arguments: of the command.
        log: where its output is added.
    """

    program: str
    arguments: tuple[str, ...]
    log: str

    def __call__(self) -> int:
        """Run the command in this process, which SLURM sends its signals to."""
        write_to_log(Path(self.log), head(self.program, self.arguments))
        try:
            run_as_program(self.program, self.arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
            if code in _GOES_ON:
                # Without a result the job is not over for those who wait for it; its state is what SLURM says.
                os._exit(code)
            if code:
                raise RuntimeError(f"exit code {code}") from None  # jobs that wait for this one must not start
        return 0

    def checkpoint(self) -> Any:
        """What is to be run when the signal came before `fit` was there to hear it: the same."""
        return submitit.helpers.DelayedSubmission(self)


class SlurmEngine:
    """Hands all jobs in as job arrays and looks at what becomes of them.

    Jobs stay in the queue when this process ends. Another that is given the same jobs meanwhile, or after it, hands in
    only those that are not there, and waits for the others; options of theirs change with `scancel` alone.

    Args:
        folder: where submitit keeps its files; shared by all nodes.
        jobs: how many of an array at a time; None for as many as SLURM allows.
        partition: of the jobs.
        minutes: limit of a job.
        gpus: of a job.
        cpus: of a job.
        gigabytes: memory of a job.
        extra: other options of sbatch.
        program: module that runs a command, as `python -m` does.

    Raises:
        ConfigurationError: this machine cannot hand in jobs.
    """

    queues = True

    def __init__(
        self,
        folder: Path,
        jobs: int | None = None,
        partition: str | None = None,
        minutes: int = 240,
        gpus: int = 0,
        cpus: int = 2,
        gigabytes: int = 8,
        extra: Mapping[str, str] | None = None,
        program: str = "attn_lightning",
    ) -> None:
        for command in _COMMANDS:
            if shutil.which(command) is None:
                raise ConfigurationError(
                    f"Expected the command `{command}` of SLURM for `--on slurm`, but there is none on the PATH; log "
                    "in to a machine of the cluster, or leave `--on` out."
                )
        self.program, self.place = program, f"on SLURM, partition {partition or 'by default'}"
        self._notes, self._lock = folder / "queue.json", folder / ".lock"
        self._executor = submitit.SlurmExecutor(folder.absolute() / "%j")
        self._executor.update_parameters(
            job_name="attn_lightning",
            time=minutes,
            cpus_per_task=cpus,
            mem=f"{gigabytes}GB",
            array_parallelism=jobs or _MOST_AT_A_TIME,
            stderr_to_stdout=True,
            setup=["export SUBMITIT_PREEMPT_SIGNAL=USR1"],
            **({"partition": partition} if partition else {}),
            **({"gpus_per_node": gpus} if gpus else {}),
        )
        # `requeue` is for preemption. A job whose base has failed would wait in the queue for ever.
        self._extra = {"signal": _BEFORE_THE_END, "requeue": True, "kill-on-invalid-dep": "yes", **(extra or {})}
        self._pending: list[Job] = []
        self._running: dict[str, Any] = {}

    def has_room(self) -> bool:
        """The queue of SLURM takes them all."""
        return True

    def submit(self, job: Job) -> None:
        """Note a job; all that were noted are handed in together by `ended`."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self._pending.append(job)

    def ended(self, seconds: float) -> list[Ended]:
        """Wait for the first to end, but no longer than this."""
        self._hand_in()
        deadline = time.monotonic() + seconds
        while not (over := [name for name, job in self._running.items() if job.done()]):
            if time.monotonic() > deadline:
                return []
            time.sleep(_POLL_SECONDS)
        return [self._result(name) for name in over]

    def _hand_in(self) -> None:
        """One array for all jobs that wait for the same others: bases come first, as they were submitted."""
        if not self._pending:
            return
        given, self._pending = self._pending, []
        # Two processes that hand in the same study at once must see what the other has done.
        claim = patient_claim(self._lock)
        try:
            notes: dict[str, Any] = json.loads(self._notes.read_text("utf-8")) if self._notes.exists() else {}
            found = self._in_queue(given, notes)
            self._running.update(found)
            pending = [job for job in given if job.name not in found]
            depth: dict[str, int] = {}
            for job in pending:
                depth[job.name] = max((depth.get(name, 0) + 1 for name in job.after), default=0)
            ordered = sorted(pending, key=lambda job: (depth[job.name], job.after))
            for after, group in groupby(ordered, key=lambda job: job.after):
                self._hand_in_array(after, jobs := list(group))
                notes |= {job.name: self._note(job) for job in jobs}
                write_json(self._notes, notes)
        finally:
            claim.release()
        if found:
            say(f"{len(found)} of {len(given)} jobs are in the queue already; waiting for them")

    def _note(self, job: Job) -> dict[str, Any]:
        return {"id": self._running[job.name].job_id, "arguments": list(job.arguments), "at": time.time()}

    def _in_queue(self, jobs: Iterable[Job], notes: Mapping[str, Any]) -> dict[str, Any]:
        """The jobs that a process has handed in before, and that have not ended."""
        noted = [job for job in jobs if notes.get(job.name, {}).get("arguments") == list(job.arguments)]
        # All are made first, because SLURM is then asked once about all.
        found = {job.name: submitit.SlurmJob(self._executor.folder, notes[job.name]["id"], [0]) for job in noted}
        return {name: job for name, job in found.items() if _waits_or_runs(job, notes[name]["at"])}

    def _hand_in_array(self, after: Sequence[str], jobs: Sequence[Job]) -> None:
        bases = [self._running[name].job_id for name in after if name in self._running]
        # `afterok`: a job whose base has failed is not started.
        dependency = {"dependency": f"afterok:{':'.join(bases)}"} if bases else {}
        self._executor.update_parameters(additional_parameters={**self._extra, **dependency})
        tasks = [Task(self.program, job.arguments, str(job.log.absolute())) for job in jobs]
        try:
            with self._executor.batch():
                found = [self._executor.submit(task) for task in tasks]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise ConfigurationError(
                f"Expected SLURM to take {len(jobs)} jobs, but it says: {str(error).strip().splitlines()[-1]}; look at "
                "the options `--slurm.*`."
            ) from error
        self._running.update(zip((job.name for job in jobs), found, strict=True))

    def _result(self, name: str) -> Ended:
        job = self._running.pop(name)
        # A job that left a result has said in its log what happened; of one without, SLURM knows.
        reason = "" if job.paths.result_pickle.exists() else f"SLURM ended job {job.job_id}: {job.state}"
        return Ended(name, reason=reason)

    def stop(self, name: str) -> None:
        """Cancel a job."""
        if name in self._running:
            self._running[name].cancel(check=False)

    def close(self) -> str:
        """Leave the jobs in the queue: they do not need this process."""
        ids = sorted({job.job_id.partition("_")[0] for job in self._running.values()})
        if not ids:
            return ""
        return f"{len(self._running)} jobs stay in the queue; `scancel {' '.join(ids)}` takes them out"


def _waits_or_runs(job: Any, since: float) -> bool:
    if job.paths.result_pickle.exists():
        return False
    state = job.watcher.get_state(job.job_id).upper()
    return state in _IN_QUEUE or (state == "UNKNOWN" and time.time() - since < _UNKNOWN_SECONDS)
