"""Everything that `make bench` measures, in less than six minutes on two quiet cores.

    python tests/benchmarks/run.py [--only fit methods ...] [--rounds 2] [--against CHECKOUT]
                                   [--json FILE] [--compare FILE]

- growth: time with documents and with length, memory with length; see `bench_growth.py`.
- start: `fit` to its first step over the bare imports; see `bench_start.py`.
- fit: words/s, time over the arithmetic floor, share outside the step, padding and memory; see `bench_fit.py`.
- published: a step of the published way (packed sequences, Adam unfused) over ours; see `bench_encoder.py` and
  `bench_epoch.py`.
- methods: a step of every method that does not run the encoder again over the plain one; see `bench_step.py`.
- evaluation: seconds of the measurements of a split like SST's test split; see `bench_evaluation.py`.
- encoding: words/s from raw text to ids, and of collecting a vocabulary.

Numbers without a unit are ratios, which are what counts.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench_encoder
import bench_epoch
import bench_evaluation
import bench_fit
import bench_growth
import bench_start
import bench_step
import torch
from results import Results, add_options, earlier, show, write

from attn_lightning.data.text import TextTokenizer


def published(rounds: int) -> Results:
    """The reference over ours, of the encoder alone and of a whole step."""
    encoder = {
        f"encoder {row['rows']:.0f} x {row['tokens']:.0f}, forward and backward": row["ratio"]
        for row in bench_encoder.measure(rounds)
    }
    step = bench_epoch.measure(rounds)
    ratios = {f"step of 10 to 400 words, over {name}": step[name][1] for name in ("vanilla", "Attention iVAT")}
    return {"the published way over ours": encoder | ratios}


def methods(rounds: int) -> Results:
    """Time of a step over that of the plain model, where the encoder runs once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [
        name
        for name in bench_step.all_parts()
        if name.startswith("Attention") or name.endswith("Penalty")
        if not bench_step.declared_passes(name)
    ]
    found = {}
    for length in bench_step.LENGTHS:
        repeats = 2 * rounds * bench_step.LENGTHS[-1] // length  # short steps are noisier and cost little
        measured = bench_step.measure(names, length, repeats, warmup=1, device=device)
        found |= {f"{name}, 32 x {length}": measured[name][1] for name in names}
    return {"methods over vanilla": found}


def evaluation(rounds: int) -> Results:
    """The best of all rounds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    subject = bench_evaluation.make_subject(1821, device)
    measurements = bench_evaluation.all_measurements(subject, bench_evaluation.clean_pass(subject))
    repeats = max(1, rounds // 2)
    return {
        "evaluation of 1,821 texts": {
            f"{name}, s": min(bench_evaluation.seconds(measured, device)[0] for _ in range(repeats))
            for name, measured in measurements.items()
        }
    }


def encoding() -> Results:
    """From raw text to ids, on texts like IMDB's."""
    with tempfile.TemporaryDirectory() as name:
        texts = bench_fit.write_corpus(Path(name), bench_fit.CORPORA["IMDB-like"])
    words = sum(text.count(" ") + 1 for text in texts)
    start = time.perf_counter()
    tokenizer = TextTokenizer.train(texts)
    collected = time.perf_counter()
    tokenizer.encode_batch(texts)
    ended = time.perf_counter()
    return {
        "raw text": {
            "vocabulary, words/s": words / (collected - start),
            "encoding, words/s": words / (ended - collected),
        }
    }


def main() -> None:
    """Measure part by part and show each at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, help="another checkout, whose `fit` takes turns with this one's")
    names = ("growth", "start", "fit", "published", "methods", "evaluation", "encoding")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    add_options(parser)
    options = parser.parse_args()
    rounds, before, began = options.rounds, earlier(options), time.perf_counter()
    # Processes are forked by the first: this one must not have computed before.
    parts: dict[str, Callable[[], Results]] = {
        "growth": lambda: bench_growth.measure(max(1, rounds // 2)),
        "start": lambda: bench_start.measure(rounds),
        "fit": lambda: bench_fit.measure(rounds, ("32-true", "bf16-mixed"), options.against),
        "published": lambda: published(rounds),
        "methods": lambda: methods(rounds),
        "evaluation": lambda: evaluation(rounds),
        "encoding": encoding,
    }
    results: Results = {}
    for name in names:
        if name in options.only:
            found = parts[name]()
            show(found, before)
            results |= found
    write(results, options)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
