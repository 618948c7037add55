"""Initial word vectors from a file: text (`.vec`, `.txt`), fastText models (`.bin`) and NumPy archives (`.npz`)."""

import gzip
import logging
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt
from torch import Tensor

from attn_lightning.data.embeddings.base import (
    PADDING_ROW,
    UNKNOWN_ROW,
    Embeddings,
    Sentences,
    Vector,
    cached,
    check_dimension,
    complete,
    digest,
)
from attn_lightning.data.embeddings.fasttext_model import MAGIC, binary_dimension, read_binary
from attn_lightning.errors import ConfigurationError, DataFormatError, one_line
from attn_lightning.files import file_origin

logger = logging.getLogger(__name__)


class PretrainedEmbeddings(Embeddings):
    """Vectors from a file; only the words of the vocabulary are kept, and cached.

    A word that the file does not have is looked up in lower case, then (fastText `.bin` with n-grams) composed of its
    character n-grams, else drawn at random. Formats, by the end of the name:

    - `.vec`, `.txt` and others: one word per line, then its numbers; with or without the header `words dimension`
      (word2vec, fastText, GloVe), also with `.gz`. Read in one pass, memory does not grow with the file.
    - `.bin`: a fastText model. It is loaded whole, once. (word2vec's binary format is not read.)
    - `.npz`: arrays `words` (V,) and `vectors` (V, E).

    Nothing is read before the vectors are needed, so a checkpoint can be used where the file is absent.

    Args:
        path: the file.
        dimension: E that is expected; None takes that of the file.

    Raises:
        ConfigurationError: there is no such file, its dimension is another one, or it has no word of the vocabulary.
        DataFormatError: a line or an array is broken; the message names it.
    """

    def __init__(self, path: Path, dimension: int | None = None) -> None:
        if dimension is not None:
            super().__init__(dimension)
        self.path = Path(path).expanduser()
        self._expected = dimension

    @property
    def dimension(self) -> int:
        """E, read from the beginning of the file where it was not given."""
        if self._expected is None:
            self._expected = _dimension_of(self._file())
        return self._expected

    def _file(self) -> Path:
        if self.path.is_file():
            if self.path.name.endswith((".bin.gz", ".npz.gz")):
                raise ConfigurationError(
                    f"Expected {self.path} to be unpacked, but got a gzip file; unpack it with `gunzip --keep` and "
                    f"name {self.path.name.removesuffix('.gz')}."
                )
            return self.path
        raise ConfigurationError(
            f"Expected `path` to be a file of word vectors, but there is none at {self.path}; check the path."
        )

    def origin(self) -> dict[str, str]:
        """The file with its SHA-256."""
        return file_origin("file", self._file())

    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> Tensor:
        """Read the rows of the vocabulary; `sentences` is not used. See `Embeddings.build`."""
        status = self._file().stat()
        # By size and time: to digest a file of gigabytes takes longer than to read the words that are wanted.
        identity = [str(self.path.resolve()), str(status.st_size), str(status.st_mtime_ns), str(self.dimension)]
        key = digest([*identity, *vocabulary])

        def read() -> dict[int, Vector]:
            return read_vectors(self.path, vocabulary, self.dimension)

        found = cached(cache / f"pretrained-{key}.npz", read)
        logger.info("%s: vectors for %d of %d words", self.path.name, len(found), len(vocabulary))
        if not found:
            raise ConfigurationError(
                f"Expected {self.path} to have words of the vocabulary, but it has none of {len(vocabulary)}; "
                f"check the language and the tokenization (first words: {', '.join(vocabulary[2:7])})."
            )
        return complete(found, len(vocabulary), self.dimension, seed)


def read_vectors(path: Path, vocabulary: Sequence[str], dimension: int) -> dict[int, Vector]:
    """Vectors of a file for the words of a vocabulary.

    Args:
        path: a file in one of the formats of `PretrainedEmbeddings`.
        vocabulary: V words; row 0 (padding) is not looked up.
        dimension: E that is expected.

    Returns:
        Row number to (E,) float32, only the rows that were found.

    Raises:
        ConfigurationError: the file has another dimension.
        DataFormatError: it is broken.
    """
    if path.suffix == ".bin":
        return read_binary(path, vocabulary, dimension)
    wanted = set(vocabulary[UNKNOWN_ROW:])
    wanted |= {word.lower() for word in wanted}
    vectors = _read_npz(path, wanted, dimension) if path.suffix == ".npz" else _read_text(path, wanted, dimension)
    found = {}
    for row, word in enumerate(vocabulary):
        vector = vectors.get(word, vectors.get(word.lower()))
        if row != PADDING_ROW and vector is not None:
            found[row] = vector
    return found


# --- text -----------------------------------------------------------------------------------------------------------


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        with cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFormatError(
            f"Expected {path} to be a whole gzip file, but: {one_line(error)}; fetch it again."
        ) from error


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _header(first: bytes) -> int | None:
    """Dimension named by a header line, None if the line is a word with its numbers."""
    match = re.fullmatch(rb"\s*\d+\s+(\d+)\s*", first)
    return int(match[1]) if match else None


