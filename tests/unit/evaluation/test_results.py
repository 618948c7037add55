"""The table at the end of a run."""

import io
from pathlib import Path

from rich.console import Console

from attn_lightning.evaluation.results import print_results, results_table


def record(**more) -> dict:
    return {"name": "mine", "seed": 3, "test": {"test/accuracy": 0.75, "test/f1": None, "test/other": 1.0}, **more}


def shown(contents: dict) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(results_table(contents))
    return console.file.getvalue()


def test_every_row_has_value_range_and_direction():
    text = shown(record())
    (row,) = [line for line in text.splitlines() if "accuracy" in line]
    assert "0.7500" in row
    assert "0..1" in row
    assert "higher" in row
    assert "mine: test split, seed 3" in text


def test_an_undefined_metric_is_a_dash():
    (row,) = [line for line in shown(record()).splitlines() if " f1" in line]
    assert " - " in row


def test_the_control_stands_beside_the_model():
    text = shown(record(control={"tfidf_logistic_regression": {"accuracy": 0.5, "f1": 0.25}}))
    assert "TF-IDF" in text
    (row,) = [line for line in text.splitlines() if "accuracy" in line]
    assert row.index("0.7500") < row.index("0.5000")


def test_without_a_control_there_is_no_column():
    assert "TF-IDF" not in shown(record())


def test_validation_is_shown_where_there_is_no_test():
    contents = {"name": "mine", "seed": None, "validation": {"val/accuracy": 0.5}}
    assert "validation split" in shown(contents)


def test_nothing_measured_nothing_shown():
    assert results_table({"name": "mine", "seed": 0}) is None


def test_the_folder_is_one_line_however_long(capsys):
    folder = Path("/tmp") / ("x" * 300)
    console = Console(file=io.StringIO(), width=40)
    cost = {"fit_seconds": 1.25, "train_tokens_per_second": 12345.6, "peak_memory_mib": 512.0}
    print_results(folder, record(cost=cost), console)
    assert capsys.readouterr().out == f"run folder: {folder}\n"
    assert "12,346" in console.file.getvalue()
