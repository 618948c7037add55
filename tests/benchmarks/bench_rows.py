"""What a step costs when word vectors wait until they are read, beside a pass over all of them.

    python tests/benchmarks/bench_rows.py [--rounds 60] [--words 15000 30000] [--texts 32] [--length 20]

A step is clean pass, loss, backward and Adam with amsgrad on the default model. Words are drawn as in a language: the
k-th most frequent one comes k times as seldom as the first. Both optimizers take turns on the same batches; CPU time,
which other work on the machine hardly moves, as the median of all rounds.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.optimization.choice import OptimizerName, make_optimizer
from attn_lightning.optimization.groups import parameter_groups
from attn_lightning.optimization.idle import FIRST
from attn_lightning.optimization.rows import RowAdam
from attn_lightning.types import DataSpec

EMBEDDING_SIZE = 300
PARTS = ("forward", "backward", "optimizer")
NAMES: dict[str, OptimizerName] = {"over all": "dense_adam", "when read": "adam"}


def make_step(name: OptimizerName, words: int) -> Callable[[Tensor], list[float]]:
    """A model and its optimizer, as the function that trains it on (B, T) ids and gives the seconds of each part."""
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, words, EMBEDDING_SIZE, ("negative", "positive")))
    groups = parameter_groups(model, model, weight_decay=1e-5)
    optimizer = make_optimizer(name, groups, model, lr=1e-3, amsgrad=True, momentum=0.0)
    if isinstance(optimizer, RowAdam):
        optimizer.attach()

    def step(tokens: Tensor) -> list[float]:
        times = [time.process_time()]
        loss = F.cross_entropy(model(tokens, torch.ones_like(tokens, dtype=torch.bool)).logits, tokens[:, 0] % 2)
        times.append(time.process_time())
        optimizer.zero_grad()
        loss.backward()
        times.append(time.process_time())
        optimizer.step()
        times.append(time.process_time())
        return [after - before for before, after in pairwise(times)]

    return step


def measure(words: int, rounds: int, texts: int, length: int) -> dict[str, list[float]]:
    """Milliseconds of the parts of a step, for both ways."""
    frequency = 1 / torch.arange(1, words, dtype=torch.float64)
    steps = {label: make_step(name, words) for label, name in NAMES.items()}
    found: dict[str, list[list[float]]] = {label: [] for label in steps}
    # In the first steps nothing waits.
    for round_ in range(2 * FIRST + rounds):
        tokens = 1 + torch.multinomial(frequency, texts * length, replacement=True).view(texts, length)
        for label, step in steps.items():
            seconds = step(tokens)
            if round_ >= 2 * FIRST:
                found[label].append(seconds)
    return {label: [1000 * median(part) for part in zip(*rows, strict=True)] for label, rows in found.items()}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--words", type=int, nargs="+", default=[15_000, 30_000])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--length", type=int, default=20)
    options = parser.parse_args()
    table = Table("words", "vectors move", *(f"{part}, ms" for part in PARTS), "step, ms")
    for words in options.words:
        for label, parts in measure(words, options.rounds, options.texts, options.length).items():
            table.add_row(f"{words:,}", label, *(f"{value:.1f}" for value in (*parts, sum(parts))))
    title = f"{options.texts} x {options.length}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    Console().print(title, table)


if __name__ == "__main__":
    main()
