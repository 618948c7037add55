"""The batch file for several nodes: SLURM can read it, and its commands are ones that `fit` accepts."""

import os
import re
import shlex
import subprocess
from pathlib import Path

from attn_lightning.commands.validation import shared_validator

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATE = REPOSITORY / "experiments" / "slurm" / "fit.sbatch"

SRUN = """#!/bin/sh
printf '%s\\n' "$@"
"""


def test_its_run_is_one_that_fit_accepts(tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
    arguments = ["vanilla_planted", "--seed_everything=3"]
    done = subprocess.run(["bash", TEMPLATE, *arguments], env=job, capture_output=True, text=True, check=True)
    python, *command = done.stdout.splitlines()
    assert python == ".venv/bin/python"
    assert command[:2] == ["-m", "attn_lightning"]
    config = shared_validator().parse(command[2:])
    assert (config["trainer"]["num_nodes"], str(config["trainer"]["devices"])) == (2, "4")
    assert config["run"]["resume"] == "auto"
    assert config["seed_everything"] == 3


def test_the_command_for_torchrun_is_one_too():
    text = TEMPLATE.read_text().replace("\\\n#", "")
    words = shlex.split(re.search(r"torchrun (.*)", text)[1])
    after = words[words.index("attn_lightning") + 1 :]
    assert shared_validator().parse(after)["run"]["resume"] == "auto"


def test_slurm_reads_its_options_before_the_first_command():
    lines = TEMPLATE.read_text().splitlines()
    options = [place for place, line in enumerate(lines) if line.startswith("#SBATCH")]
    first = next(place for place, line in enumerate(lines) if line and not line.startswith("#"))
    assert options
    assert max(options) < first
