"""A SLURM of a few lines: jobs run on this machine, some of an array at a time, and are requeued when they ask for it.

It stands on the PATH under the names of SLURM's commands and keeps everything in the folder FAKE_SLURM.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel")


def install(folder: Path) -> None:
    """Make the commands."""
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)


def sbatch(folder: Path, script: str) -> None:
    number = 100 + len(list(folder.glob("*.sh")))
    kept = folder / f"{number}.sh"
    kept.write_text(Path(script).read_text())
    subprocess.Popen([sys.executable, "-S", __file__, "queue", str(kept)], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    print(f"Submitted batch job {number}")


def queue(folder: Path, script: str) -> None:
    """Run the jobs of a script, as many at a time as it says."""
    path = Path(script)
    note = path.with_suffix(".pid")
    note.write_text(str(os.getpid()))
    array = re.search(r"--array=0-(\d+)%(\d+)", path.read_text())
    names = [f"{path.stem}_{k}" for k in range(int(array[1]) + 1)] if array else [path.stem]
    for name in names:
        (folder / f"{name}.state").write_text("PENDING")
    with ThreadPoolExecutor(int(array[2]) if array else 1) as pool:
        list(pool.map(lambda name: run(folder, path, name), names))
    note.unlink()


def run(folder: Path, script: Path, name: str) -> None:
    array, _, task = name.partition("_")
    variables = {"SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                 "SLURM_NODEID": "0", "SLURM_JOB_ID": f"{array}{task}"}  # fmt: skip
    if task:
        variables |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
    requeued, restarts = folder / f"{name}.requeued", 0
    while True:
        (folder / f"{name}.state").write_text("RUNNING")
        code = subprocess.run(
            ["bash", str(script)], env={**os.environ, **variables, "SLURM_RESTART_COUNT": str(restarts)}, check=False
        ).returncode
        if not requeued.exists():
            (folder / f"{name}.state").write_text("FAILED" if code else "COMPLETED")
            return
        requeued.unlink()
        restarts += 1


def sacct(folder: Path) -> None:
    print("JobID|State|NodeList")
    for path in sorted(folder.glob("*.state")):
        print(f"{path.stem}|{path.read_text()}|here")


def main(command: str, *arguments: str) -> None:
    folder = Path(os.environ["FAKE_SLURM"])
    match command:
        case "sbatch":
            sbatch(folder, arguments[0])
        case "queue":
            queue(folder, arguments[0])
        case "srun":
            # `--unbuffered --output FILE COMMAND ...`
            os.execvp(arguments[3], arguments[3:])
        case "sacct" | "squeue":
            sacct(folder)
        case "scontrol":
            assert arguments[0] == "requeue"
            (folder / f"{arguments[1]}.requeued").touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
