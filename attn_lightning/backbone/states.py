"""States of a frozen encoder, computed once, kept in an Arrow file and mapped into memory."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.files import replacing

logger = logging.getLogger(__name__)


def key_of(ids: NDArray[Any]) -> bytes:
    """16 bytes that stand for a text, by the ids of its words."""
    # Of int64 whatever the tensor has: the same words must give the same key on every device.
    return hashlib.blake2b(np.ascontiguousarray(ids, np.int64).tobytes(), digest_size=16).digest()


def keys_of(tokens: Tensor, mask: Tensor, second: Tensor | None = None) -> list[bytes]:
    """The key of every row of a padded batch.

    Args:
        tokens: (B, T) ids.
        mask: (B, T) bool.
        second: (B, T) bool, the words of a second text that is read together with the first one.
    """
    ids, real = tokens.cpu().numpy(), mask.cpu().numpy()
    if second is None:
        return [key_of(row[kept]) for row, kept in zip(ids, real, strict=True)]
    # No word has the id between them: where the first text ends is a part of what was read.
    rows = zip(ids, real, second.cpu().numpy(), strict=True)
    return [key_of(np.concatenate([row[kept], [-1], row[behind]])) for row, kept, behind in rows]


class StateStore:
    """The states of many texts by their keys; nothing but the keys is in memory.

    Args:
        path: what `write` left.
        size: D, numbers of a state.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        chunks = table.column("states").chunks
        self._values = [chunk.values.to_numpy() for chunk in chunks]
        self._starts = [chunk.offsets.to_numpy() for chunk in chunks]
        # Keys are read once and stay in memory: 16 bytes a text, where its states are a thousand times that.
        keys = (chunk.to_pylist() for chunk in table.column("key").chunks)
        self._index = {key: (place, row) for place, chunk in enumerate(keys) for row, key in enumerate(chunk)}

    def __getstate__(self) -> dict[str, Any]:
        # Workers and checkpoints get the path; each process maps the file by itself.
        return {"path": self.path, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def __len__(self) -> int:
        return len(self._index)

    def fetch(self, keys: Sequence[bytes], mask: Tensor) -> Tensor:
        """(B, T, D) float32 states of the texts at the places of a (B, T) mask, zeros elsewhere.

        Raises:
            KeyError: a text that is not there.
        """
        padded = np.zeros((*mask.shape, self.size), np.float32)
        for line, real, key in zip(padded, mask.cpu().numpy(), keys, strict=True):
            chunk, row = self._index[key]
            start, end = self._starts[chunk][row : row + 2]
            line[real] = self._values[chunk][start:end].reshape(-1, self.size)
        return torch.from_numpy(padded)


def write(
    path: Path,
    batches: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    encode: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    half: bool,
) -> int:
    """Encode texts and keep the states of their words, each text once.

    Args:
        path: the new file; half of it never takes this name.
        batches: (B, T) ids and (B, T) masks, and that of the second text or None, as in `keys_of`.
        encode: from these three to (B, T, D) states of all words.
        half: keep float16 numbers, half the size and exact to three digits.

    Returns:
        How many texts were encoded.
    """
    number, kind = (np.float16, pa.float16()) if half else (np.float32, pa.float32())
    schema = pa.schema({"key": pa.binary(16), "states": pa.list_(kind)})
    seen: set[bytes] = set()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, pa.ipc.new_file(file, schema) as writer:
        for tokens, mask, second in batches:
            keys = keys_of(tokens, mask, second)
            # The same text may come twice in a batch, as second texts of pairs do.
            new = [row for row, key in enumerate(keys) if key not in seen and keys.index(key) == row]
            if not new:
                continue
            states = encode(tokens[new], mask[new], None if second is None else second[new]).float().cpu()
            real = (mask if second is None else mask | second)[new].cpu()
            rows = [one[kept].numpy().astype(number).ravel() for one, kept in zip(states, real, strict=True)]
            bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
            lists = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(np.concatenate(rows), kind))
            chosen = [keys[row] for row in new]
            writer.write_batch(pa.record_batch([pa.array(chosen, pa.binary(16)), lists], schema=schema))
            seen.update(chosen)
    return len(seen)
