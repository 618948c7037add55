"""Rows of an Arrow file, mapped into memory: what a training reads, without the time to import `datasets`."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

    ArrowDataset: TypeAlias = Dataset
else:
    ArrowDataset = Any
    """`datasets.Dataset`, in annotations: whoever makes one imports `datasets`, which takes half a second."""


class MappedRows:
    """An Arrow file as a table; has of `datasets.Dataset` what a training needs, by the same names.

    Pickles as its path, so that a worker process maps the file itself.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    @cached_property
    def data(self) -> pa.Table:
        """All columns; nothing is read before it is looked at."""
        # Not closed: the columns are views into the mapped memory.
        return pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all()

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.data.column_names)

    def __len__(self) -> int:
        return len(self.data)

    def dataset(self) -> ArrowDataset:
        """The same rows with all that `datasets` can do."""
        return open_rows(self.path)


def open_rows(path: Path) -> ArrowDataset:
    """An Arrow file of rows, mapped into memory."""
    import datasets

    return datasets.Dataset.from_file(str(path))


def to_numpy(values: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """What `values.to_numpy(zero_copy_only=False)` gives, without its import of pandas where there are no nulls.

    Args:
        values: numbers or booleans.

    Returns:
        (N,) a view of one chunk of integers, a copy of anything else.
    """
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    parts = [_chunk_to_numpy(chunk) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _chunk_to_numpy(values: pa.Array) -> NDArray[Any]:
    found: NDArray[Any]
    start, count, kind = values.offset, len(values), values.type
    # Of the two buffers the first says what is null and the second has the values.
    if count and not values.null_count and pa.types.is_boolean(kind):
        # Arrow keeps eight truth values in a byte, the first in its lowest bit.
        packed = np.frombuffer(values.buffers()[1], np.uint8)
        found = np.unpackbits(packed, count=start + count, bitorder="little")[start:].astype(np.bool_)
    elif count and not values.null_count and pa.types.is_integer(kind):
        number = np.dtype(str(kind))
        found = np.frombuffer(values.buffers()[1], number, count, start * number.itemsize)
    else:
        found = values.to_numpy(zero_copy_only=False)
    return found
