"""How long the measurements of a model take on a test split like SST's.

    python tests/benchmarks/bench_evaluation.py [--documents 1821] [--rounds 3] [--only leave-one-out] [--device cpu]

Documents of random words, as many and as long as in SST's test split (lognormal lengths, 19 words on average), and the
default model (15,000 x 300 word vectors, BiLSTM, additive attention) without training: no time depends on what it has
learned but that of decision flips, which here last until no token is left. Prints the best wall time and the CPU
time of that round; on a machine that does something else too, the CPU time divided by the threads tells more.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.importance import importances
from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.explainers.loo import LeaveOneOut
from attn_lightning.evaluation.families.attention_tests import AttentionTests
from attn_lightning.evaluation.families.faithfulness import Faithfulness
from attn_lightning.evaluation.families.robustness import Robustness
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.metrics.agreement import agreement_metrics
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import Batch, DataSpec

VOCABULARY_SIZE, EMBEDDING_SIZE, UNKNOWN = 15_000, 300, 1
FEW = 64
"""Documents of the measurement that takes most passes."""
SPREAD, LONGEST = 0.45, 56
"""Deviation of the logarithm of the length, and the longest document."""


class SyntheticTexts:
    """A split in memory, of random words.

    Args:
        documents: how many.
        seed: of lengths and words.
    """

    def __init__(self, documents: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        lengths = generator.lognormal(np.log(19) - SPREAD**2 / 2, SPREAD, documents)
        self.lengths = lengths.round().clip(2, LONGEST).astype(np.int64)
        self._words = generator.integers(2, VOCABULARY_SIZE, (documents, LONGEST))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: list[int]) -> Batch:
        index = np.asarray(rows)
        mask = np.arange(self.lengths[index].max()) < self.lengths[index, None]
        tokens = torch.from_numpy(self._words[index, : mask.shape[1]] * mask)
        return Batch(tokens, torch.from_numpy(mask), torch.from_numpy(index % 2), torch.from_numpy(index))


def make_subject(documents: int, device: str) -> Subject:
    """The model and its split."""
    torch.manual_seed(0)
    model = AttentionClassifier(DataSpec(2, VOCABULARY_SIZE, EMBEDDING_SIZE, ("negative", "positive"))).eval()
    return Subject(
        model.to(device), SyntheticTexts(documents), 2, erased=UNKNOWN, device=torch.device(device), batch_size=128
    )


def clean_pass(subject: Subject) -> Explained:
    """Predictions, with attention as the one explanation."""
    count = len(subject.examples)
    probabilities, labels = np.zeros((count, subject.num_classes)), np.arange(count) % 2
    attention = Ragged.empty(subject.examples.lengths)
    with inference(subject.model):
        for batch in subject.batches():
            output, rows = subject.model(batch.tokens, batch.mask), to_array(batch.rows)
            probabilities[rows] = to_array(output.logits.softmax(-1))
            attention.put(rows, to_array(output.attention), to_array(batch.mask))
    return Explained(probabilities, labels, {"attention": attention})


def agreement(subject: Subject) -> None:
    """Gradients with attention held and at hidden states, and their rank correlations with attention."""
    measures = {kind: agreement_metrics() for kind in ("gradient", "hidden")}
    for batch in subject.batches():
        output, found = importances(subject.model, batch)
        for kind, measure in measures.items():
            measure.update(output.attention, found[kind], batch.mask)


def all_measurements(subject: Subject, explained: Explained) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    permutation = AttentionTests(adversarial=False, diagnostic=False)
    adversarial = AttentionTests(num_permutations=1, num_candidates=5, num_steps=500, diagnostic=False)
    few = make_subject(min(FEW, len(subject.examples)), str(subject.device))
    attacked = clean_pass(few)
    return {
        "clean pass": lambda: clean_pass(subject),
        "agreement with gradients": lambda: agreement(subject),
        "leave-one-out": lambda: LeaveOneOut().explain(subject, no_progress),
        "100 permutations": lambda: permutation.run(subject, explained, no_progress),
        "adversarial attention, 5 x 500": lambda: adversarial.run(subject, explained, no_progress),
        f"robustness of {FEW} documents": lambda: Robustness().run(few, attacked, no_progress),
        "ERASER, 5 bins": lambda: Faithfulness().run(subject, explained, no_progress),
    }


def seconds(measure: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall time and CPU time of one round."""
    wall, cpu = time.perf_counter(), time.process_time()
    measure()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print one table."""
    names = list(all_measurements(make_subject(2, "cpu"), Explained(np.zeros((2, 2)), np.zeros(2, np.int64), {})))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1821)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    subject = make_subject(arguments.documents, arguments.device)
    measurements = all_measurements(subject, clean_pass(subject))
    table = Table("measurement", "seconds", "CPU seconds")
    for name in arguments.only:
        rounds = [seconds(measurements[name], arguments.device) for _ in range(arguments.rounds)]
        table.add_row(name, *(f"{value:.2f}" for value in min(rounds)))
    words = int(np.sum(subject.examples.lengths))
    title = f"{arguments.documents} documents, {words} words, {torch.get_num_threads()} threads, {arguments.device}"
    Console().print(f"{title}, torch {torch.__version__}", table)


if __name__ == "__main__":
    main()
