"""Fixtures shared by all tests."""

import gc
import io
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from attn_lightning.cli import main

REPOSITORY = Path(__file__).resolve().parent.parent

PLANTED = REPOSITORY / "experiments" / "ivat_planted.yaml"

TINY = (
    "--data.train_documents=96",
    "--data.validation_documents=32",
    "--data.test_documents=40",
    "--data.max_length=20",
    "--data.batch_size=16",
    "--data.embeddings=RandomEmbeddings",
    "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--run.report=false",
)
"""Options that make a run on planted data take about a second."""


def pytest_collection() -> None:
    """Collect without the garbage collector, which goes through all that was imported again and again."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Let the collector look after what tests make, and no more at what was there before them."""
    gc.freeze()
    gc.enable()


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder with the real data sets; skips the test where there is none."""
    named = os.environ.get("ATTN_LIGHTNING_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real data: set ATTN_LIGHTNING_DATA to a folder like {root} to run this test")
    return root


@pytest.fixture(scope="session", autouse=True)
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own for prepared data, so that no test reads or fills the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with mock.patch.dict(os.environ, {"ATTN_LIGHTNING_CACHE": str(folder)}):
        yield folder


@pytest.fixture(scope="session")
def cli() -> Command:
    """Run a command in this process, without network and without leaving a trace in its settings."""

    def run(*arguments: object, **environment: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        handler, package = signal.getsignal(signal.SIGINT), logging.getLogger("attn_lightning")
        offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "COLUMNS": "200", **environment}
        with mock.patch.dict(os.environ, offline), redirect_stdout(out), redirect_stderr(err):
            os.environ.pop("ATTN_LIGHTNING_DATA", None)
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as error:
                code = int(error.code or 0)
            finally:
                signal.signal(signal.SIGINT, handler)
                package.handlers.clear()
                package.propagate = True
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_fit(cli: Command) -> Command:
    """`fit` of Attention iVAT on tiny planted data; later arguments win."""

    def run(*arguments: object) -> Outcome:
        return cli("fit", "--config", PLANTED, *TINY, *arguments)

    return run


@pytest.fixture(scope="session")
def finished(tiny_fit: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run folder, to be read only."""
    root = tmp_path_factory.mktemp("finished")
    outcome = tiny_fit("--run.root", root)
    assert outcome.code == 0, outcome.err
    return root / "ivat_planted" / "version_0"


@pytest.fixture
def finished_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of a complete run folder that a test may write into."""
    return Path(shutil.copytree(finished, tmp_path / "run" / "version_0"))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """Background jobs of a shell ignore Ctrl-C, and so would every process that a test starts to interrupt it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
