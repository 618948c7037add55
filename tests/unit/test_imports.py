"""Nothing heavy is imported before it is needed: help and typing errors come at once, training waits for no figures."""

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "lightning", "datasets", "sklearn", "wandb", "matplotlib", "captum", "fasttext")

LOADED = """
import sys
from attn_lightning.cli import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
print("loaded", *(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


def loaded(*arguments: str) -> set[str]:
    """Which of the heavy packages a command has imported when it is done, in a process of its own."""
    command = [sys.executable, "-c", LOADED, ",".join(HEAVY), *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return set(output.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [["--help"], ["fot"], ["--version"], []])
def test_help_and_wrong_names_wait_for_nothing_heavy(arguments):
    assert loaded(*arguments) == set()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["study", "fit"])
def test_commands_import_no_package_that_only_some_runs_need(command):
    # matplotlib comes with torchmetrics, and reading data needs datasets.
    assert loaded(command, "--help") <= {"numpy", "torch", "lightning", "datasets", "matplotlib"}
