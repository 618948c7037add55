"""What a start takes until the first training step, beside the imports that no training does without.

    python tests/benchmarks/bench_start.py [--rounds 3]

`fit` runs on generated texts that an earlier call has prepared, and ends at its first step; the bare program imports
torch and Lightning. Both take turns, each in a process of its own; the times are CPU seconds, so that other load on
the machine counts little.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench_fit import CORPORA, HERE, options_of_fit, write_corpus
from results import Results, run

BARE = ["-c", "import torch, lightning.pytorch"]


def cpu_seconds(arguments: Sequence[str]) -> float:
    """Of a Python process with these arguments."""

    def children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    paths = os.pathsep.join([str(HERE), str(HERE / "tests" / "benchmarks")])
    before = children()
    subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=True
    )
    return children() - before


def measure(rounds: int) -> Results:
    """Medians over the rounds; the ratio is the median of the rounds' ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder, CORPORA["SST-like"])
        stops = ["--trainer.callbacks+=first_step.FirstStep"]
        fit = ["-m", "attn_lightning", "fit", *options_of_fit(folder, "start", HERE, "32-true"), *stops]
        cpu_seconds(fit)
        rows = [(cpu_seconds(BARE), cpu_seconds(fit)) for _ in range(rounds)]
    bare, first = (median(times) for times in zip(*rows, strict=True))
    ratio = median(fit / bare for bare, fit in rows)
    return {"start": {"bare imports, CPU s": bare, "fit to its first step, CPU s": first, "ratio": ratio}}


if __name__ == "__main__":
    run(measure, __doc__, rounds=3)
