"""Nearest words in embedding space, and perturbations that point to them.

A table of the k nearest words of *all* words costs `2 E V^2` operations per epoch (24 TFLOP for 200,000 words of 300
numbers). Words are looked up when they first occur in an epoch instead, all new words of a batch at once: the first
step never waits for the whole vocabulary, words that do not occur cost nothing, and no word costs more than once.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from attn_lightning.backbone.pieces import PieceEmbedding
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.data.text import UNKNOWN_ID
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, unit_vectors
from attn_lightning.perturbation.directions import Directions, Projection
from attn_lightning.types import AttentionOutput, Batch

logger = logging.getLogger(__name__)

CHUNK = 8192
"""Words of the vocabulary that are compared at a time."""

QUERIES = 512
"""Words that are looked up at a time: the similarities of a chunk take 16 MiB."""

DIFFERENCES = 2**19
"""Numbers in the differences that are formed at a time: 2 MiB stay in the processor's cache."""

DIFFERENCES_ON_DEVICE = 2**26
"""The same on an accelerator, where a few large operations are faster: 256 MiB."""


def nearest_words(words: Tensor, table: Tensor, num_neighbors: int) -> Tensor:
    """The words with the largest cosine to each of the given ones, themselves, padding and `<unk>` excluded.

    Args:
        words: (N,) int64 ids.
        table: (V, E) word vectors, padding in row 0 and `<unk>` in row 1; a vector of zeros has cosine 0 with all.
        num_neighbors: k, at most V - 3.

    Returns:
        (N, k) int64 ids, the nearest first. Cost: `2 N V E` operations; memory beside the result and one number per
        word of the vocabulary: `QUERIES * (CHUNK + E)` numbers, whatever N and V are.
    """
    norms = torch.linalg.vector_norm(table, dim=1, dtype=torch.float32 if table.dtype.itemsize < 4 else None)
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    return torch.cat([_nearest(part, table, scale, num_neighbors) for part in words.split(QUERIES)])


def _nearest(words: Tensor, table: Tensor, scale: Tensor, num_neighbors: int) -> Tensor:
    queries = at_least_float32(table[words])
    best = queries.new_empty(len(words), 0), words.new_empty(len(words), 0)
    for start in range(0, len(table), CHUNK):
        candidates = at_least_float32(table[start : start + CHUNK])
        cosine = (queries @ candidates.mT).mul_(scale[start : start + CHUNK])
        cosine[:, : max(UNKNOWN_ID + 1 - start, 0)] = -torch.inf
        inside = ((words >= start) & (words < start + len(candidates))).nonzero().squeeze(1)
        cosine[inside, words[inside] - start] = -torch.inf
        values, places = cosine.topk(min(num_neighbors, len(candidates)), dim=1)
        best = _merge(best, (values, places + start), num_neighbors)
    return best[1]


