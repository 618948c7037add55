"""Tests mirror the package: `attn_lightning/a/b.py` is tested by `tests/unit/a/test_b.py`."""

from pathlib import Path

import attn_lightning

PACKAGE = Path(attn_lightning.__file__).parent
TESTS = Path(__file__).parent

WITHOUT = frozenset(
    {
        "backbone/protocol",
        "commands/after_fit",
        "commands/evaluate",
        "commands/figures",
        "commands/run_choice",
        "commands/run_options",
        "commands/search",
        "commands/study",
        "commands/sweep",
        "commands/wandb_run",
        "evaluation/folder",
        "evaluation/runner",
        "methods/base",
        "metrics/kendall",
        "metrics/per_example",
        "step",
        "study/running",
        "study/state",
        "study/writing",
        "types",
    }
)
"""Modules that have no test of their name yet; the list only gets shorter."""


def test_every_module_has_a_test_of_its_name():
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    tested = {path for path in modules if (TESTS / path.parent / f"test_{path.name}").exists()}
    without = {path.with_suffix("").as_posix() for path in modules - tested}
    assert sorted(without - WITHOUT) == [], "modules without a test file of their name"
