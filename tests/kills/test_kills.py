"""Runs that are killed at random moments and go on: the record and the weights are those of a run that was not killed.

`make kills COUNT=20` kills every kind of run twenty times and prints what was hit; the test kills each twice.
"""

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import torch

from attn_lightning.run_folder import read_metrics
from support.killable import Server
from support.results import record, unequal

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

TINY = (
    "--data.train_documents=96", "--data.validation_documents=32", "--data.test_documents=40", "--data.max_length=20",
    "--data.batch_size=8", "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4", "--trainer.max_epochs=5", "--trainer.accelerator=cpu",
    "--run.report=false", "--run.suite=sparsity,calibration,agreement,faithfulness",
    "--run.suite_explainers=attention,gradient_x_input,random", "--run.resume=auto",
)  # fmt: skip

CASES: Mapping[str, tuple[str, ...]] = {
    "vanilla": (),
    "ivat": (),
    "semi-supervised ivat": ("--data.unlabeled=train", "--data.labeled_fraction=0.5"),
    "vib": ("--method.warmup_epochs=1", "--method.num_rounds=2"),
    "rap": ("--method.num_pretraining_epochs=2",),
}
"""Options of every kind of run; the last word of a name is its method."""

COUNT = int(os.environ.get("KILLS", "2"))
SEED = 20


class Phases(NamedTuple):
    """Seconds after which a run that was not killed had its folder, had been trained, and was over.

    Before the first there is nothing to spoil: the configuration is still being read.
    """

    begun: float
    trained: float
    over: float

    def draw(self, number: int, draws: random.Random) -> float:
        """When to kill the k-th run: every second one is to be hit in its test or evaluation."""
        return draws.uniform(self.trained, self.over) if number % 2 else draws.uniform(self.begun, self.trained)


def command(case: str, root: Path) -> list[str]:
    config = EXPERIMENTS / f"{case.split()[-1]}_planted.yaml"
    return ["fit", "--config", str(config), *TINY, *CASES[case], f"--run.root={root}", "--run.name=run"]


def results(folder: Path) -> dict[str, Any]:
    """All that two runs must agree on, to the last bit."""
    states = {}
    for name in ("best", "last"):
        contents = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        states[name] = {key: value.numpy().tobytes() for key, value in contents["state_dict"].items()}
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    evaluation = {}
    for path in folder.glob("evaluation/*/summary.json"):
        evaluation[path.parent.name] = json.loads(path.read_text())
        # The digest is that of the file, in which a resumed training notes other progress; its weights are compared.
        del evaluation[path.parent.name]["checkpoint"]
    return {"record": record(folder), "weights": states, "predictions": rows, "evaluation": evaluation}


def hit(folder: Path) -> str:
    """What the killed run was doing, from what it left."""
    found = read_metrics(folder) if folder.is_dir() else {}
    if not found:
        return "before the first step"
    if "test" in found:
        return "evaluation"
    last = [row["epoch"] for row in found.get("history", [])][-1:]
    return "training" if last != [4] else "evaluation"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("server")
    return Server(folder / "log", ATTN_LIGHTNING_CACHE=str(folder / "cache"), OMP_NUM_THREADS="1")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_ends_like_one_that_was_not(case: str, server: Server, tmp_path: Path) -> None:
    server(command(case, tmp_path / "cold"))  # fills the cache
    started = time.time()
    code, seconds = server(command(case, tmp_path / "whole"))
    assert code == 0, server.log.read_text()[-2000:]
    folder = tmp_path / "whole" / "run" / "version_0"
    whole = results(folder)
    files = (folder / "config.yaml", folder / "checkpoints" / "last.ckpt")
    phases = Phases(*(path.stat().st_mtime - started for path in files), seconds)
    draws, hits, exact = random.Random(f"{SEED} {case}"), Counter[str](), 0
    for attempt in itertools.count():
        if hits.total() == COUNT:
            break
        root = tmp_path / f"attempt_{attempt}"
        code, _ = server(command(case, root), kill_after=phases.draw(hits.total(), draws))
        if code != -9:
            continue  # it was faster than the one before
        folder = root / "run" / "version_0"
        hits[hit(folder)] += 1
        code, _ = server(command(case, root))
        assert code == 0, server.log.read_text()[-2000:]
        # One that was killed before its first whole epoch is begun again, in a folder of the same name.
        assert {path.name.partition(".")[0] for path in root.glob("run/*")} == {"version_0"}
        differing = list(unequal(whole, results(folder)))
        exact += not differing
        if differing:
            print(f"\n{folder}: {len(differing)} differ, {'; '.join(differing[:5])}", flush=True)
    shown = ", ".join(f"{number} {phase}" for phase, number in sorted(hits.items()))
    print(f"\n{case}: {exact} of {COUNT} kills bit-exact after going on ({shown})", flush=True)
    assert exact == COUNT
