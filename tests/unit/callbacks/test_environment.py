"""Where a run ran."""

import torch

from attn_lightning.callbacks.environment import environment
from attn_lightning.data.embeddings.trained import FASTTEXT_PACKAGE


def test_environment_names_versions():
    found = environment()
    # What is installed need not carry the local part of a version, such as +cpu.
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["packages"][FASTTEXT_PACKAGE]
    assert set(found) == {"python", "packages", "commit", "arithmetic"}


def test_environment_says_what_sums_depend_on():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        found = environment()["arithmetic"]
    finally:
        torch.set_num_threads(before)
    assert found["threads"] == before + 1
    assert found["torch"] == torch.__version__
    assert f"CPU capability usage: {found['kernels']}" in torch.__config__.show()


def test_environment_outside_a_checkout(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None
