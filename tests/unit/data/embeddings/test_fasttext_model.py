"""Models that are cut off or damaged are refused before the library reads them, which would go on for ever."""

import struct
from pathlib import Path
from typing import Any

import pytest

from attn_lightning.data.embeddings.fasttext_model import binary_dimension, check_model, read_binary
from attn_lightning.errors import DataFormatError

WORDS = ["<pad>", "<unk>", "oak", "elm"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("maxn", [0, 4])
def test_a_model_that_is_cut_off_anywhere_is_refused(fasttext_model: Any, tmp_path: Path, maxn: int) -> None:
    fasttext_model(tmp_path, maxn=maxn)
    whole = (tmp_path / "model.bin").read_bytes()
    check_model(tmp_path / "model.bin")
    dimension = binary_dimension(tmp_path / "model.bin")
    for length in [*range(12, 200, 9), *range(200, len(whole), 97), len(whole) - 1]:
        path = write(tmp_path / "cut.bin", whole[:length])
        with pytest.raises(DataFormatError, match=r"cut\.bin to be a whole fastText model"):
            read_binary(path, WORDS, dimension)
    with pytest.raises(DataFormatError, match="its parts have"):
        check_model(write(tmp_path / "long.bin", whole + b"more"))


@pytest.mark.parametrize("place", [8, 36, 40, 44, 64, 68, 4])
def test_a_damaged_header_is_refused(fasttext_model: Any, tmp_path: Path, place: int) -> None:
    # The sizes of the dictionary and what follows from the options; other options do not matter to vectors.
    fasttext_model(tmp_path, maxn=4)
    damaged = bytearray((tmp_path / "model.bin").read_bytes())
    damaged[place : place + 4] = struct.pack("<i", -7)
    with pytest.raises(DataFormatError, match="whole fastText model"):
        check_model(write(tmp_path / "damaged.bin", bytes(damaged)))


def test_a_size_beyond_every_file_is_refused(fasttext_model: Any, tmp_path: Path) -> None:
    fasttext_model(tmp_path, maxn=0)
    damaged = bytearray((tmp_path / "model.bin").read_bytes())
    damaged[84:92] = struct.pack("<q", 2**61)  # entries of a pruned dictionary
    with pytest.raises(DataFormatError, match="whole fastText model"):
        check_model(write(tmp_path / "damaged.bin", bytes(damaged)))
