"""The table at the end of a run."""

import io
from pathlib import Path

from rich.console import Console

from attn_lightning.evaluation.catalog import FAMILIES
from attn_lightning.evaluation.family import Row
from attn_lightning.evaluation.naming import declared, split_measures
from attn_lightning.evaluation.results import (
    HEADLINES,
    NUM_HEADLINES,
    headline_table,
    print_results,
    print_tables,
    results_table,
    write_results,
)
from attn_lightning.evaluation.suite import Findings
from attn_lightning.evaluation.summary import Summary


def record(**more) -> dict:
    return {"name": "mine", "seed": 3, "test": {"test/accuracy": 0.75, "test/f1": None, "test/other": 1.0}, **more}


def text_of(sheet) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(sheet.terminal())
    return console.file.getvalue()


def shown(contents: dict) -> str:
    return text_of(results_table(contents))


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
    print_results(folder, record(cost=cost), console=console, tables=[folder / "results.md"])
    assert capsys.readouterr().out == f"all tables: {folder}/results.md\nrun folder: {folder}\n"
    assert "12,346" in console.file.getvalue()


# --- headlines --------------------------------------------------------------------------------------------------------


def row(metric, explainer, value, **setting) -> Row:
    return Row(metric, explainer, value, None, 9, 9, setting)


def suite(untrained=(), linear=None) -> Summary:
    rows = {
        "faithfulness": [
            row("aopc_comprehensiveness", "attention", 0.25),
            row("aopc_comprehensiveness", "random", 0.5),
            row("comprehensiveness", "attention", 0.125, fraction=0.2),
        ],
        "sparsity": [row("effective_length", "attention", 3.0), row("effective_length", "random", 9.0)],
        "selective": [row("interpretability", "attention", 0.75), row("ftpf", "attention", 0.5)],
    }
    families = [FAMILIES[name]() for name in rows]
    other = Findings({"selective": list(untrained)})
    return Summary(families, Findings(rows), other, linear or {}, ["random", "uniform"])


def test_headlines_are_what_matters_with_the_controls_beside_it():
    contents = record(control={"tfidf_logistic_regression": {"accuracy": 0.8}})
    sheet = headline_table(contents, suite(untrained=[row("interpretability", "attention", 0.5)]))
    assert list(sheet.header) == ["metric", "model", "random", "untrained", "TF-IDF linear", "better"]
    assert [list(found) for found in sheet.rows] == [
        ["test/accuracy", "0.7500†", "-", "-", "0.8000", "higher"],
        ["faithfulness/attention/aopc_comprehensiveness", "0.2500†", "0.5000", "-", "-", "higher"],
        ["selective/attention/interpretability", "0.7500", "-", "0.5000", "-", "higher"],
        ["sparsity/attention/effective_length", "3.0000", "9.0000", "-", "-", "-"],
    ]
    assert sheet.note == "† a control in the same row is as good or better (TF-IDF linear, random)"
    assert "mine, seed 3, test split" in text_of(sheet)


def test_there_are_at_most_ten_headlines_and_all_are_declared():
    contents = record(test={f"test/{name}": 0.5 for name in split_measures()})
    assert len(headline_table(contents, suite()).rows) == NUM_HEADLINES == 10
    assert all(declared(name if name.startswith("test/") else f"evaluation/{name}") for name in HEADLINES)


def test_without_a_suite_the_run_itself_has_headlines():
    sheet = headline_table(record(test={"test/accuracy": 0.5, "test/ece": 0.1, "test/hidden_kendall_mean": 0.2}), None)
    assert [found[0] for found in sheet.rows] == ["test/accuracy", "test/ece", "test/hidden_kendall_mean"]
    assert list(sheet.header) == ["metric", "model", "better"]


def test_everything_is_printed_when_it_is_asked_for():
    def printed(verbose):
        console = Console(file=io.StringIO(), width=160)
        print_tables(record(), suite(), verbose, console)
        return console.file.getvalue()

    assert "comprehensiveness fraction=0.2" in printed(True)
    assert "mine: test split" in printed(True)
    assert "fraction=0.2" not in printed(False)
    assert "sparsity/attention/effective_length" in printed(False)


def test_the_table_of_a_run_is_a_file_too(tmp_path):
    path = write_results(tmp_path, record())
    text = path.read_text("utf-8")
    assert "| accuracy | 0.7500 | 0..1 | higher | share of right predictions |" in text
    assert write_results(tmp_path, {"name": "mine", "seed": 0}) is None
