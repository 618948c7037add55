"""How much longer a training step takes with each method, or normalizer, than with neither.

    python tests/benchmarks/bench_step.py [--rounds 30] [--methods AttentionAT Sparsemax] [--device cpu]

A step is clean pass, loss, backward and fused Adam with amsgrad on the default model (15,000 x 300 trainable word
vectors, BiLSTM, additive attention) with batches of 32 texts of mixed lengths. All methods take turns on the same
model and batch in every round, so that the machine's other load hits them alike; ratios are medians over rounds of
the ratio to the vanilla step of the same round.
"""

import argparse
import inspect
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from attn_lightning import methods as methods_package
from attn_lightning.backbone import normalizers as normalizers_module
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM, Encoder
from attn_lightning.backbone.normalizers import Normalizer, Softmax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.methods import Combined, Scheduled
from attn_lightning.methods.base import Method, TrainStep
from attn_lightning.types import Batch, DataSpec

VOCABULARY_SIZE, EMBEDDING_SIZE, BATCH_SIZE = 15_000, 300, 32
LENGTHS = (25, 240)
VANILLA = "vanilla"


def make_batch(max_length: int, device: str) -> Batch:
    """32 texts of random words, of half to the full length."""
    lengths = torch.randint(max_length // 2, max_length + 1, (BATCH_SIZE,))
    lengths[0] = max_length
    mask = torch.arange(max_length) < lengths[:, None]
    tokens = torch.randint(1, VOCABULARY_SIZE, (BATCH_SIZE, max_length)) * mask
    batch = Batch(tokens, mask, torch.randint(0, 2, (BATCH_SIZE,)), torch.arange(BATCH_SIZE))
    return Batch(*(field if field is None else field.to(device) for field in batch))


Part = Method | Normalizer | None
Step = Callable[[Batch, Part], None]


def make_step(device: str, encoder: Callable[[int], Encoder] = BiLSTM, fused: bool = True) -> Step:
    """A model and its optimizer, as the function that trains it on one batch with a method or normalizer.

    A method for another backbone trains a model of that class; one with phases does what it does in all of them.
    """
    spec = DataSpec(2, VOCABULARY_SIZE, EMBEDDING_SIZE, ("negative", "positive"))

    @cache
    def prepared(required: type[Backbone]) -> tuple[Backbone, torch.optim.Optimizer]:
        torch.manual_seed(0)
        plain = issubclass(AttentionClassifier, required)
        model = (AttentionClassifier(spec, encoder=encoder) if plain else required(spec)).to(device)
        return model, torch.optim.Adam(model.parameters(), amsgrad=True, fused=fused)

    per_example: Callable[[Tensor, Tensor], Tensor] = partial(F.cross_entropy, reduction="none")
    softmax = Softmax()

    def train(batch: Batch, part: Part) -> None:
        method = part if isinstance(part, Method) else None
        model, optimizer = prepared(Backbone if method is None else method.requires_backbone)
        model.normalizer = part if isinstance(part, Normalizer) else softmax
        output = model(batch.tokens, batch.mask)
        step = TrainStep(model, batch, output, per_example, progress=0.0)
        task = None if method is None else method.task_loss(step)
        loss = (per_example(output.logits, batch.labels) if task is None else task).mean()
        if method is not None and (term := method.loss(step)) is not None:
            loss = loss + term.weight * term.value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


def seconds(step: Step, batch: Batch, part: Part) -> float:
    """Wall time of one step."""
    if batch.tokens.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(batch, part)
    if batch.tokens.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def all_methods() -> dict[str, type[Method]]:
    """Every public method that can be built without arguments."""
    found = inspect.getmembers(methods_package, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, Method) and cls not in (Method, Combined, Scheduled)}


def all_normalizers() -> dict[str, type[Normalizer]]:
    """Every normalizer but softmax, which is the vanilla one."""
    found = inspect.getmembers(normalizers_module, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, Normalizer) and cls not in (Normalizer, Softmax)}


def all_parts() -> dict[str, type[Method] | type[Normalizer]]:
    """What can be named on the command line."""
    return {**all_methods(), **all_normalizers()}


def measure(
    names: list[str], max_length: int, rounds: int = 30, warmup: int = 3, device: str = "cpu"
) -> dict[str, tuple[float, float]]:
    """Median step time in seconds and ratio to vanilla, by name, for batches of 32 x `max_length` tokens."""
    classes = all_parts()
    methods: dict[str, Part] = {VANILLA: None} | {name: classes[name]() for name in names}
    step, batch = make_step(device), make_batch(max_length, device)
    times = list(_rounds(step, methods, batch, rounds + warmup))[warmup:]
    return {
        name: (median(row[name] for row in times), median(row[name] / row[VANILLA] for row in times))
        for name in methods
    }


def _rounds(step: Step, methods: dict[str, Part], batch: Batch, count: int) -> Iterator[dict[str, float]]:
    for _ in range(count):
        yield {name: seconds(step, batch, part) for name, part in methods.items()}


def main() -> None:
    """Print one table for both lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--methods", nargs="+", default=list(all_parts()), choices=list(all_parts()))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    results = {
        length: measure(arguments.methods, length, arguments.rounds, device=arguments.device) for length in LENGTHS
    }
    columns = [f"32 x {length}" for length in LENGTHS]
    table = Table("method", *(f"{column} ms" for column in columns), *(f"{column} ratio" for column in columns))
    for name in (VANILLA, *arguments.methods):
        milliseconds = [f"{1000 * results[length][name][0]:.1f}" for length in LENGTHS]
        table.add_row(name, *milliseconds, *(f"{results[length][name][1]:.3f}" for length in LENGTHS))
    Console().print(f"{torch.get_num_threads()} threads, {arguments.device}, torch {torch.__version__}", table)


if __name__ == "__main__":
    main()
