"""What every kind of initial word vectors shares: the table, its random rows and the cache of what is expensive.

Every class gives one float32 tensor with a row per word of the vocabulary. Row 0 is padding and stays zero. Words for
which there is no vector are drawn at random with the mean length of the others, so that no word stands out only
because it is missing.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attn_lightning.checks import check_numbers
from attn_lightning.data.cache import one_at_a_time
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import replacing

Vector: TypeAlias = npt.NDArray[np.float32]
Sentences: TypeAlias = Callable[[], Iterator[list[str]]]

PADDING_ROW = 0
UNKNOWN_ROW = 1


class Embeddings(ABC):
    """Where the initial word vectors come from.

    Args:
        dimension: E, numbers per word.
    """

    def __init__(self, dimension: int) -> None:
        check_numbers(self, at_least=1, dimension=dimension, advice="300 is usual")
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """E, numbers per word."""
        return self._dimension

    def origin(self) -> dict[str, str] | None:
        """What the vectors come from besides the training texts, as `kind`, `location` and `revision`; None if nothing.

        Runs whose vectors had another revision are not compared with one another.

        Raises:
            ConfigurationError: the vectors are not there.
        """
        return None

    @abstractmethod
    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> Tensor:
        """Make the table.

        Args:
            vocabulary: V words, the padding word first and the unknown word second.
            sentences: gives an iterator over the words of every training text, both of a pair; may be called several
                times. Where it has a `name`, no other texts have the same one.
            cache: folder for what is expensive to make; created if it is absent.
            seed: of the rows that are drawn at random.

        Returns:
            (V, E) float32, zeros in row 0.

        Raises:
            ConfigurationError: an option is out of its range or does not fit the file.
            DataFormatError: the file of vectors cannot be read.
        """


class RandomEmbeddings(Embeddings):
    """Independent normal numbers, `N(0, scale^2)`.

    Args:
        dimension: E, numbers per word.
        scale: standard deviation of each number, above 0.
    """

    def __init__(self, dimension: int = 300, scale: float = 0.1) -> None:
        super().__init__(dimension)
        check_numbers(self, above=0, scale=scale, advice="0.1 is usual")
        self.scale = scale

    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> Tensor:
        """Draw the table; `sentences` and `cache` are not used. See `Embeddings.build`."""
        return random_rows(len(vocabulary), self.dimension, self.scale, seed)


def random_rows(num_words: int, dimension: int, scale: float, seed: int) -> Tensor:
    """Rows of `N(0, scale^2)`, zeros in row 0.

    Args:
        num_words: V.
        dimension: E.
        scale: standard deviation.
        seed: the same seed gives the same rows; the global generator is left alone.

    Returns:
        (V, E) float32.
    """
    rows = torch.randn(num_words, dimension, generator=torch.Generator().manual_seed(seed)) * scale
    rows[PADDING_ROW] = 0.0
    return rows


def complete(found: Mapping[int, Vector], num_words: int, dimension: int, seed: int) -> Tensor:
    """The whole table from the rows that have a vector.

    The others are drawn from `N(0, m^2 / E)` with the mean length m of the found ones: their expected squared length
    is m^2.

    Args:
        found: row number to (E,) vector.
        num_words: V.
        dimension: E.
        seed: of the drawn rows.

    Returns:
        (V, E) float32, zeros in row 0.
    """
    lengths = [_length(vector) for vector in found.values()]
    mean_length = sum(lengths) / len(lengths) if lengths else 0.0
    table = random_rows(num_words, dimension, mean_length / dimension**0.5, seed)
    if found:
        table[list(found)] = torch.from_numpy(np.stack(list(found.values())).astype(np.float32, copy=False))
    table[PADDING_ROW] = 0.0
    return table


def _length(vector: Vector) -> float:
    """L2 length, with squares of float64 where those of float32 leave its range, as the square of 1e30 does."""
    with np.errstate(over="ignore", under="ignore"):
        length = float(np.linalg.norm(vector))
    return length if 0 < length < np.inf else float(np.linalg.norm(vector.astype(np.float64)))


def with_random_rows(table: Tensor, count: int, seed: int) -> Tensor:
    """The table with more rows below, for tokens that are no words.

    Args:
        table: (V, E), zeros in row 0.
        count: rows to add.
        seed: of the new rows.

    Returns:
        (V + count, E) float32; the new rows are `N(0, m^2 / E)` with the mean length m of the others.
    """
    mean_length = float(table[PADDING_ROW + 1 :].norm(dim=1).mean())
    # One more, because the first of random rows is that of padding.
    rows = random_rows(count + 1, table.shape[1], mean_length / table.shape[1] ** 0.5, seed)
    return torch.cat([table, rows[1:]])


def check_dimension(path: Path, came: int, expected: int) -> None:
    """Refuse a file of vectors of another dimension than the one that was asked for."""
    if came != expected:
        raise ConfigurationError(
            f"Expected `dimension` to be {came}, that of {path}, but got {expected}; set it to {came} or leave it out."
        )


def without_surrogates(word: str) -> str:
    """The word without lone surrogates, which no UTF-8 text can hold."""
    return word.encode(errors="backslashreplace").decode()


def digest(parts: Sequence[str]) -> str:
    """A short name for what decides the content of a cached file."""
    return hashlib.sha256("\n".join(map(without_surrogates, parts)).encode()).hexdigest()[:32]


def cached(path: Path, make: Callable[[], dict[int, Vector]]) -> dict[int, Vector]:
    """The rows stored at `path`, made and stored first, by one process, if they are not there."""
    if path.is_file():
        return _stored(path)
    # Asked again inside: another process may have made it while this one waited.
    with one_at_a_time(path):
        if path.is_file():
            return _stored(path)
        found = make()
        # That nothing was found is the caller's error, and must not be found in the cache by the next run.
        if found:
            # Whoever comes without a lock must not see half a file.
            with replacing(path) as file:
                np.savez(file, rows=np.array(list(found), dtype=np.int64), vectors=np.stack(list(found.values())))
        return found


def _stored(path: Path) -> dict[int, Vector]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(zip(arrays["rows"].tolist(), arrays["vectors"], strict=True))
