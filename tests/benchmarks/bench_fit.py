"""How fast `fit` trains, beside the arithmetic that it cannot do without.

    python tests/benchmarks/bench_fit.py [--rounds 2] [--precisions 32-true bf16-mixed] [--against CHECKOUT]
                                         [--json FILE] [--compare FILE]

Every round trains one epoch by the command itself, in a process of its own, on generated texts whose lengths are
distributed like those of SST (19 words) and of IMDB (200). The *floor* is the time of the model's matrix products
alone, at the rate of one such product in float32 measured in the same round: a ratio to it means the same on every
machine. `outside` is the share of the epoch that is not inside a training step; `padding` the share of places of a
batch that hold no word, as counted from the batches of the data module. `--against` times another checkout in turns
with this one; `--compare` prints the ratios of an earlier `--json` beside these.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from results import Results, add_options, earlier, show, write

WORDS, EMBEDDING, HIDDEN, ATTENTION, CLASSES = 15_000, 300, 128, 128, 2
HERE = Path(__file__).resolve().parents[2]


class Corpus(NamedTuple):
    """Texts with log-normal lengths: `exp(mean + spread * z)`, cut to the bounds."""

    documents: int
    mean: float
    spread: float
    shortest: int
    longest: int


# As many short texts as SST trains on: word vectors wait from the 32nd step on, which a part of them would not show.
CORPORA = {"SST-like": Corpus(6920, 2.8, 0.5, 2, 52), "IMDB-like": Corpus(960, 5.25, 0.55, 10, 400)}


def flops_per_word() -> float:
    """Floating-point operations of the matrix products of one training step, per word.

    Forward, both directions: `2 * 4 H (E + H)` multiply-adds for the gates; the additive scorer `2 H * A + A`; the
    gradients with respect to inputs and weights take twice as much again.
    """
    multiply_adds = 2 * 4 * HIDDEN * (EMBEDDING + HIDDEN) + 2 * HIDDEN * ATTENTION + ATTENTION
    return 3 * 2 * multiply_adds


def matrix_rate(seconds: float = 0.5) -> float:
    """Floating-point operations per second of a float32 product of the shape that the encoder's largest one has.

    On the device that `fit` takes.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left = torch.randn(32 * 240, EMBEDDING, device=device)
    right = torch.randn(EMBEDDING, 4 * HIDDEN, device=device)

    def product() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    product()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product()
        count += 1
    return count * 2 * left.shape[0] * EMBEDDING * 4 * HIDDEN / (time.perf_counter() - start)


def write_corpus(folder: Path, corpus: Corpus) -> list[str]:
    """Train, validation and test files of invented words; the first word tells the label. Gives the training texts."""
    written: dict[str, list[str]] = {}
    draw = random.Random(0)
    ranks = [1 / (rank + 1) for rank in range(WORDS)]
    names = [f"w{rank}" for rank in range(WORDS)]
    for split, documents in (("train", corpus.documents), ("validation", 64), ("test", 64)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for row in range(documents):
                length = int(2.718281828 ** (corpus.mean + corpus.spread * draw.gauss(0, 1)))
                words = draw.choices(names, ranks, k=min(max(length, corpus.shortest), corpus.longest))
                text = " ".join([f"class{row % CLASSES}", *words])
                written.setdefault(split, []).append(text)
                file.write(json.dumps({"text": text, "label": str(row % CLASSES)}) + "\n")
    return written["train"]


def options_of_fit(folder: Path, run: str, checkout: Path, precision: str) -> list[str]:
    """One epoch on the files of `write_corpus`, with everything below the folder."""
    return [
        f"--config={checkout / 'experiments' / 'base.yaml'}",
        "--data=TextFiles",
        *(f"--data.{split}={folder / f'{split}.jsonl'}" for split in ("train", "validation", "test")),
        "--data.text_column=text",
        "--data.label_column=label",
        f"--data.cache={folder / 'cache'}",
        "--data.embeddings=RandomEmbeddings",
        f"--data.embeddings.dimension={EMBEDDING}",
        "--trainer.max_epochs=1",
        f"--trainer.precision={precision}",
        "--trainer.enable_progress_bar=false",
        "--run.suite=none",
        f"--run.root={folder / 'runs'}",
        f"--run.name={run}",
    ]


def fit(folder: Path, run: str, checkout: Path, precision: str) -> dict[str, float]:
    """What `metrics.json` says of the cost of one epoch, with the wall clock of the whole command."""
    options = options_of_fit(folder, run, checkout, precision)
    command = [sys.executable, "-m", "attn_lightning", "fit", *options]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"Expected `fit` to train, but it ended with {done.returncode}: {done.stderr[-2000:]}")
    (record,) = (folder / "runs" / run).glob("*/metrics.json")
    return {**json.loads(record.read_text())["cost"], "wall": wall}


