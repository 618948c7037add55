"""Every command, and a training with every method, on two processes that start with an empty cache.

Run as a script it is one of the two processes: it runs the commands of a file one after the other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from attn_lightning.cli import main
from attn_lightning.run_folder import read_metrics
from support.ports import free_ports

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"

ODD = 17
"""Texts that two processes cannot share evenly: one that is counted twice would show."""

TINY = (
    "--data.train_documents=48", f"--data.validation_documents={ODD}", f"--data.test_documents={ODD}",
    "--data.max_length=20", "--data.batch_size=8", "--data.embeddings=RandomEmbeddings",
    "--data.embeddings.dimension=8", "--model.backbone.encoder.hidden_size=4", "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu", "--run.report=false",
)  # fmt: skip
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")
ONE = ("--trainer.devices=1", "--trainer.strategy=auto")

PHASES = {
    "vib": ("--trainer.max_epochs=3", "--method.warmup_epochs=1", "--method.num_rounds=1"),
    "rap": ("--trainer.max_epochs=2", "--method.num_pretraining_epochs=1"),
    "weighting": ("--method.num_folds=2",),
    "l2x": ("--method.teacher_checkpoint=runs/vanilla/one",),
    "adversary": ("--method.base_checkpoint=runs/vanilla/one/checkpoints/best.ckpt",),
}
"""What makes the phases of a method short, or what it begins from."""

METHODS = ["vanilla", *sorted({path.stem for path in (EXPERIMENTS / "method").glob("*.yaml")} - {"vanilla"})]
"""All of them; vanilla first, because the adversary begins from it."""

SEMI = ("--data.unlabeled=train", "--data.labeled_fraction=0.5")
BRIEF = ("--run.suite=none", "--run.control=false")
FEW = "--run.suite_examples=10"
SOME = ("--suite=faithfulness,calibration,plausibility", "--explainers=attention,random")
SUITE = "attention,gradient_x_input,random"

TEXTS = ("a word", "another word", "the third")


def training(method: str, *options: str) -> list[str]:
    """The command that trains a method on tiny planted texts, into `runs/<method>/one`."""
    config = EXPERIMENTS / f"{method}_planted.yaml"
    place = (f"--run.name={method}", "--run.version=one")
    return ["fit", "--config", str(config), *TINY, *place, *PHASES.get(method, ()), *options]


def checkpoint(method: str) -> str:
    return f"--ckpt_path=runs/{method}/one/checkpoints/best.ckpt"


COMMANDS = {
    # The first finds nothing: no data, no control, no other process that has been there before.
    "suite": training("ivat", *TWO, "--run.name=suite", "--run.suite=all", f"--run.suite_explainers={SUITE}", FEW),
    "test": ["test", checkpoint("suite"), *TWO],
    "validate": ["validate", checkpoint("suite"), *TWO],
    "evaluate": ["evaluate", checkpoint("suite"), *SOME],
    "predict": ["predict", checkpoint("suite"), *(f"--text={text}" for text in TEXTS), "--output=out.jsonl"],
    "semi": training("ivat", *TWO, *SEMI, "--run.name=semi", *BRIEF),
    **{f"fit {method}": training(method, *TWO, *BRIEF) for method in METHODS},
}


class Pair(NamedTuple):
    """What two processes left.

    Attributes:
        folder: where they ran.
        codes: exit code of every command, by process.
        errors: what each process said on its standard error.
    """

    folder: Path
    codes: list[dict[str, int]]
    errors: list[str]


def run_pair(commands: dict[str, list[str]], folder: Path) -> Pair:
    """Run commands on two processes at once that were started from outside, as `torchrun` and `srun` do."""
    (folder / "commands.json").write_text(json.dumps(commands))
    environment = {
        **os.environ,
        "ATTN_LIGHTNING_CACHE": str(folder / "cache"),
        "GLOO_SOCKET_IFNAME": "lo",
        # Of pytest, which knows where `support` is.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": "2",
        "FIRST_PORT": str(free_ports(1)[0]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "commands.json"],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=900)[1] for process in processes]
    codes = [json.loads((folder / f"codes.{rank}.json").read_text()) for rank in range(2)]
    return Pair(folder, codes, errors)


def one_process(rank: int, path: Path) -> None:
    """Run the commands of a file; each gets a port of its own, because that of the last one is still closing."""
    codes = {}
    for number, (name, command) in enumerate(json.loads(path.read_text()).items()):
        os.environ["MASTER_PORT"] = str(int(os.environ["FIRST_PORT"]) + number)
        print(f"--- {name}", file=sys.stderr, flush=True)
        codes[name] = main(command)
        Path(f"codes.{rank}.json").write_text(json.dumps(codes))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    found = run_pair(COMMANDS, tmp_path_factory.mktemp("pair"))
    assert found.codes == [dict.fromkeys(COMMANDS, 0)] * 2, found.errors[0][-2000:]
    return found


def values(found: Any, prefix: str = "") -> dict[str, float]:
    """Every number in a nested record, by its path."""
    if isinstance(found, dict | list):
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return {key: value for name, part in pairs for key, value in values(part, f"{prefix}/{name}").items()}
    return {prefix: float(found)} if isinstance(found, int | float) else {}


def equal(one: Any, other: Any) -> None:
    """The same numbers up to the rounding of sums in another order."""
    first, second = values(one), values(other)
    assert first.keys() == second.keys()
    np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_nothing_is_warned_of_or_traced_back(pair: Pair) -> None:
    for said in pair.errors:
        assert "sync_dist" not in said
        assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["suite", "semi", *METHODS])
def test_two_processes_train_every_method(pair: Pair, name: str) -> None:
    folder = pair.folder / "runs" / name / "one"
    record = read_metrics(folder)
    assert record["status"] == "complete"
    rows = pq.read_table(folder / "predictions.parquet").column("row").to_pylist()
    assert sorted(rows) == list(range(ODD))
    for path in (folder / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "validate"])
def test_two_processes_measure_what_one_does(pair: Pair, cli: Any, split: str) -> None:
    folder = pair.folder / "runs" / "suite" / "one"
    outcome = cli(split, "--ckpt_path", folder / "checkpoints" / "best.ckpt", *ONE)
    assert outcome.code == 0, outcome.err
    two, one = (read_metrics(folder / "evaluations" / f"{split}_{number}") for number in range(2))
    key = {"test": "test", "validate": "validation"}[split]
    assert set(one[key]) == set(two[key])
    equal(one[key], two[key])


@pytest.mark.slow
def test_a_suite_after_a_training_on_two_processes_is_that_of_one(pair: Pair, cli: Any) -> None:
    folder = pair.folder / "runs" / "suite" / "one"
    assert read_metrics(folder)["control"]
    for name, options in {
        "best-planted-test-10": ("--suite=all", f"--explainers={SUITE}", "--max_examples=10"),
        "best-planted-test": SOME,
    }.items():
        two = (folder / "evaluation" / name).rename(pair.folder / name)
        outcome = cli("evaluate", "--ckpt_path", folder / "checkpoints" / "best.ckpt", *options)
        assert outcome.code == 0, outcome.err
        found = [json.loads((path / "summary.json").read_text()) for path in (two, folder / "evaluation" / name)]
        equal(*found)


@pytest.mark.slow
def test_two_processes_predict_every_text_once(pair: Pair, cli: Any) -> None:
    answers = [json.loads(line) for line in (pair.folder / "out.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers] == list(TEXTS)
    model = pair.folder / "runs" / "suite" / "one" / "checkpoints" / "best.ckpt"
    alone = pair.folder / "alone.jsonl"
    outcome = cli("predict", "--ckpt_path", model, *(f"--text={text}" for text in TEXTS), "--output", alone)
    assert outcome.code == 0, outcome.err
    assert alone.read_text() == (pair.folder / "out.jsonl").read_text()
    assert not list(pair.folder.glob(".*.lock"))


if __name__ == "__main__":
    one_process(int(os.environ["RANK"]), Path(sys.argv[1]))
