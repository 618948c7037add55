"""Words to the pieces of a pretrained encoder: a table for the vocabulary, and one tensor per word for its pieces.

The units of the package stay words, whatever the encoder reads: attention, rationales, erasing and explanations are per
word, and one tokenizer with its offsets serves data, checkpoint, prediction and page. Only between `embed` and `encode`
is a word the few pieces that its letters make.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

COUNT = 4096.0
"""What the last number of a packed word holds per piece: no perturbation of the usual radius changes it by a half."""


@dataclass(frozen=True)
class WordPieces:
    """How a pretrained encoder cuts words, as plain values that travel in a checkpoint.

    Attributes:
        tokenizer: state of the Rust tokenizer, JSON.
        prefix: ids before a text.
        suffix: ids after it.
        separator: ids between two texts that are read together.
        unknown: id of what cannot be read.
        special: ids that no word may stand for: a text that contains "[SEP]" must not end itself.
        max_length: the most pieces of a pass, those of prefix and suffix included.
    """

    tokenizer: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    separator: tuple[int, ...]
    unknown: int
    special: tuple[int, ...]
    max_length: int

    def to_str(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_str(cls, content: str) -> "WordPieces":
        """What `to_str` wrote."""
        loaded: dict[str, Any] = json.loads(content)
        state: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in loaded.items()}
        return cls(**state)

    @cached_property
    def _rust(self) -> Any:
        from tokenizers import Tokenizer

        rust = Tokenizer.from_str(self.tokenizer)
        # Files of published encoders often ask for padding to a fixed length.
        rust.no_padding()
        rust.no_truncation()
        return rust

    def cut(self, words: Sequence[str], most: int) -> list[list[int]]:
        """The ids of the pieces of every word, at least one and at most `most`.

        A special piece, and a word without pieces (a zero-width space), is the unknown piece.
        """
        special = set(self.special)
        encoded = self._rust.encode_batch([[word] for word in words], is_pretokenized=True, add_special_tokens=False)
        found = []
        for one in encoded:
            ids = [self.unknown if piece in special else piece for piece in one.ids[:most]]
            found.append(ids or [self.unknown])
        return found


class PieceEmbedding(nn.Module):
    """Word ids to packed words: the embeddings of the pieces side by side, then their number times `COUNT`.

    A packed word has `P * E + 1` numbers, P the most pieces of a word of the batch; places without a piece hold zeros.
    So a perturbation of "embeddings" is one of the input embeddings of the pretrained encoder.

    Args:
        table: the encoder's own input embeddings; they stay the encoder's, nothing is copied.
        pieces: how words are cut.
        vocabulary: words by id, padding and unknown first.
        most: the most pieces that are kept of a word.
    """

    pieces: Tensor
    counts: Tensor

    def __init__(self, table: nn.Module, pieces: WordPieces, vocabulary: Sequence[str], most: int) -> None:
        super().__init__()
        self._table = (table,)  # in a tuple, or its weights would stand twice in every checkpoint
        self.cutting, self.most = pieces, most
        self.register_buffer("pieces", torch.zeros(0, most, dtype=torch.int32), persistent=False)
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int32), persistent=False)
        self._last: tuple[ReferenceType[Tensor], int, Tensor] | None = None
        self.know(vocabulary)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_last": None}  # a weak reference can be neither copied nor pickled

    @property
    def size(self) -> int:
        """E, numbers of the embedding of a piece."""
        weight: Any = self._table[0].weight
        return int(weight.shape[1])

    @property
    def table(self) -> nn.Module:
        """The encoder's own input embeddings."""
        return self._table[0]

    def know(self, vocabulary: Sequence[str]) -> None:
        """Learn the words beyond those that are known: a text to predict may have new ones."""
        known = len(self.counts)
        if len(vocabulary) <= known:
            return
        cut = self.cutting.cut(vocabulary[known:], self.most)
        # Padding has no piece, and the word for what is unknown is the encoder's own.
        special: dict[int, list[int]] = {0: [], 1: [self.cutting.unknown]}
        cut = [special.get(known + place, ids) for place, ids in enumerate(cut)]
        table = np.zeros((len(cut), self.most), np.int32)
        for row, ids in zip(table, cut, strict=True):
            row[: len(ids)] = ids
        counts = torch.tensor([len(ids) for ids in cut], dtype=torch.int32)
        self.pieces = torch.cat([self.pieces, torch.from_numpy(table).to(self.pieces.device)])
        self.counts = torch.cat([self.counts, counts.to(self.counts.device)])

    def requires_grad_(self, requires_grad: bool = True) -> "PieceEmbedding":
        """Freeze the encoder's table; switching it on is left to the encoder, which may be frozen as a whole."""
        if not requires_grad:
            self._table[0].requires_grad_(False)
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) ids to (B, T, P * E + 1)."""
        counts = self.counts[tokens]
        width = max(1, int(counts.max()))
        real = torch.arange(width, device=tokens.device) < counts.unsqueeze(-1)
        vectors = self._table[0](self.pieces[tokens][..., :width].long()).masked_fill(~real.unsqueeze(-1), 0.0)
        packed = torch.cat([vectors.flatten(2), (counts * COUNT).to(vectors.dtype).unsqueeze(-1)], -1)
        self._last = (ref(packed), _version(packed), tokens)
        return packed

    def tokens_of(self, embeddings: Tensor) -> Tensor | None:
        """The (B, T) ids from which this very tensor was made; None for any other, also one that was changed since.

        Identity is the proof that states computed before are still right: a perturbed or shortened text is another
        tensor.
        """
        if self._last is None or self._last[0]() is not embeddings or self._last[1] != _version(embeddings):
            return None
        return self._last[2]


def _version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; inference tensors do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def unpacked(embeddings: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Packed words to their pieces.

    Args:
        embeddings: (B, T, P * E + 1), see `PieceEmbedding`; noise may have been added to all of it.
        size: E.

    Returns:
        (B, T, P, E) embeddings, and the (B, T) int64 numbers of pieces, 0 where there is no word.
    """
    counts = (embeddings[..., -1].detach().float() / COUNT).round().long().clamp_min(0)
    return embeddings[..., :-1].unflatten(-1, (-1, size)), counts


