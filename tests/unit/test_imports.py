"""Nothing heavy is imported before it is needed: help and typing errors come at once, training waits for no figures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

SOMETIMES = {
    "captum",
    "datasets",
    "fasttext",
    "matplotlib",
    "pandas",
    "scipy.signal",
    "scipy.stats",
    "sklearn",
    "transformers",
    "wandb",
}
"""What only some runs need, or only their end."""

HEAVY = ("numpy", "torch", "lightning", *SOMETIMES)

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
    assert loaded(command, "--help") <= {"numpy", "torch", "lightning"}


@pytest.mark.slow
def test_the_first_step_on_prepared_data_waits_for_no_package_that_only_some_runs_need(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "attn_lightning", "fit", "--config", "vanilla_planted"]
    command += ["--data.train_documents=96", "--data.validation_documents=32", "--data.test_documents=40"]
    command += ["--data.embeddings=RandomEmbeddings", f"--run.root={tmp_path}"]
    command += ["--trainer.callbacks+=first_step.FirstStep"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS / "benchmarks")])}
    for _ in ("prepares the data", "finds it"):
        output = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120, cwd=TESTS.parent, env=environment
        ).stdout
    imported = set(output.splitlines()[-1].split()[3:])
    assert {"torch", "lightning", "attn_lightning.data"} <= imported
    assert not imported & SOMETIMES
