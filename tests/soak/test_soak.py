"""Many fits in one process: nothing of a run stays behind in memory, open files, threads or settings.

`make soak COUNT=200` runs as many and prints the memory after each tenth of them; the test runs a few.
"""

import gc
import io
import logging
import os
import signal
import threading
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from attn_lightning.cli import main
from attn_lightning.commands.fit import AttentionCLI

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

COUNT = int(os.environ.get("SOAK", "5"))

WARM = 3
"""Fits before the first that is measured against: what is loaded once is no leak."""

METHODS = ("vanilla", "ivat", "relation")

GROWTH = 2**17
"""Bytes that a fit may add on average: fragments of the allocator, and names that Python keeps."""

TINY = (
    "--data.train_documents=64", "--data.validation_documents=32", "--data.test_documents=32", "--data.max_length=20",
    "--data.batch_size=16", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
    "--run.suite=sparsity,calibration,faithfulness",
)  # fmt: skip


def alive() -> dict[str, int]:
    """Objects of a run that nobody has freed."""
    gc.collect()
    kinds = (Trainer, LightningModule, LightningDataModule, AttentionCLI)
    found = [type(thing) for thing in gc.get_objects() if issubclass(type(thing), kinds)]
    return {kind.__name__: sum(issubclass(one, kind) for one in found) for kind in kinds}


def settings() -> dict[str, object]:
    """What a run changes in its process and has to change back."""
    names = [name for name in logging.root.manager.loggerDict if isinstance(logging.getLogger(name), logging.Logger)]
    return {
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)},
        "variables": {name for name in os.environ if not name.startswith("PYTEST")},
        "filters": len(warnings.filters),
        "handlers": sum(len(logging.getLogger(name).handlers) for name in names) + len(logging.root.handlers),
        "folder": os.getcwd(),
    }


def held(process: psutil.Process) -> dict[str, int]:
    """What a process holds beside memory."""
    return {
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "Python threads": threading.active_count(),
        "children": len(process.children()),
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def fit(number: int, root: Path) -> None:
    """Without the fixture of other tests, which puts handlers and signals back itself."""
    config = EXPERIMENTS / f"{METHODS[number % len(METHODS)]}_planted.yaml"
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = main(["fit", "--config", str(config), *TINY, f"--run.root={root}", f"--seed_everything={number}"])
    assert code == 0, output.getvalue()


@pytest.mark.slow
def test_many_fits_in_one_process_leave_nothing_behind(tmp_path: Path, temporary: Path) -> None:
    process, sizes, root = psutil.Process(), [], tmp_path / "runs"
    for number in range(COUNT):
        fit(number, root)
        sizes.append(process.memory_info().rss)
        if number + 1 == WARM:
            before = alive(), settings(), held(process), sorted(temporary.iterdir())
        if COUNT > 20 and (number + 1) % (COUNT // 10) == 0:
            print(f"\n{number + 1} fits: {sizes[-1] / 2**20:.1f} MiB, {held(process)}", end="", flush=True)
    assert (alive(), settings(), held(process), sorted(temporary.iterdir())) == before
    if COUNT > 100:
        assert (sizes[-1] - sizes[COUNT // 10]) / (COUNT - COUNT // 10) < GROWTH