def dropped_pieces(embeddings: Tensor, dropout: nn.Module) -> Tensor:
    """Packed words of whose pieces dropout has taken entries; the numbers of pieces stay, or words would come and go.

    Args:
        embeddings: (B, T, P * E + 1).
        dropout: of all entries.

    Returns:
        The very tensor where dropout takes nothing.
    """
    dropped: Tensor = dropout(embeddings)
    return embeddings if dropped is embeddings else torch.cat([dropped[..., :-1], embeddings[..., -1:]], -1)


def scaled_pieces(embeddings: Tensor, factors: Tensor) -> Tensor:
    """Packed words whose pieces are scaled, and are as many as before.

    Args:
        embeddings: (..., P * E + 1).
        factors: (..., 1) by which each word is multiplied.
    """
    vectors = embeddings[..., :-1] * factors
    return torch.cat([vectors, embeddings[..., -1:].expand(*vectors.shape[:-1], 1)], -1)


def held_by_pieces(embeddings: Tensor, size: int, mask: Tensor) -> Tensor:
    """Which numbers of packed words belong to a piece, and are neither a place without one nor the number of pieces.

    Args:
        embeddings: (B, T, P * E + 1).
        size: E.
        mask: (B, T) bool, the words that count.

    Returns:
        (B, T, P * E + 1) bool.
    """
    vectors, counts = unpacked(embeddings, size)
    real = torch.arange(vectors.shape[2], device=mask.device) < counts.unsqueeze(-1)
    return F.pad((real & mask.unsqueeze(-1)).repeat_interleave(size, -1), (0, 1))
