"""What a training step costs with each method, normalizer or encoder, over the vanilla step: time, memory, passes.

    python tests/benchmarks/bench_step.py [--rounds 30] [--methods AttentionAT Sparsemax] [--device cpu]

A step is clean pass, loss, backward and fused Adam with amsgrad on the default model (15,000 x 300 trainable word
vectors, BiLSTM, additive attention) with batches of 32 texts of mixed lengths. For the times all methods take turns on
the same model and batch in every round, so that the machine's other load hits them alike; ratios are medians over
rounds of the ratio to the vanilla step of the same round. Memory is the growth of the peak of a new process from before
the model is made until after three steps, or what is allocated on a CUDA device. Passes are runs of an encoder beside
the clean one: those that a method declares, and those counted.
"""

import argparse
import inspect
import multiprocessing
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from statistics import median
from types import ModuleType
from typing import NamedTuple, get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning import methods as methods_package
from attn_lightning.backbone import normalizers as normalizers_module
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM, Encoder
from attn_lightning.backbone.normalizers import GumbelTopK, Normalizer, Softmax
from attn_lightning.backbone.orthogonal import OrthogonalLSTM
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.callbacks.cost import peak_memory_mib
from attn_lightning.methods import (
    L2X,
    Combined,
    InformationBottleneck,
    InstanceWeighting,
    ModelConsistentAdversary,
    Scheduled,
)
from attn_lightning.methods.base import Method
from attn_lightning.methods.bottleneck import Phase
from attn_lightning.methods.explainers import Teacher
from attn_lightning.step import TrainStep
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
    rationale = mask & (torch.rand(mask.shape) < 0.1)
    rows = torch.arange(BATCH_SIZE)
    batch = Batch(tokens, mask, torch.randint(0, 2, (BATCH_SIZE,)), rows, rationale, rationale.any(1))
    return Batch(*(field if field is None else field.to(device) for field in batch))


Part = Method | Normalizer | type[Encoder] | None
Step = Callable[[Batch, Part], None]


def make_step(device: str, encoder: Callable[[int], Encoder] = BiLSTM, fused: bool = True) -> Step:
    """A model and its optimizer, as the function that trains it on one batch with a method, normalizer or encoder.

    A method for another backbone and an encoder train a model of their own.
    """
    spec = DataSpec(2, VOCABULARY_SIZE, EMBEDDING_SIZE, ("negative", "positive"))

    @cache
    def prepared(
        required: type[Backbone], encoder: Callable[[int], Encoder] = encoder
    ) -> tuple[Backbone, torch.optim.Optimizer]:
        torch.manual_seed(0)
        plain = issubclass(AttentionClassifier, required)
        model = (AttentionClassifier(spec, encoder=encoder) if plain else required(spec)).to(device)
        return model, torch.optim.Adam(model.parameters(), amsgrad=True, fused=fused)

    per_example: Callable[[Tensor, Tensor], Tensor] = partial(F.cross_entropy, reduction="none")
    softmax = Softmax()

    def train(batch: Batch, part: Part) -> None:
        method = part if isinstance(part, Method) else None
        if isinstance(part, type):
            model, optimizer = prepared(Backbone, part)
        else:
            model, optimizer = prepared(Backbone if method is None else method.requires_backbone)
        model.normalizer = part if isinstance(part, Normalizer) else softmax
        if method is not None:
            _prepare(method, model)
        optimizer.zero_grad()
        _loss(model, batch, method, per_example).backward()
        optimizer.step()

    return train


def _loss(
    model: Backbone, batch: Batch, method: Method | None, per_example: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """What `AttentionModule.training_step` computes."""
    step = TrainStep(model, batch, model(batch.tokens, batch.mask), per_example, progress=0.0)
    if method is None:
        return per_example(step.output.logits, batch.labels).mean()
    if (attention := method.attention(step)) is not None:
        clean = step.output
        output = model.attend(clean.hidden, clean.scores, batch.mask, attention)
        step = replace(step, output=replace(output, embeddings=clean.embeddings))
    task = method.task_loss(step)
    task = per_example(step.output.logits, batch.labels) if task is None else task
    weights = method.example_weights(step)
    total = (task if weights is None else weights * task).mean()
    term = method.loss(step)
    return total if term is None else total + term.weight * term.value


def _prepare(method: Method, model: Backbone) -> None:
    """What the hooks of a training do for the methods that have phases or memory."""
    if isinstance(method, ModelConsistentAdversary) and method.base is None:
        method.base = deepcopy(model).eval().requires_grad_(False)
    if isinstance(method, L2X):
        model.normalizer = GumbelTopK(k=5)
        method.teacher = method.teacher or Teacher(deepcopy(model).eval().requires_grad_(False))
    if isinstance(method, InstanceWeighting):
        method._seen.clear()
    if isinstance(method, InformationBottleneck):
        frozen = {id(parameter) for parameter in method.frozen(model)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) not in frozen)