def _merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of two lists of (value, word) per row."""
    values, words = torch.cat([first[0], second[0]], 1), torch.cat([first[1], second[1]], 1)
    values, places = values.topk(min(count, values.shape[1]), dim=1)
    return values, words.gather(1, places)


class NeighborCache:
    """The nearest words of those that have been asked for so far: ids only, no vectors.

    Args:
        table: (V, E) word vectors; not kept.
        num_neighbors: k; a vocabulary that has fewer other words gives all of them, and the log says so.

    Raises:
        ConfigurationError: no word has another one.
    """

    def __init__(self, table: Tensor, num_neighbors: int) -> None:
        available = len(table) - UNKNOWN_ID - 2
        if available < 1:
            raise ConfigurationError(
                f"Expected a vocabulary of at least two words for neighbors, but got {len(table)} entries with padding "
                "and unknown; lower `min_count` of the data."
            )
        if num_neighbors > available:
            logger.warning("a vocabulary of %d words has %d neighbors, not %d", len(table), available, num_neighbors)
        self._ids = torch.full((len(table), min(num_neighbors, available)), -1, device=table.device)
        self._known = torch.zeros(len(table), dtype=torch.bool, device=table.device)

    def fits(self, table: Tensor) -> bool:
        """Whether this is about a vocabulary of that size on that device."""
        return len(self._ids) == len(table) and self._ids.device == table.device

    def look_up(self, words: Tensor, table: Tensor) -> Tensor:
        """(N,) ids to the (N, k) ids of their neighbors; new words are searched for in the (V, E) table."""
        distinct = words.unique()
        new = distinct[~self._known[distinct]]
        if len(new):
            self._ids[new] = nearest_words(new, table, self._ids.shape[1])
            self._known[new] = True
        return self._ids[words]


def word_table(model: Backbone) -> Tensor:
    """(V, E) word vectors of a model: its `embedding`, or its only `nn.Embedding`.

    Raises:
        ConfigurationError: the model has none, or several of which none has that name, or reads words as pieces.
    """
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    named = getattr(model, "embedding", None)
    if isinstance(named, nn.Embedding):
        return named.weight
    # Its encoder may have a single table, that of the pieces: the ids of words would be looked up among those.
    if isinstance(named, PieceEmbedding):
        raise ConfigurationError(
            "Expected a model with one vector per word for interpretable perturbations of words, but the encoder of "
            f"{type(model).__name__} reads each word as pieces; use WordAT or WordVAT."
        )
    if len(tables) != 1:
        raise ConfigurationError(
            f"Expected a model with one `nn.Embedding` for interpretable perturbations of words, but "
            f"{type(model).__name__} has {len(tables)}; call that of the words `embedding`, or use WordAT or WordVAT."
        )
    return tables[0].weight


class NearestWords(Directions):
    """Toward the nearest words, found anew in every epoch; see `toward_neighbors`.

    What is kept from step to step are ids of words, not tensors of the model: they stay out of checkpoints and pickles
    and are searched for again after a resume.

    Args:
        num_neighbors: k, nearest words per word, 1 or more; a smaller vocabulary gives all it has.
    """

    def __init__(self, num_neighbors: int) -> None:
        self.num_neighbors = num_neighbors
        self._cache: NeighborCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Ids are cheap to find again, and a pickle must not drag a copy of the word vectors along.
        return {**vars(self), "_cache": None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NearestWords) and other.num_neighbors == self.num_neighbors

    def __hash__(self) -> int:
        return hash(self.num_neighbors)

    def check(self, model: Backbone) -> None:
        """Refuse a model without word vectors; see `word_table`."""
        word_table(model)

    def refresh(self) -> None:
        """Forget the neighbors: word vectors have moved."""
        self._cache = None

    @torch.no_grad()
    def projection(self, model: Backbone, output: AttentionOutput, batch: Batch) -> Projection:
        """See `Directions.projection`."""
        table = word_table(model)
        # A model that was moved or exchanged has another table, whose neighbors are others.
        if self._cache is None or not self._cache.fits(table):
            self._cache = NeighborCache(table, self.num_neighbors)
        words, mask = batch.tokens, batch.mask
        return toward_neighbors(words, mask, self._cache.look_up(words[mask], table), table)


def toward_neighbors(words: Tensor, mask: Tensor, neighbors: Tensor, table: Tensor) -> Projection:
    """Noise restricted to directions from each word to its neighbors: interpretable perturbations of words.

    `r_t(alpha) = sum_k alpha_{t,k} d_{t,k}` with `d_{t,k} = (e_k - e_t) / ||e_k - e_t||`, and alpha is chosen instead
    of `r`: `alpha_t = g_alpha,t / ||g_alpha,t||_2` over the k neighbors of a word, `g_alpha,{t,k} = g_t . d_{t,k}`.

    Args:
        words: (B, T) ids.
        mask: (B, T) bool.
        neighbors: (n, k) ids for the n real tokens, in the order of `words[mask]`.
        table: (V, E) word vectors; the map is for these values.

    Returns:
        The map from g to `r(alpha)`, both (B, T, E): not linear, as every word counts alike whatever its gradient; 0
        at padding, at words without neighbors and where g is 0. It forms the n k E differences a piece at a time:
        memory is bounded, and the time is a fifth of that of writing all of them and reading them again.
    """
    centers = words[mask]
    numbers = DIFFERENCES if table.device.type == "cpu" else DIFFERENCES_ON_DEVICE
    # Pieces whose differences fit into the cache of a CPU: they are used twice and never leave it.
    size = max(1, numbers // (neighbors.shape[1] * table.shape[1]))

    @torch.no_grad()
    def project(gradient: Tensor) -> Tensor:
        slopes = gradient[mask]
        pieces = zip(slopes.split(size), centers.split(size), neighbors.split(size), strict=True)
        moved = torch.zeros_like(gradient)
        moved[mask] = torch.cat([_moved(*piece, table) for piece in pieces])
        return moved

    return project


def _moved(gradient: Tensor, words: Tensor, neighbors: Tensor, table: Tensor) -> Tensor:
    """(N, E) `r(alpha)` of N words with the (N, E) gradients and (N, k) neighbors."""
    # Indexing with a matrix of ids is several times slower than with a list of them.
    vectors = at_least_float32(table.index_select(0, neighbors.flatten())).view(*neighbors.shape, -1)
    differences = vectors.sub_(at_least_float32(table.index_select(0, words)).unsqueeze(1))
    lengths = torch.linalg.vector_norm(differences, dim=2)
    # Two words may have the same vector: there is no direction between them.
    scale = torch.where(lengths > 0, 1 / lengths, 0.0)
    slopes = torch.bmm(gradient.unsqueeze(1), differences.mT).squeeze(1) * scale
    # Scaled twice instead of dividing the differences once: those are n k E numbers, the scales n k.
    return torch.bmm((unit_vectors(slopes) * scale).unsqueeze(1), differences).squeeze(1)
