"""What stored states save, what Attention iVAT costs over vanilla, and which kernel of attention is the faster one.

    python tests/benchmarks/bench_pretrained.py [--rounds 3]

The encoder has the shape of all-MiniLM-L6-v2 (6 layers, 384 numbers, 22.7 million parameters) and random weights: times
do not depend on them. Texts have 5 to 45 words, as those of SST. An epoch is what a training repeats: fetch or encode,
head, loss, backward, fused Adam. Times are CPU seconds of this process, which other load hardly changes, and all
variants take turns on the same batches.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.pretrained import Pretrained
from attn_lightning.methods import AttentionIVAT
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, DataSpec

NUM_WORDS, BATCH_SIZE, NUM_BATCHES = 2000, 32, 6
HEADS, HEAD_SIZE = 12, 32
SHAPES = ((32, 16), (32, 40), (32, 128), (8, 256), (4, 512))
"""Texts and places, of which attention is timed."""


def make_encoder(folder: Path) -> None:
    """Write an encoder of MiniLM's shape with random weights, and a tokenizer that knows every word of the texts."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary()[2:]]
    (folder / "vocab.txt").write_text("\n".join(pieces), "utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)).save_pretrained(folder)


def vocabulary() -> tuple[str, ...]:
    """Words that are one piece each."""
    letters = "abcdefghijklmnopqrst"
    words = (a + b + c for a in letters for b in letters for c in letters)
    return ("<pad>", "<unk>", *(word for word, _ in zip(words, range(NUM_WORDS), strict=False)))


def make_batches() -> list[Batch]:
    """Texts of random words, of similar length within a batch."""
    torch.manual_seed(1)
    lengths = torch.randint(5, 46, (NUM_BATCHES * BATCH_SIZE,)).sort().values.split(BATCH_SIZE)
    batches = []
    for sizes in lengths:
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        tokens = torch.randint(2, NUM_WORDS, mask.shape) * mask
        batches.append(Batch(tokens, mask, torch.randint(0, 2, (BATCH_SIZE,)), torch.arange(BATCH_SIZE)))
    return batches


def make_step(folder: Path, method: AttentionIVAT | None = None, **options: Any) -> tuple[Callable[[Batch], None], Any]:
    """A training step on a model of its own, and that model."""
    torch.manual_seed(0)
    words = vocabulary()
    spec = DataSpec(2, len(words), 300, ("no", "yes"), vocabulary=words)
    model = AttentionClassifier(spec, encoder=partial(Pretrained, name=str(folder), **options)).train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-5, amsgrad=True, fused=True)
    per_example: Callable[[Tensor, Tensor], Tensor] = partial(F.cross_entropy, reduction="none")

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        made = TrainStep(model, batch, model(batch.tokens, batch.mask), per_example, progress=0.0)
        loss = per_example(made.output.logits, batch.labels).mean()
        if method is not None and (term := method.loss(made)) is not None:
            loss = loss + term.weight * term.value
        loss.backward()
        optimizer.step()

    return step, model


def cpu_seconds(step: Callable[[Batch], None], batches: list[Batch]) -> float:
    """CPU time of all threads over the batches."""
    start = time.process_time()
    for batch in batches:
        step(batch)
    return time.process_time() - start


def measure(rounds: int = 3) -> dict[str, float]:
    """CPU seconds and their ratios, medians over the rounds.

    Returns:
        `every_epoch` and `cached` (an epoch of each), `speedup` between them, `vanilla` and `ivat` (a step of 32 texts
        of 25 words each), `ratio` of the two.
    """
    batches = make_batches()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_encoder(folder)
        fresh, _ = make_step(folder, frozen=True, cached=False)
        stored, model = make_step(folder, frozen=True)
        model.encoder.prepare(((batch.tokens, batch.mask, None) for batch in batches), folder / "states", "bench")
        vanilla, _ = make_step(folder)
        ivat, _ = make_step(folder, AttentionIVAT())
    epochs: list[tuple[float, ...]] = []
    steps: list[tuple[float, ...]] = []
    middle = batches[NUM_BATCHES // 2 : NUM_BATCHES // 2 + 1]
    for _ in range(rounds + 1):
        epochs.append((cpu_seconds(fresh, batches), cpu_seconds(stored, batches)))
        for pair in ((vanilla, ivat), (ivat, vanilla)):  # whoever comes first finds other caches
            times = [cpu_seconds(step, middle) for step in pair]
            steps.append(tuple(times if pair[0] is vanilla else reversed(times)))
    epochs, steps = epochs[1:], steps[2:]  # the first round only warms up
    return {
        "every_epoch": median(a for a, _ in epochs),
        "cached": median(b for _, b in epochs),
        "speedup": median(a / b for a, b in epochs),
        "vanilla": median(a for a, _ in steps),
        "ivat": median(b for _, b in steps),
        "ratio": median(b / a for a, b in steps),
    }


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention as products, with the softmax in float32 as autocast has it."""
    scores = query @ key.mT * HEAD_SIZE**-0.5 + mask
    return scores.float().softmax(-1).to(query.dtype) @ value


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention by torch's fused kernel."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


KERNELS = {"fused": fused, "plain": plain}


def kernel_milliseconds(
    attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype, texts: int, places: int
) -> tuple[float, float]:
    """CPU milliseconds of the forward and the backward pass, the least of six; half of the texts are padded."""
    parts = [torch.randn(texts, HEADS, places, HEAD_SIZE, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.zeros(texts, 1, places, places, dtype=dtype)
    mask[: texts // 2, :, :, places - places // 5 :] = torch.finfo(dtype).min
    times = []
    for _ in range(6):
        start = time.process_time()
        found = attention(*parts, mask)
        middle = time.process_time()
        torch.autograd.grad(found, parts, torch.ones_like(found))
        times.append((1000 * (middle - start), 1000 * (time.process_time() - middle)))
    return min(forward for forward, _ in times), min(backward for _, backward in times)


def kernels() -> Table:
    """Forward and backward pass of attention, plain and fused, in both precisions."""
    table = Table("attention, CPU ms", *(f"{kernel}, {kind}" for kind in ("bfloat16", "float32") for kernel in KERNELS))
    for texts, places in SHAPES:
        cells = [
            "{:.1f} + {:.1f}".format(*kernel_milliseconds(attention, dtype, texts, places))
            for dtype in (torch.bfloat16, torch.float32)
            for attention in KERNELS.values()
        ]
        table.add_row(f"{texts} x {places}", *cells)
    return table


def main() -> None:
    """Print a table, or one line where there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments, _ = parser.parse_known_args()
    if importlib.util.find_spec("transformers") is None:
        print("bench_pretrained skipped: it needs the extra `transformers`")
        return
    found = measure(arguments.rounds)
    table = Table("CPU seconds", "", "", "ratio")
    rows = (
        (f"frozen, epoch of {NUM_BATCHES * BATCH_SIZE} texts", "every_epoch", "cached", "speedup"),
        (f"fine-tuned, step of {BATCH_SIZE} texts", "vanilla", "ivat", "ratio"),
    )
    for name, first, second, ratio in rows:
        cells = (f"{label.replace('_', ' ')} {found[label]:.3f}" for label in (first, second))
        table.add_row(name, *cells, f"{found[ratio]:.2f}")
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    Console(width=None if sys.stdout.isatty() else 120).print(threads, table, kernels())


if __name__ == "__main__":
    main()
