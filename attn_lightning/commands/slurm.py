"""Jobs of SLURM: their processes, and what happens before their time is up."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from attn_lightning.commands.processes import is_first
from attn_lightning.console import say
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.signals import Stopped, stopping_raises


def in_job() -> bool:
    """Whether this process is part of a job."""
    return "SLURM_JOB_ID" in os.environ or "SLURM_NTASKS" in os.environ


def was_requeued() -> bool:
    """Whether SLURM has started this job before: the command is the same, and its run is to go on."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def cluster() -> ClusterEnvironment:
    """The processes of the job, without Lightning's own requeueing.

    That writes the state in the middle of an epoch, which cannot be continued exactly, into a file that any later run
    of the same folder would begin from. Ours requeues the job and goes on from the last whole epoch.

    Raises:
        ConfigurationError: the job was not started as Lightning needs it.
    """
    try:
        if "SLURM_PROCID" not in os.environ or not SLURMEnvironment.detect():
            return LightningEnvironment()  # within a job, but not started by `srun`
        # Lightning's own requeueing saves in the middle of an epoch, from where a run could not go on exactly.
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Expected a SLURM job that Lightning can use, but it says: {one_line(error)}"
        ) from error


@contextmanager
def requeued_in_time() -> Iterator[None]:
    """In the block SIGUSR1, which `#SBATCH --signal=SIGUSR1@90` sends before the time is up, stops the run as SIGTERM
    does, and asks SLURM to start the job once more. Outside a job nothing changes.
    """
    if not in_job():
        yield
        return
    try:
        with stopping_raises((signal.SIGUSR1,)):
            yield
    except Stopped as stopped:
        if stopped.number == signal.SIGUSR1 and is_first():
            say(_requeue())
        raise


def _requeue() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    # The number of a task of an array is not that of its job, by which the whole array would be requeued.
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"the job could not be requeued ({one_line(error)}); start it once more, its run will go on"
    return f"requeued job {job}: its run will go on"
