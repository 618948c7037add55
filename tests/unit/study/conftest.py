"""Study files for the tests of this room."""

import pytest

from attn_lightning.study.configuration import read_study


@pytest.fixture
def folder(tmp_path):
    """A folder of studies below one of experiments."""
    (tmp_path / "studies").mkdir()
    for method in ("vanilla", "iat", "relation"):
        for data in ("planted", "sst"):
            (tmp_path / f"{method}_{data}.yaml").write_text("data: Planted\n")
    return tmp_path / "studies"


@pytest.fixture
def study(folder):
    """Read a study with these contents."""

    def read(text, name="tried"):
        path = folder / f"{name}.yaml"
        path.write_text(text)
        return read_study(path)

    return read
