"""Cells of a study whose `fit` only writes the files of a run, so that deaths cost no training.

As a program it runs one cell: `python -m support.cells ROOT PICKLED_CELL`.
"""

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from attn_lightning.errors import ConfigurationError
from attn_lightning.signals import stopping_raises
from attn_lightning.study.cell_run import Planned, run_cell
from attn_lightning.study.expansion import Cell
from attn_lightning.study.state import Wanted, comparable


def planned(name: str, seed: int = 0, retry: bool = False, **options: str) -> Planned:
    cell = Cell(name, "planted", "", seed, Path("x.yaml"), tuple(options.items()), name, True)
    return Planned(cell, Wanted(comparable({"seed_everything": seed})), retry)


def based(name: str, base: str, seed: int = 0, **options: str) -> Planned:
    """A cell that begins from the run `base` of its seed."""
    values = (*options.items(), ("method.base", "{first}/checkpoints/last.ckpt"))
    cell = Cell(name, "planted", "", seed, Path("x.yaml"), values, name, True, (("first", base),))
    return Planned(cell, Wanted(comparable({"seed_everything": seed})))


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    contents: dict[str, Any] = yaml.safe_load(Path(arguments[2]).read_text())
    return contents


def write_record(folder: Path, **contents: Any) -> None:
    (folder / ".new").write_text(json.dumps(contents))
    (folder / ".new").replace(folder / "metrics.json")


def fit(arguments: Sequence[str]) -> int:
    """Stands for `fit`: notes that it was started, waits for FAKE_SECONDS, and leaves a complete run."""
    options = dict(a.removeprefix("--").split("=", 1) for a in arguments if a.startswith("--") and "=" in a)
    folder = Path(options["run.root"]) / options["run.name"] / options["run.version"]
    behave = options.get("behave")
    if options.get("run.resume") == "auto":
        if behave == "refuses":
            raise ConfigurationError("no resuming here")
    else:
        if behave == "broken":
            raise ConfigurationError("no such option")
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps({"seed_everything": int(options["seed_everything"])}))
    with (folder / "starts.txt").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
    write_record(folder, status="running")
    if behave == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if behave == "exits":
        os._exit(3)
    if behave == "fails":
        write_record(folder, status="failed", error="NumericalError: not finite")
        raise ConfigurationError("not finite")
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    try:
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    except KeyboardInterrupt:
        write_record(folder, status="interrupted")
        raise
    write_record(folder, status="complete", test={"test/accuracy": 0.5})
    return 0


def command(root: Path, cell: Planned) -> list[str]:
    return [str(root), pickle.dumps(cell).hex()]


def run(root: str, pickled: str) -> int:
    try:
        with stopping_raises():
            return run_cell(pickle.loads(bytes.fromhex(pickled)), Path(root), parse, fit)
    except ConfigurationError as error:
        print(f"error: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
