"""GloVe by name, out of the installed package, against numbers that stand in the published file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attn_lightning.data.embeddings.named import Glove
from attn_lightning.errors import ConfigurationError

pytestmark = pytest.mark.pretrained

VOCABULARY = ["<pad>", "<unk>", "the", "The", "film", "zyzzyvaxq"]


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)


def built(vectors: Glove, tmp_path: Path) -> torch.Tensor:
    return vectors.build(VOCABULARY, lambda: iter(()), tmp_path, 0)


def test_the_first_word_has_its_published_vector(glove: Path, tmp_path: Path) -> None:
    table = built(Glove(50), tmp_path)
    assert table.shape == (6, 50)
    torch.testing.assert_close(table[2, :3], torch.tensor([0.418, 0.24968, -0.41242]))
    assert torch.equal(table[2], table[3]), "a capital letter is looked up in lower case too"
    assert torch.all(table[0] == 0)


def test_rows_are_those_of_the_file_in_a_plain_loop(glove: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    words = pq.read_table(glove / "glove_6B_index.parquet")["index"].to_pylist()
    vectors = np.load(glove / "glove_6B_50d_emb.npy", mmap_mode="r")
    assert len(words) == len(set(words)) == len(vectors) == 400_000
    table = built(Glove(50), tmp_path)
    for row, word in enumerate(VOCABULARY):
        if word in words:
            np.testing.assert_array_equal(table[row].numpy(), vectors[words.index(word)])
    assert "zyzzyvaxq" not in words
    assert table[5].abs().sum() > 0


def test_the_package_has_no_other_size(glove: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"100-dimensional vectors of Glove.*--data\.embeddings\.path"):
        built(Glove(100), tmp_path)
