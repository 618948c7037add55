"""What an epoch of long documents costs, against the published way of training the same model.

    python tests/benchmarks/bench_epoch.py [--rounds 7]

Documents are as long as film reviews (10 to 400 words, 210 on average, in batches of 32 of mixed lengths), the model
is the default one. The reference trains it as the published code does: torch's LSTM on packed sequences, and Adam
without a fused kernel. All take turns on the same batches; the ratio is the median over rounds. The epoch is the step
times 625, for 20,000 documents.
"""

import argparse
from statistics import median

import torch
from bench_step import BATCH_SIZE, VOCABULARY_SIZE, make_step, seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.lstm import packed_lstm
from attn_lightning.methods import AttentionIVAT
from attn_lightning.types import Batch

STEPS_PER_EPOCH = 625


class PackedLSTM(Encoder):
    """The reference encoder."""

    def __init__(self, input_size: int) -> None:
        super().__init__(input_size)
        self.lstm = nn.LSTM(input_size, 128, batch_first=True, bidirectional=True)
        self.output_size = 256

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """States of a packed sequence."""
        return packed_lstm(self.lstm, embeddings, mask)


def review_batch(generator: torch.Generator) -> Batch:
    """32 documents whose lengths are log-normal, as those of film reviews are."""
    lengths = (5.25 + 0.55 * torch.randn(BATCH_SIZE, generator=generator)).exp().long().clamp(10, 400)
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    tokens = torch.randint(1, VOCABULARY_SIZE, mask.shape, generator=generator) * mask
    return Batch(tokens, mask, torch.randint(0, 2, (BATCH_SIZE,), generator=generator), torch.arange(BATCH_SIZE))


def measure(rounds: int = 7) -> dict[str, tuple[float, float]]:
    """Median seconds of a step and ratio of the reference's step to it, by name."""
    ours, reference = make_step("cpu"), make_step("cpu", PackedLSTM, fused=False)
    steps = {"published way": (reference, None), "vanilla": (ours, None), "Attention iVAT": (ours, AttentionIVAT())}
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(rounds + 1):
        batch = review_batch(generator)
        rows.append({name: seconds(step, batch, method) for name, (step, method) in steps.items()})
    rows = rows[1:]
    return {
        name: (median(row[name] for row in rows), median(row["published way"] / row[name] for row in rows))
        for name in steps
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    results = measure(parser.parse_args().rounds)
    table = Table("training", "step ms", "epoch s", "times faster", title="32 documents of 10 to 400 words a step")
    for name, (step, ratio) in results.items():
        table.add_row(name, f"{1000 * step:.0f}", f"{STEPS_PER_EPOCH * step:.0f}", f"{ratio:.1f}")
    Console().print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", table)


if __name__ == "__main__":
    main()
