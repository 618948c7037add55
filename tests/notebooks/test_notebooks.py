"""The notebooks run from top to bottom on embedded data, are kept without outputs, and hold no code that is ours."""

import ast
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
TIMEOUT = 240
"""Seconds that one cell may take, several times what the slowest one takes."""


def read(path):
    return pytest.importorskip("nbformat", reason="needs the extra `notebooks`").read(path, as_version=4)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_defines_no_function_that_the_package_should_have(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert not [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    client = pytest.importorskip("nbclient", reason="needs the extra `notebooks`")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    # A copy: what the cells write stays out of the checkout.
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    book = read(path)
    folder = {"metadata": {"path": str(tmp_path / "notebooks")}}
    client.NotebookClient(book, timeout=TIMEOUT, kernel_name="python3", resources=folder).execute()
    shown = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert shown
    assert not [output for output in shown if output.output_type == "error"]
    if path.stem == "1_quickstart":
        assert any("<bdi>" in output.get("data", {}).get("text/html", "") for output in shown)
