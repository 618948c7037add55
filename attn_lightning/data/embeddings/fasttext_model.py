"""Vectors of a fastText model, `.bin`: its parts are checked before the library, which trusts them, loads it."""

import mmap
import struct
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from attn_lightning.data.embeddings.base import PADDING_ROW, Vector, check_dimension, without_surrogates
from attn_lightning.errors import DataFormatError

MAGIC = 793712314
"""The number that a model begins with."""


def _load_binary(path: Path) -> Any:
    import fasttext  # a compiled module that only these embeddings need

    check_model(path)
    try:
        with redirect_stderr(StringIO()):  # load_model prints a note about its own history
            return fasttext.load_model(str(path))
    except (ValueError, MemoryError, RuntimeError) as error:
        raise _bad_model(path, str(error)) from error


def _bad_model(path: Path, problem: str) -> DataFormatError:
    return DataFormatError(f"Expected {path} to be a whole fastText model, but: {problem}; fetch it again.")


def binary_dimension(path: Path) -> int:
    """Read from the first bytes (magic number, version, dimension): the whole model may be gigabytes."""
    with path.open("rb") as file:
        head = file.read(12)
    if len(head) < 12 or struct.unpack("<i", head[:4]) != (MAGIC,):
        raise DataFormatError(
            f"Expected {path} to be a fastText model, but it starts with {head[:4]!r}; convert word2vec's binary "
            "format to .txt first."
        )
    return int(struct.unpack("<i", head[8:])[0])


def check_model(path: Path) -> None:
    """Walk through a fastText model without loading it: its parts must fit its size and one another.

    The library itself reads a file that is cut off for ever, or far beyond its end.

    Raises:
        DataFormatError: the file is cut off or damaged.
    """
    # Mapped: of a model of gigabytes only the dictionary is looked at.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
        try:
            end = _walk(model)
        except (struct.error, ValueError, OverflowError) as error:  # the last of a place beyond every file
            raise _bad_model(path, str(error) or "it is cut off") from error
        if end != len(model):
            raise _bad_model(path, f"its parts have {end:,} bytes and the file {len(model):,}")


def _walk(model: mmap.mmap) -> int:
    """The byte behind the last part: header, options, dictionary, input and output matrix."""
    place: int = 0

    def read(form: str) -> tuple[Any, ...]:
        nonlocal place
        place += struct.calcsize(form)
        return struct.unpack_from(form, model, place - struct.calcsize(form))

    _, version, dim, *_, loss, kind, bucket, minn, maxn, _, _ = read("<14id")
    size, words, labels, _, pruned = read("<3i2q")
    sane = 0 < dim < 10**6 and bucket >= 0 and 0 <= minn <= maxn and version in (11, 12) and loss in range(1, 5)
    if not sane or kind not in (1, 2, 3) or min(words, labels) < 0 or words + labels != size or pruned < -1:
        raise ValueError("its header is damaged")
    if maxn and not bucket:
        raise ValueError("it has no rows for its character n-grams")
    types = [0, 0]
    for _ in range(size):
        place = model.find(b"\0", place) + 1  # 0, and a negative size below, where no word ends any more
        if not place:
            raise ValueError("its dictionary is cut off")
        _, of_type = read("<qb")
        if of_type not in (0, 1):
            raise ValueError("its dictionary is damaged")
        types[of_type] += 1
    if types != [words, labels]:
        raise ValueError("its dictionary is damaged")
    place += 8 * max(pruned, 0)
    # -1 stands for a model that was not pruned, in which every bucket has its row.
    rows = words + (bucket if pruned < 0 else max(pruned, 0))
    for place_of in ("input", "output"):
        (quantized,) = read("<?")
        if quantized:
            raise ValueError("it is quantized (`.ftz`), whose vectors are not exact")
        height, width = read("<2q")
        if width != dim or height < 0 or (place_of == "input" and height != rows):
            raise ValueError(f"its {place_of} matrix is damaged")
        place += 4 * int(height * width)
    return place


def read_binary(path: Path, vocabulary: Sequence[str], dimension: int) -> dict[int, Vector]:
    """Vectors of a fastText model for the words of a vocabulary.

    Args:
        path: the `.bin` file.
        vocabulary: V words; row 0 (padding) is not looked up.
        dimension: E that is expected.

    Returns:
        Row number to (E,) float32; with character n-grams in the model every word has one that has an n-gram at all.

    Raises:
        ConfigurationError: the model has another dimension.
        DataFormatError: the file is not a fastText model.
    """
    check_dimension(path, binary_dimension(path), dimension)
    model = _load_binary(path)
    has_subwords = model.f.getArgs().maxn > 0
    found = {}
    for row, word in enumerate(map(without_surrogates, vocabulary)):
        # As it is written first: "US" and "us" are two words.
        known = next((form for form in (word, word.lower()) if model.get_word_id(form) >= 0), None)
        if row == PADDING_ROW or (known is None and not has_subwords):
            continue
        vector = model.get_word_vector(word if known is None else known).astype(np.float32)
        if not np.isfinite(vector).all():
            raise _bad_model(path, f"the vector of {word!r:.40} has numbers that are not finite")
        if known is not None or vector.any():
            found[row] = vector
    return found
