"""What a run prints when it is done: the ten rows that matter, or everything, and where the rest is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from attn_lightning.console import say, stdout_console
from attn_lightning.evaluation.naming import declared, flat_name, split_measures
from attn_lightning.evaluation.summary import (
    LINEAR,
    MARK,
    UNTRAINED,
    Summary,
    as_good,
    marks_note,
    number,
    print_skipped,
    sheets,
)
from attn_lightning.files import write_text
from attn_lightning.metrics.explained import explained_measures
from attn_lightning.sheet import Sheet

RESULTS = "results.md"
"""The file of a run for people."""

NUM_HEADLINES = 10

HEADLINES = (
    "test/accuracy",
    "test/macro_f1",
    "test/log_loss",
    "test/shortcut_follow_mean",
    "test/teacher_agreement_mean",
    "test/post_hoc_accuracy_mean",
    "test/evidence_recall_mean",
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
    found = _tested(record) | ({} if summary is None else _measured(summary))
    chosen = [name for name in HEADLINES if name in found][:NUM_HEADLINES]
    # Those of the whole test split first; the suite may have been measured on a part of it.
    chosen.sort(key=lambda name: not name.startswith("test/"))
    beside = [*(() if summary is None else summary.controls), UNTRAINED, LINEAR]
    columns = [column for column in beside if any(found[name][1].get(column) is not None for name in chosen)]
    rows, rivals = [], []
    for name in chosen:
        value, others, better = found[name]
        measure = declared(name if name.startswith("test/") else f"evaluation/{name}")
        assert measure is not None, "every headline is declared"
        rivals += better
        cells = (number(others.get(column)) for column in columns)
        rows.append((name, number(value) + MARK * bool(better), *cells, measure.better))
    title = f"{record['name']}, seed {record['seed']}, test split" if record else "Evaluation"
    return Sheet(title, ("metric", "model", *columns, "better"), rows, dim=columns, note=marks_note(rivals))


_Found = tuple[float | None, Mapping[str, float | None], list[str]]
"""A value, those of the controls by the name of their column, and which of them are as good."""


def _tested(record: Mapping[str, Any]) -> dict[str, _Found]:
    linear = record.get("control", {}).get("tfidf_logistic_regression", {})
    found: dict[str, _Found] = {}
    for name, value in record.get("test", {}).items():
        others, measure = {LINEAR: linear.get(name.removeprefix("test/"))}, declared(name)
        found[name] = (value, others, [] if measure is None else as_good(measure, value, others))
    return found


def _measured(summary: Summary) -> dict[str, _Found]:
    return {
        flat_name(family.name, row): (row.value, summary.rivals(family, row), summary.beaten_by(family, row))
        for family in summary.families
        for row in summary.trained.rows.get(family.name, [])
    }


def results_table(record: Mapping[str, Any]) -> Sheet | None:
    """All metrics of the evaluated split beside the linear control, with range and direction; None before any."""
    # The record of `validate` has no test; any other is about its test.
    split = next((name for name in ("test", "validation") if record.get(name)), None)
    if split is None:
        return None
    prefix = "test/" if split == "test" else "val/"
    control = record.get("control", {}).get("tfidf_logistic_regression", {})
    rows = []
    for name, measure in (split_measures() | explained_measures()).items():
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
        say(f"all tables: {path}")
    say(f"run folder: {folder}")


def write_results(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """Write the table of all metrics of a run into its folder; None where nothing was measured."""
    results = results_table(record)
    if results is None:
        return None
    write_text(folder / RESULTS, results.markdown() + "\n")
    return folder / RESULTS


def print_tables(record: Mapping[str, Any], summary: Summary | None, verbose: bool, console: Console) -> None:
    """Print all tables of a run and its suite, or the headlines alone."""
    if verbose:
        tables = [*(() if summary is None else sheets(summary)), results_table(record)]
    else:
        tables = [headline_table(record, summary)]
    for table in tables:
        if table is not None and table.rows:
            console.print(table.terminal())
    if summary is not None:
        print_skipped(summary, console)
