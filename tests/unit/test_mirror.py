"""Tests mirror the package: `attn_lightning/a/b.py` is tested by `tests/unit/a/test_b.py`."""

from pathlib import Path

import attn_lightning

PACKAGE = Path(attn_lightning.__file__).parent
TESTS = Path(__file__).parent


def test_every_module_has_a_test_of_its_name():
    """Without exceptions: a module that is too small to be tested alone is too small to be a module."""
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    without = {path for path in modules if "def test_" not in text(TESTS / path.parent / f"test_{path.name}")}
    assert sorted(path.as_posix() for path in without) == [], "modules without tests in a file of their name"


def text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
