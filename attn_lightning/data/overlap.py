"""Texts that two files share, though each writes them in its own way."""

import hashlib
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from attn_lightning.data.encoding import BETWEEN, joined_texts
from attn_lightning.data.rows import ArrowDataset

_NEITHER_LETTER_NOR_DIGIT = re.compile(rf"[^\w{BETWEEN}]|_")


def overlap(pool: ArrowDataset, splits: Mapping[str, ArrowDataset]) -> dict[str, int]:
    """How many texts of a pool are a text of a split too, by split.

    Two texts are equal if they have the same letters and digits, whatever their case, spaces and punctuation, in which
    copies of one data set differ; texts without any must be the same to the last mark. Of pairs both texts must be
    equal, and all of a text counts, also where a model reads it cut off.

    Args:
        pool: rows with a column `text`, and for pairs `question`.
        splits: the same by name.
    """
    ours = _digests(pool)
    return {name: int(np.isin(ours, _digests(rows)).sum()) for name, rows in splits.items()}


def _digests(rows: ArrowDataset) -> NDArray[np.uint64]:
    """(N,) eight bytes for every text, so that a million of them are 8 MB; equal texts have the same."""
    found = np.empty(len(rows), np.uint64)
    for row, text in enumerate(joined_texts(rows)):
        bare = _NEITHER_LETTER_NOR_DIGIT.sub("", text.lower())
        digest = hashlib.sha256((bare if bare.strip(BETWEEN) else text).encode()).digest()
        found[row] = int.from_bytes(digest[:8], "little")
    return found
