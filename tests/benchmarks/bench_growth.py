"""Whether time and memory grow with the amount of text alone: each number is a ratio that is 1 where growth is linear.

    python tests/benchmarks/bench_growth.py [--rounds 2]

- time per document and epoch of `fit`, with four times as many documents over that with a quarter of them;
- time of a step with texts four times as long, at the same number of words;
- bytes that a step keeps for its backward pass with texts four times as long, at the same number of words: counted and
  not read off the process, whose peak moves from run to run by more than a step needs.
"""

import tempfile
from pathlib import Path
from statistics import median

import torch
from bench_fit import CORPORA, HERE, fit, write_corpus
from bench_step import VOCABULARY_SIZE, Step, make_step, seconds
from results import Results, run
from torch import Tensor, nn

from attn_lightning.types import Batch

WORDS, SHORT, LONG = 32 * 240, 60, 240
"""Words of a step, and the lengths that are compared."""

DOCUMENTS = (1600, 6400)


def full_batch(length: int, device: str) -> Batch:
    """Texts of one length, `WORDS` words in all."""
    rows = WORDS // length
    tokens = torch.randint(1, VOCABULARY_SIZE, (rows, length), device=device)
    labels = torch.arange(rows, device=device) % 2
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), labels, labels)


def with_documents(rounds: int) -> float:
    """Seconds per document and epoch of the larger corpus over those of the smaller one."""
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folders = []
        for count in DOCUMENTS:
            folder = Path(name) / str(count)
            folder.mkdir()
            write_corpus(folder, CORPORA["SST-like"]._replace(documents=count))
            fit(folder, "cached", HERE, "32-true")
            folders.append(folder)
        for number in range(rounds):
            few, many = (fit(folder, f"run{number}", HERE, "32-true")["train_seconds"] for folder in folders)
            ratios.append(many / few * DOCUMENTS[0] / DOCUMENTS[1])
    return median(ratios)


def with_length(rounds: int) -> float:
    """Seconds of a step with long texts over those with short ones."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step, batches = make_step(device), [full_batch(length, device) for length in (SHORT, LONG)]
    times = [[seconds(step, batch, None) for batch in batches] for _ in range(4 * rounds + 1)][1:]
    return median(long / short for short, long in times)


def kept_bytes(step: Step, batch: Batch) -> int:
    """Bytes of all tensors that a step keeps for its backward pass; parameters do not count."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            # By storage: a view costs nothing, and neither does what two operations keep.
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(batch, None)
    return sum(kept.values())


def memory_with_length() -> float:
    """Bytes kept per word of texts of the larger length over those of the smaller one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = make_step(device)
    short, long = (kept_bytes(step, full_batch(length, device)) for length in (SHORT, LONG))
    return long / short


def measure(rounds: int) -> Results:
    """All three."""
    return {
        "growth (1 is linear)": {
            f"memory of a step of {WORDS} words, texts of {LONG} over {SHORT}": memory_with_length(),
            f"time of a step of {WORDS} words, texts of {LONG} over {SHORT}": with_length(rounds),
            f"time per document and epoch, {DOCUMENTS[1]} over {DOCUMENTS[0]} documents": with_documents(rounds),
        }
    }


if __name__ == "__main__":
    run(measure, __doc__, rounds=2)