def seconds(step: Step, batch: Batch, part: Part) -> float:
    """Wall time of one step."""
    if batch.tokens.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(batch, part)
    if batch.tokens.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _bottleneck(phase: Phase) -> InformationBottleneck:
    method = InformationBottleneck()
    method.phase = phase
    return method


def _public(module: ModuleType, base: type) -> dict[str, type]:
    found = inspect.getmembers(module, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, base) and cls is not base}


def all_parts() -> dict[str, Callable[[], Part]]:
    """What can be measured, by name: every public method, normalizer and encoder that differs from vanilla.

    The bottleneck has a line per phase: the cost of its training is the mean over the epochs of its schedule.
    """
    apart = (Combined, Scheduled, InformationBottleneck)
    parts: dict[str, Callable[[], Part]] = {
        name: cls for name, cls in _public(methods_package, Method).items() if cls not in apart
    }
    parts |= {f"InformationBottleneck.{phase}": partial(_bottleneck, phase) for phase in get_args(Phase)}
    parts |= {name: cls for name, cls in _public(normalizers_module, Normalizer).items() if cls is not Softmax}
    parts["OrthogonalLSTM"] = lambda: OrthogonalLSTM
    return parts


def measure(
    names: list[str], max_length: int, rounds: int = 30, warmup: int = 3, device: str = "cpu"
) -> dict[str, tuple[float, float]]:
    """Median step time in seconds and ratio to vanilla, by name, for batches of 32 x `max_length` tokens."""
    made = all_parts()
    parts: dict[str, Part] = {VANILLA: None} | {name: made[name]() for name in names}
    step, batch = make_step(device), make_batch(max_length, device)
    times = [{name: seconds(step, batch, part) for name, part in parts.items()} for _ in range(rounds + warmup)]
    return {
        name: (
            median(row[name] for row in times[warmup:]),
            median(row[name] / row[VANILLA] for row in times[warmup:]),
        )
        for name in parts
    }


class Usage(NamedTuple):
    """What a step takes beside time: peak memory in MiB, and passes of encoders beside the clean one."""

    mebibytes: float
    extra_passes: int


def usage(name: str, max_length: int, device: str = "cpu", steps: int = 3) -> Usage:
    """Measure model, optimizer and `steps` steps from their beginning on.

    Memory is that allocated on a CUDA device; elsewhere the growth of this process's peak, so call it in a new process.
    """
    passes = 0

    def count(module: nn.Module, *_: object) -> None:
        nonlocal passes
        passes += isinstance(module, Encoder)

    before = peak_memory_mib(torch.device(device))
    part = None if name == VANILLA else all_parts()[name]()
    step, batch = make_step(device), make_batch(max_length, device)
    handle = nn.modules.module.register_module_forward_hook(count)
    for _ in range(steps):
        step(batch, part)
    handle.remove()
    peak = peak_memory_mib(torch.device(device))
    return Usage(peak if torch.device(device).type == "cuda" else peak - before, passes // steps - 1)


def measure_usage(names: list[str], max_length: int, device: str = "cpu") -> dict[str, Usage]:
    """`usage` of every part in a process of its own, so that none profits from another's memory."""
    # Forked processes share the imports. Start them before this process computes: threads do not survive a fork.
    kind = "fork" if device == "cpu" else "spawn"
    with multiprocessing.get_context(kind).Pool(1, maxtasksperchild=1) as pool:
        tasks = [(name, max_length, device) for name in [VANILLA, *names]]
        found = pool.starmap(usage, tasks, chunksize=1)
    return dict(zip([VANILLA, *names], found, strict=True))


def declared_passes(name: str) -> int:
    """What the method declares, 0 for what is no method."""
    part = None if name == VANILLA else all_parts()[name]()
    return part.encoder_passes if isinstance(part, Method) else 0


def main() -> None:
    """Print one table for both lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--methods", nargs="+", default=list(all_parts()), choices=list(all_parts()))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    names, device = arguments.methods, arguments.device
    memory = {length: measure_usage(names, length, device) for length in LENGTHS}
    times = {length: measure(names, length, arguments.rounds, device=device) for length in LENGTHS}
    table = Table("", "passes declared", "counted")
    for length in LENGTHS:
        for column in (f"32 x {length} ms", "ratio", "MiB", "ratio"):
            table.add_column(column, justify="right")
    for name in (VANILLA, *names):
        cells = [name, str(declared_passes(name)), str(memory[LENGTHS[0]][name].extra_passes)]
        for length in LENGTHS:
            (duration, ratio), used = times[length][name], memory[length][name].mebibytes
            cells += [f"{1000 * duration:.1f}", f"{ratio:.2f}"]
            cells += [f"{used:.0f}", f"{used / memory[length][VANILLA].mebibytes:.2f}"]
        table.add_row(*cells)
    threads = f"{torch.get_num_threads()} threads, {device}, torch {torch.__version__}"
    Console(width=None if sys.stdout.isatty() else 130).print(threads, table)


if __name__ == "__main__":
    main()
