"""Ids with a meaning are written by their names: a bare 0 or 1 beside ids says nothing when their order changes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import attn_lightning

PACKAGE = Path(attn_lightning.__file__).parent
IDS = {"ids", "tokens", "candidates", "second"}


def called(node: ast.expr) -> str:
    """`batch.tokens[:, -1]` is of `tokens`."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def bare(source: str) -> Iterator[str]:
    """Comparisons of ids with a number."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            number = any(isinstance(part, ast.Constant) and type(part.value) is int for part in parts)
            if number and any(called(part) in IDS for part in parts):
                yield ast.unparse(node)


@pytest.mark.parametrize("source", ["ids == 1", "0 != batch.tokens[:, -4:]", "self.ids[row] > 1"])
def test_a_bare_number_is_found(source):
    assert list(bare(source))


def test_no_id_is_compared_with_a_bare_number():
    found = {str(path.relative_to(PACKAGE)): list(bare(path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert {path: sources for path, sources in found.items() if sources} == {}
    assert len(found) > 100
