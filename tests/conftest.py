"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder with the real data sets; skips the test where there is none."""
    named = os.environ.get("ATTN_LIGHTNING_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real data: set ATTN_LIGHTNING_DATA to a folder like {root} to run this test")
    return root