def padding(folder: Path) -> float:
    """Share of places without a word over the training batches."""
    from attn_lightning.data import RandomEmbeddings, TextFiles

    files = {split: folder / f"{split}.jsonl" for split in ("train", "validation", "test")}
    data = TextFiles(
        **files, text_column="text", label_column="label", cache=folder / "cache", embeddings=RandomEmbeddings(2)
    )
    data.prepare_data()
    data.setup("fit")
    words = places = 0
    for batch in data.train_dataloader():
        words, places = words + int(batch.mask.sum()), places + batch.mask.numel()
    return 1 - words / places


def measure(rounds: int, precisions: Sequence[str], against: Path | None = None) -> Results:
    """Medians over the rounds, by corpus and precision, all of which take turns."""
    results: Results = {}
    with tempfile.TemporaryDirectory() as name:
        for corpus_name, corpus in CORPORA.items():
            folder = Path(name) / corpus_name
            folder.mkdir()
            write_corpus(folder, corpus)
            fit(folder, "cached", HERE, precisions[0])  # prepares the data, which no later round pays
            rows: dict[str, list[dict[str, float]]] = {precision: [] for precision in precisions}
            for number in range(rounds):
                for precision in precisions:
                    rows[precision].append(_round(folder, f"{precision}-{number}", precision, against))
            for precision, found in rows.items():
                values = {key: median(row[key] for row in found) for key in found[0]}
                results[f"{corpus_name}, {precision}"] = {**values, "padding %": 100 * padding(folder)}
    return results


def _round(folder: Path, run: str, precision: str, against: Path | None) -> dict[str, float]:
    rate = matrix_rate()
    ours = fit(folder, run, HERE, precision)
    row = _row(ours, rate)
    if against is not None:
        other = fit(folder, f"{run}-other", against, precision)
        row["words/s over the other"] = row["words/s"] * other["train_seconds"] / other["train_tokens"]
        if "cpu_seconds" in other:  # not in the first versions
            row["words per CPU second over the other"] = row["words per CPU second"] / _words_per_cpu_second(other)
        row["memory over the other"] = ours["peak_memory_mib"] / other["peak_memory_mib"]
    return row


def _row(cost: dict[str, float], rate: float) -> dict[str, float]:
    floor = cost["train_tokens"] * flops_per_word() / rate
    return {
        "words/s": cost["train_tokens"] / cost["train_seconds"],
        "words per CPU second": _words_per_cpu_second(cost),
        "time over the float32 floor": cost["train_seconds"] / floor,
        "outside %": 100 * (1 - cost["step_seconds"] / cost["train_seconds"]),
        "peak MiB": cost["peak_memory_mib"],
        "command s": cost["wall"],
        "matrix Gflop/s": rate / 1e9,
    }


def _words_per_cpu_second(cost: dict[str, float]) -> float:
    # With the validation of 64 texts in it; on a machine with other work this says more than the clock.
    return cost["train_tokens"] / cost["cpu_seconds"]


def main() -> None:
    """Print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--against", type=Path, help="another checkout, timed in turns")
    add_options(parser)
    options = parser.parse_args()
    before = earlier(options)
    results = measure(options.rounds, options.precisions, options.against)
    show(results, before)
    write(results, options)


if __name__ == "__main__":
    main()
