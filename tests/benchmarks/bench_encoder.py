"""How much faster the bidirectional LSTM of the package is than torch's on packed sequences.

`python tests/benchmarks/bench_encoder.py` prints a table; `measure` gives the same numbers to other code. Lengths are
mixed on purpose: batches of one single length take a fast path in torch that hides the cost of packing.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.lstm import packed_lstm

SHAPES = ((32, 240), (32, 25))


def measure(repeats: int = 7, shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[dict[str, float]]:
    """Median times of both, taken in turns so that other load on the machine hits both.

    Args:
        repeats: timed runs of each.
        shapes: (rows, longest row in tokens) of the batches; lengths are uniform from a sixth of the longest on.

    Returns:
        One dict per shape: `rows`, `tokens` (of the longest row), `packed_ms` and `ours_ms` (forward and backward),
        `ratio` of the two, `packed_forward_ms`, `ours_forward_ms` and `forward_ratio` without a graph.
    """
    return [_measure_shape(rows, width, repeats) for rows, width in shapes]


def _measure_shape(rows: int, width: int, repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    encoder = BiLSTM(300, 128)
    lengths = torch.randint(width // 6, width + 1, (rows,), generator=generator)
    lengths[0] = width
    mask = torch.arange(width) < lengths.unsqueeze(1)
    inputs = torch.randn(rows, width, 300, generator=generator).requires_grad_()

    def packed() -> Tensor:
        return packed_lstm(encoder.lstm, inputs, mask)

    def ours() -> Tensor:
        states: Tensor = encoder(inputs, mask)
        return states

    packed_ms, ours_ms = _medians([packed, ours], repeats, _forward_and_backward)
    packed_forward_ms, ours_forward_ms = _medians([packed, ours], repeats, _forward)
    return {
        "rows": rows,
        "tokens": width,
        "packed_ms": packed_ms,
        "ours_ms": ours_ms,
        "ratio": packed_ms / ours_ms,
        "packed_forward_ms": packed_forward_ms,
        "ours_forward_ms": ours_forward_ms,
        "forward_ratio": packed_forward_ms / ours_forward_ms,
    }


def _medians(
    runs: list[Callable[[], Tensor]], repeats: int, work: Callable[[Callable[[], Tensor]], None]
) -> list[float]:
    """Median milliseconds of each, after one untimed round."""
    times: list[list[float]] = [[] for _ in runs]
    for round_number in range(repeats + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            work(run)
            if round_number:
                taken.append(1000 * (time.perf_counter() - start))
    return [median(taken) for taken in times]


def _forward_and_backward(run: Callable[[], Tensor]) -> None:
    run().sum().backward()


def _forward(run: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        run()


def main() -> None:
    table = Table("batch", "packed", "ours", "ratio", "packed forward", "ours forward", "ratio")
    table.title = f"BiLSTM 300 to 2 x 128, float32, {torch.get_num_threads()} CPU threads, medians"
    for row in measure():
        table.add_row(
            f"{row['rows']:.0f} x {row['tokens']:.0f}",
            f"{row['packed_ms']:.1f} ms",
            f"{row['ours_ms']:.1f} ms",
            f"{row['ratio']:.1f}",
            f"{row['packed_forward_ms']:.1f} ms",
            f"{row['ours_forward_ms']:.1f} ms",
            f"{row['forward_ratio']:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
