"""How fast `fit` trains, beside the arithmetic that it cannot do without.

    python tests/benchmarks/bench_fit.py [--rounds 3] [--precision bf16-mixed] [--against CHECKOUT]
                                         [--json FILE] [--compare FILE]

Every round trains one epoch by the command itself, in a process of its own, on generated texts whose lengths are
distributed like those of SST (19 words) and of IMDB (200). The *floor* is the time of the model's matrix products
alone, at the rate of one such product measured in the same round: a ratio to it means the same on every machine.
`outside` is the share of the epoch that is not inside a training step; `padding` the share of places of a batch that
hold no word, as counted from the batches of the data module. `--against` times another checkout in turns with this
one; `--compare` prints the ratios of an earlier `--json` beside these.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

WORDS, EMBEDDING, HIDDEN, ATTENTION, CLASSES = 15_000, 300, 128, 128, 2
HERE = Path(__file__).resolve().parents[2]


class Corpus(NamedTuple):
    """Texts with log-normal lengths: `exp(mean + spread * z)`, cut to the bounds."""

    documents: int
    mean: float
    spread: float
    shortest: int
    longest: int


CORPORA = {"SST-like": Corpus(3200, 2.8, 0.5, 2, 52), "IMDB-like": Corpus(960, 5.25, 0.55, 10, 400)}


def flops_per_word() -> float:
    """Floating-point operations of the matrix products of one training step, per word.

    Forward, both directions: `2 * 4 H (E + H)` multiply-adds for the gates; the additive scorer `2 H * A + A`; the
    gradients with respect to inputs and weights take twice as much again.
    """
    multiply_adds = 2 * 4 * HIDDEN * (EMBEDDING + HIDDEN) + 2 * HIDDEN * ATTENTION + ATTENTION
    return 3 * 2 * multiply_adds


def matrix_rate(seconds: float = 0.5) -> float:
    """Floating-point operations per second of a float32 product of the shape that the encoder's largest one has."""
    left, right = torch.randn(32 * 240, EMBEDDING), torch.randn(EMBEDDING, 4 * HIDDEN)
    torch.mm(left, right)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.mm(left, right)
        count += 1
    return count * 2 * left.shape[0] * EMBEDDING * 4 * HIDDEN / (time.perf_counter() - start)


def write_corpus(folder: Path, corpus: Corpus) -> None:
    """Train, validation and test files of invented words; the first word tells the label."""
    draw = random.Random(0)
    ranks = [1 / (rank + 1) for rank in range(WORDS)]
    names = [f"w{rank}" for rank in range(WORDS)]
    for split, documents in (("train", corpus.documents), ("validation", 64), ("test", 64)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for row in range(documents):
                length = int(2.718281828 ** (corpus.mean + corpus.spread * draw.gauss(0, 1)))
                words = draw.choices(names, ranks, k=min(max(length, corpus.shortest), corpus.longest))
                text = " ".join([f"class{row % CLASSES}", *words])
                file.write(json.dumps({"text": text, "label": str(row % CLASSES)}) + "\n")


def fit(folder: Path, run: str, checkout: Path, precision: str) -> dict[str, float]:
    """What `metrics.json` says of the cost of one epoch, with the wall clock of the whole command."""
    runs = folder / "runs"
    options = [
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
        f"--run.root={runs}",
        f"--run.name={run}",
    ]
    command = [sys.executable, "-m", "attn_lightning", "fit", *options]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"Expected `fit` to train, but it ended with {done.returncode}: {done.stderr[-2000:]}")
    (record,) = (runs / run).glob("*/metrics.json")
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


def measure(rounds: int, precision: str, against: Path | None) -> dict[str, dict[str, float]]:
    """Medians over the rounds, by corpus."""
    results = {}
    with tempfile.TemporaryDirectory() as name:
        for corpus_name, corpus in CORPORA.items():
            folder = Path(name) / corpus_name
            folder.mkdir()
            write_corpus(folder, corpus)
            fit(folder, "cached", HERE, precision)  # prepares the data, which no later round pays
            rows: list[dict[str, float]] = []
            for number in range(rounds):
                rate = matrix_rate()
                ours = fit(folder, f"ours{number}", HERE, precision)
                row = _row(ours, rate)
                if against is not None:
                    other = fit(folder, f"other{number}", against, precision)
                    row |= {"words/s over the other": row["words/s"] * other["train_seconds"] / other["train_tokens"]}
                    row |= {"memory over the other": ours["peak_memory_mib"] / other["peak_memory_mib"]}
                rows.append(row)
            results[corpus_name] = {key: median(row[key] for row in rows) for key in rows[0]}
            results[corpus_name]["padding %"] = 100 * padding(folder)
    return results


def _row(cost: dict[str, float], rate: float) -> dict[str, float]:
    floor = cost["train_tokens"] * flops_per_word() / rate
    return {
        "words/s": cost["train_tokens"] / cost["train_seconds"],
        "over the floor": cost["train_seconds"] / floor,
        "outside %": 100 * (1 - cost["step_seconds"] / cost["train_seconds"]),
        "peak MiB": cost["peak_memory_mib"],
        "command s": cost["wall"],
        "matrix Gflop/s": rate / 1e9,
    }


def start_up(rounds: int) -> dict[str, float]:
    """Seconds of `fit --help`, which imports what a training needs, and of the imports of torch and Lightning alone."""
    programs = {
        "bare imports s": ["-c", "import torch, lightning.pytorch"],
        "fit --help s": ["-m", "attn_lightning", "fit", "--help"],
    }
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, arguments in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=HERE, capture_output=True, check=True)
            taken[name].append(time.perf_counter() - start)
    return {name: median(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Print the tables, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--against", type=Path, help="another checkout, timed in turns")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--compare", type=Path, help="file of an earlier run")
    options = parser.parse_args()
    results: dict[str, Any] = measure(options.rounds, options.precision, options.against)
    results["start"] = start_up(options.rounds)
    earlier = json.loads(options.compare.read_text()) if options.compare else {}
    console = Console()
    console.print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.precision}")
    for name, values in results.items():
        table = Table("", name, *(["earlier", "ratio"] if name in earlier else []))
        for key, value in values.items():
            before = earlier.get(name, {}).get(key)
            table.add_row(key, f"{value:.2f}", *([f"{before:.2f}", f"{value / before:.2f}"] if before else []))
        console.print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