def _dimension_of_row(first: bytes) -> int:
    """Numbers at the end of a line, the first field excepted: it is the word, even where it looks like a number."""
    fields = first.split()
    words = [index for index, field in enumerate(fields) if index == 0 or not _is_number(field)]
    return len(fields) - 1 - max(words, default=0)


def _text_dimension(path: Path) -> int:
    with _open(path) as file:
        first = file.readline()
    if first.startswith(struct.pack("<i", MAGIC)):
        raise DataFormatError(
            f"Expected {path} to hold a word and its numbers per line, but got a fastText model; unpack it and give it "
            "a name that ends in .bin."
        )
    header = _header(first)
    dimension = _dimension_of_row(first) if header is None else header
    if dimension < 1:
        raise DataFormatError(
            f"Expected {path}, line 1, to be a word and its numbers, but got {first[:60]!r}; check the format."
        )
    return dimension


def _read_text(path: Path, wanted: set[str], dimension: int) -> dict[str, Vector]:
    check_dimension(path, _text_dimension(path), dimension)
    vectors: dict[str, Vector] = {}
    num_replaced = 0
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and _header(line) is not None:
                continue
            word, numbers = _split_row(line, dimension, path, number)
            text = word.decode(errors="replace")
            num_replaced += "\ufffd" in text
            # The first of equal words. Numbers are parsed only where they are wanted, for that takes the time.
            if text in wanted and text not in vectors:
                vectors[text] = _parse(numbers, dimension, path, number)
    if num_replaced:
        logger.warning("%s: %d words are not valid UTF-8; their broken bytes were replaced", path, num_replaced)
    return vectors


def _split_row(line: bytes, dimension: int, path: Path, number: int) -> tuple[bytes, bytes]:
    """Word and numbers of a line. Words of some files contain spaces, so the numbers are counted from the right."""
    line = line.rstrip()
    # Nearly every line, without splitting it into 300 fields.
    if line.count(b" ") == dimension:
        word, _, numbers = line.partition(b" ")
        return word, numbers
    fields = line.rsplit(None, dimension)
    if len(fields) != dimension + 1 or any(_is_number(extra) for extra in fields[0].split()[1:]):
        raise DataFormatError(
            f"Expected {path}, line {number}, to be a word and {dimension} numbers, but got {len(line.split())} "
            f"fields: {line[:40]!r}...; repair or remove the line."
        )
    return fields[0], b" ".join(fields[1:])


def _parse(numbers: bytes, dimension: int, path: Path, number: int) -> Vector:
    try:
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused below
            vector = np.array([float(field) for field in numbers.split()]).astype(np.float32)
    except ValueError as error:
        raise DataFormatError(
            f"Expected {path}, line {number}, to have {dimension} numbers, but: {one_line(error)}; "
            "repair or remove the line."
        ) from error
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        raise DataFormatError(
            f"Expected {path}, line {number}, to have {dimension} finite numbers, but got {numbers[:60]!r}...; "
            "repair or remove the line."
        )
    return vector


# --- npz ------------------------------------------------------------------------------------------------------------


def _load_npz(path: Path) -> tuple[npt.NDArray[np.str_], Vector]:
    try:
        # A pickle in the file would be run as code.
        with np.load(path, allow_pickle=False) as arrays:
            words, vectors = arrays["words"], arrays["vectors"]
    except Exception as error:  # zip, header and arrays are read by three libraries, each with errors of its own
        raise _bad_npz(path, f"{type(error).__name__}: {one_line(error)}") from error
    fits = vectors.ndim == 2 and words.shape == vectors.shape[:1] and vectors.shape[1] > 0
    if not fits or words.dtype.kind != "U" or vectors.dtype.kind not in "fiu":
        raise _bad_npz(path, f"got {words.dtype} {words.shape} and {vectors.dtype} {vectors.shape}")
    return words, vectors


def _bad_npz(path: Path, problem: str) -> DataFormatError:
    return DataFormatError(
        f"Expected {path} to hold the arrays `words`, V strings, and `vectors`, (V, E) numbers, but: {problem}; save "
        "one word per vector with np.savez."
    )


def _read_npz(path: Path, wanted: set[str], dimension: int) -> dict[str, Vector]:
    words, vectors = _load_npz(path)
    check_dimension(path, vectors.shape[1], dimension)
    found: dict[str, Vector] = {}
    for row, word in enumerate(words.tolist()):
        if word in wanted and word not in found:
            with np.errstate(over="ignore"):  # too large for float32 is infinite, and refused below
                found[word] = vectors[row].astype(np.float32)
            if not np.isfinite(found[word]).all():
                raise DataFormatError(
                    f"Expected {path}, row {row} ({word!r:.40}), to have {dimension} finite numbers, but got "
                    f"{vectors[row][:3]}...; repair or remove the row."
                )
    return found


def _dimension_of(path: Path) -> int:
    if path.suffix == ".bin":
        return binary_dimension(path)
    if path.suffix == ".npz":
        return int(_load_npz(path)[1].shape[1])
    return _text_dimension(path)
