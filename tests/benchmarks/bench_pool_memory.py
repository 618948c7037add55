"""How resident memory depends on the size of the unlabelled corpus: it should not.

    python tests/benchmarks/bench_pool_memory.py [--texts 10000] [--factor 10]

Generated texts of 20 to 60 invented words are the pool of a small labelled task. For the corpus and for one `factor`
times as large, a new process prepares the data, and another one draws all batches of an epoch, labelled and unlabelled
ones together. Peaks of both are shown as what they took beyond the imports, in MiB:

- anonymous: memory of the process's own; the only kind that a larger corpus could exhaust.
- mapped: pages of the Arrow file that the process has touched. They are the system's cache of the disk and are given
  back whenever something else needs the room.

The index of the pool (places, lengths and order of its texts) is anonymous and is all that grows: the last column is
that growth in bytes per additional text. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from attn_lightning.data import Planted, RandomEmbeddings, TextFiles
from attn_lightning.data.planted_documents import PlantedOptions, generate

KINDS = ("anonymous", "mapped")
STAGES = ("prepare", "epoch")


def write_pool(path: Path, texts: int) -> None:
    """A CSV file of random texts in the words of the planted task, one at a time."""
    documents = generate("train", PlantedOptions(train_documents=200))
    words = np.array(sorted({word for document in documents for word in document.tokens}))
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for length in random.integers(20, 61, texts):
            file.write(" ".join(words[random.integers(0, len(words), length)]) + ",0\n")


def resident() -> dict[str, float]:
    """Resident memory of this process now, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {
        name: int(value.split()[0]) / 1024 for name, value in (line.split(":", 1) for line in lines if "Rss" in line)
    }
    return {"anonymous": found["RssAnon"], "mapped": found["RssFile"]}


@contextmanager
def peaks() -> Iterator[dict[str, float]]:
    """The largest memory of each kind beyond that at the beginning of the block, looked at 100 times a second."""
    before, done = resident(), threading.Event()
    result = dict.fromkeys(KINDS, 0.0)

    def look() -> None:
        while True:
            now = resident()
            result.update({kind: max(result[kind], now[kind] - before[kind]) for kind in KINDS})
            if done.wait(0.01):
                return

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield result
    finally:
        done.set()
        thread.join()


def run_stage(stage: str, pool: Path, cache: Path) -> dict[str, float]:
    """Prepare the data, or draw an epoch from prepared data, in this process."""
    data = Planted(
        train_documents=500,
        embeddings=RandomEmbeddings(8),
        cache=cache,
        unlabeled=TextFiles(pool, cache=cache),
        unlabeled_batch_size=128,
    )
    with peaks() as found:
        data.prepare_data()
        if stage == "epoch":
            data.setup("fit")
            drawn = 0
            for batch, *_ in iter(data.train_dataloader()):
                drawn += len(batch["unlabeled"].rows)
            assert drawn == data.manifest["unlabeled"]["rows"]
    return found


def measure(texts: int) -> dict[str, dict[str, float]]:
    """Peaks of both stages, each in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool.csv"
        write_pool(pool, texts)
        found = {}
        for stage in STAGES:
            command = [sys.executable, __file__, "--stage", stage, "--folder", folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[stage] = json.loads(output.splitlines()[-1])
        return found


def main() -> None:
    """Print one table for both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--factor", type=int, default=10)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(run_stage(arguments.stage, arguments.folder / "pool.csv", arguments.folder / "cache")))
        return
    sizes = (arguments.texts, arguments.factor * arguments.texts)
    found = [measure(size) for size in sizes]
    table = Table("stage", "memory", *(f"{size:,} texts MiB" for size in sizes), "bytes per text more")
    for stage in STAGES:
        for kind in KINDS:
            small, large = (each[stage][kind] for each in found)
            growth = (large - small) * 2**20 / (sizes[1] - sizes[0])
            table.add_row(stage, kind, f"{small:.0f}", f"{large:.0f}", f"{growth:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
