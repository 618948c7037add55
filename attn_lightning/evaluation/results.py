"""The tables a run prints when it is done."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from attn_lightning.evaluation.naming import split_measures


def results_table(record: dict[str, Any]) -> Table | None:
    """Metrics of the evaluated split beside the linear control, with range and direction; None before any."""
    split = next((name for name in ("test", "validation") if record.get(name)), None)
    if split is None:
        return None
    prefix = "test/" if split == "test" else "val/"
    control = record.get("control", {}).get("tfidf_logistic_regression", {})
    table = Table(title=f"{record['name']}: {split} split, seed {record['seed']}")
    table.add_column("metric", no_wrap=True)
    table.add_column("model", justify="right", no_wrap=True)
    if control:
        table.add_column("TF-IDF\nlinear", justify="right", no_wrap=True)
    table.add_column("range", no_wrap=True)
    table.add_column("better")
    for name, measure in split_measures().items():
        # Without a direction it is a spread or a count, which `metrics.json` keeps.
        if prefix + name in record[split] and measure.higher_is_better is not None:
            cells = [_number(record[split][prefix + name]), *([_number(control.get(name))] if control else [])]
            table.add_row(name, *cells, measure.span, measure.better)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def print_results(folder: Path, record: dict[str, Any], console: Console | None = None) -> None:
    """Print the table, the cost and where the run folder is.

    Args:
        folder: the run folder.
        record: the contents of its `metrics.json`.
        console: where to print; the terminal by default.
    """
    console = console or Console()
    table = results_table(record)
    if table is not None:
        console.print(table)
    cost = record.get("cost")
    if cost:
        console.print(
            f"{cost['fit_seconds']:.1f} s of fitting, {cost['train_tokens_per_second']:,.0f} training tokens/s, "
            f"peak memory {cost['peak_memory_mib']:,.0f} MiB"
        )
    # Not through rich, which would break a long path over two lines.
    print(f"run folder: {folder}", flush=True)
