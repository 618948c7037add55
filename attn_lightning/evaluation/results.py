"""What a run prints when it is done: the ten rows that matter, or everything, and where the rest is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from attn_lightning.console import stdout_console
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.naming import declared, flat_name, split_measures
from attn_lightning.evaluation.summary import (
    LINEAR,
    MARK,
    UNTRAINED,
    Summary,
    as_good,
    find,
    marks_note,
    number,
    print_skipped,
    print_summary,
)
from attn_lightning.files import write_text
from attn_lightning.sheet import Sheet

RESULTS = "results.md"
"""The file of a run for people."""

NUM_HEADLINES = 10

HEADLINES = (
    "test/accuracy",
    "test/macro_f1",
    "test/log_loss",
    "test/shortcut_follow_mean",
    "calibration/accuracy",
    "calibration/log_loss",
    "agreement/gradient/kendall",
    "faithfulness/attention/aopc_comprehensiveness",
    "faithfulness/attention/aopc_sufficiency",
    "plausibility/attention/average_precision",
    "plausibility/attention/token_f1",
    "selective/attention/interpretability",
    "attention_tests/permutation_change",
    "attention_tests/adversarial_divergence",
    "shortcut_probe/shortcut_gain[masks=profile]",
    "robustness/accuracy_area[where=embeddings,attack=pgd,target=prediction]",
    "sparsity/attention/effective_length",
    "faithfulness/attention/decision_flip",
    "test/ece",
    "test/auroc",
    "test/gradient_kendall_mean",
    "test/hidden_kendall_mean",
    "test/evidence_hit_mean",
    "test/evidence_mass_mean",
)
"""What matters most first: the headline table has the first of them that a run has."""


def headline_table(record: Mapping[str, Any], summary: Summary | None) -> Sheet:
    """The ten rows that matter: prediction, agreement, faithfulness, plausibility, with the controls beside them.

    Args:
        record: the contents of a run's `metrics.json`; empty for an evaluation without a training.
        summary: of the suite; None without one.

    Returns:
        A row per metric; fewer than ten where less was measured.
    """
    controls = [] if summary is None else list(summary.controls)
    header = ["metric", "model", *controls, UNTRAINED, LINEAR, "better"]
    found = {**_tested(record), **({} if summary is None else _measured(summary))}
    chosen = [name for name in HEADLINES if name in found][:NUM_HEADLINES]
    rows, rivals = [], []
    # Those of the whole test split first; the suite may have been measured on a part of it.
    for name in sorted(chosen, key=lambda name: not name.startswith("test/")):
        value, others, comparable = found[name]
        measure = declared(name if name.startswith("test/") else f"evaluation/{name}")
        assert measure is not None, "every headline is declared"
        better = as_good(measure, value, others) if comparable else []
        rivals += better
        cells = [number(others.get(column)) for column in header[2:-1]]
        rows.append([name, number(value) + MARK * bool(better), *cells, measure.better])
    empty = [place for place in range(2, len(header) - 1) if all(row[place] == "-" for row in rows)]
    kept = [place for place in range(len(header)) if place not in empty]
    title = f"{record['name']}, seed {record['seed']}, test split" if record else "Evaluation"
    return Sheet(
        title,
        [header[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        dim=[*controls, UNTRAINED, LINEAR],
        note=marks_note(rivals),
    )


_Found = tuple[float | None, dict[str, float | None], bool]
"""A value, those of the controls by the name of their column, and whether the two can be compared."""


def _tested(record: Mapping[str, Any]) -> dict[str, _Found]:
    linear = record.get("control", {}).get("tfidf_logistic_regression", {})
    return {
        name: (value, {LINEAR: linear.get(name.removeprefix("test/"))}, True)
        for name, value in record.get("test", {}).items()
    }


def _measured(summary: Summary) -> dict[str, _Found]:
    return {
        flat_name(family.name, row): (row.value, _beside(summary, family, row), row.metric not in family.uncontrolled)
        for family in summary.families
        for row in summary.trained.rows.get(family.name, [])
    }


def _beside(summary: Summary, family: Family, row: Row) -> dict[str, float | None]:
    beside = {name: find(summary.trained, family, row, name) for name in summary.controls}
    return {
        **beside,
        UNTRAINED: find(summary.untrained, family, row, row.explainer),
        LINEAR: summary.linear.get(row.metric) if family.name == "calibration" else None,
    }


def results_table(record: Mapping[str, Any]) -> Sheet | None:
    """All metrics of the evaluated split beside the linear control, with range and direction; None before any."""
    split = next((name for name in ("test", "validation") if record.get(name)), None)
    if split is None:
        return None
    prefix = "test/" if split == "test" else "val/"
    control = record.get("control", {}).get("tfidf_logistic_regression", {})
    rows = []
    for name, measure in split_measures().items():
        # Without a direction it is a spread or a count, which `metrics.json` keeps.
        if prefix + name in record[split] and measure.higher_is_better is not None:
            cells = [number(record[split][prefix + name]), *([number(control.get(name))] if control else [])]
            rows.append([name, *cells, measure.span, measure.better, measure.meaning])
    header = ("metric", "model", *([LINEAR] if control else []), "range", "better", "meaning")
    title = f"{record['name']}: {split} split, seed {record['seed']}"
    return Sheet(title, header, rows, texts=("metric", "range", "better", "meaning"), dim=[LINEAR])


def print_results(
    folder: Path,
    record: Mapping[str, Any],
    summary: Summary | None = None,
    *,
    tables: Sequence[Path] = (),
    verbose: bool = True,
    console: Console | None = None,
) -> None:
    """Print what a run found, what it cost and where the run folder is.

    Args:
        folder: the run folder.
        record: the contents of its `metrics.json`.
        summary: of the suite after a training; None without one.
        tables: the files that have all tables.
        verbose: print all tables instead of the headlines.
        console: where to print; the standard output by default.
    """
    console = console or stdout_console()
    print_tables(record, summary, verbose, console)
    cost = record.get("cost")
    if cost:
        console.print(
            f"{cost['fit_seconds']:.1f} s of fitting, {cost['train_tokens_per_second']:,.0f} training tokens/s, "
            f"peak memory {cost['peak_memory_mib']:,.0f} MiB"
        )
    # Not through rich, which would break a long path over two lines.
    for path in tables:
        print(f"all tables: {path}")
    print(f"run folder: {folder}", flush=True)


def write_results(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """Write the table of all metrics of a run into its folder; None where nothing was measured."""
    results = results_table(record)
    if results is None:
        return None
    write_text(folder / RESULTS, results.markdown() + "\n")
    return folder / RESULTS


def print_tables(record: Mapping[str, Any], summary: Summary | None, verbose: bool, console: Console) -> None:
    """Print all tables of a run and its suite, or the headlines alone."""
    results = results_table(record)
    if not verbose:
        if results is not None or summary is not None:
            console.print(headline_table(record, summary).terminal())
        if summary is not None:
            print_skipped(summary, console)
        return
    if summary is not None:
        print_summary(summary, console)
    if results is not None:
        console.print(results.terminal())
