"""Texts that stand several times in a batch, such as a paragraph with many questions, are encoded once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from attn_lightning.numerics import at_least_float32


def equal_rows(embeddings: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which rows of a batch have to be read, and which of those stands for each row.

    Args:
        embeddings: (B, T, E); only what is inside the mask counts.
        mask: (B, T) bool.

    Returns:
        (U,) rows, each the first one of its text, and (B,) places in them, so that `rows[places]` has the texts of the
        batch; None if no two texts are equal.

    Cost: two passes over the embeddings. A GPU waits for the number of texts.
    """
    with torch.no_grad():
        # By one number per text, which depends on the order of its words; those of equal ones are compared in full.
        words = embeddings.sum(-1).masked_fill(~mask, 0.0)
        numbers = (words * torch.arange(words.shape[1], device=words.device).cos()).sum(1)
        found = np.unique(at_least_float32(numbers).cpu().numpy(), return_index=True, return_inverse=True)[1:]
        if len(found[0]) == len(mask):
            return None
        rows, places = (torch.from_numpy(index).to(mask.device) for index in found)
        copies = (rows[places] != torch.arange(len(mask), device=mask.device)).nonzero().squeeze(1)
        first = rows[places[copies]]
        words_equal = (embeddings[copies] == embeddings[first]).all(-1) | ~mask[copies]
        same = words_equal.all() & (mask[copies] == mask[first]).all()
    # Two different texts of one number are possible, if hardly ever seen: then every row is read.
    return (rows, places) if bool(same) else None


class ReadsEqualTextsOnce(nn.Module):
    """What reads a batch through `read_once`: equal texts take one pass where nobody can tell.

    Without a graph that is everywhere. With one the gradient at the embeddings of a text comes out as the sum over its
    copies, in the first of them, so that only a pass whose embeddings nobody differentiates may do it; see
    `equal_texts_once`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.with_graph = False

    def read_once(self, read: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, mask: Tensor) -> Tensor:
        """`read(embeddings, mask)`, over different texts alone where that is allowed.

        Args:
            read: from (B, T, E) and (B, T) to (B, T, D), each row by itself and without random numbers.
            embeddings: (B, T, E).
            mask: (B, T) bool.
        """
        allowed = self.with_graph or not torch.is_grad_enabled()
        if not allowed or (found := equal_rows(embeddings, mask)) is None:
            return read(embeddings, mask)
        rows, places = found
        return read(embeddings[rows], mask[rows])[places]


@contextmanager
def equal_texts_once(model: nn.Module, allowed: bool) -> Iterator[None]:
    """Passes inside read equal texts once although they keep a graph.

    Args:
        model: with or without a part that can.
        allowed: whether nobody asks for gradients at the embeddings that these passes return.
    """
    readers = [module for module in model.children() if isinstance(module, ReadsEqualTextsOnce)]
    try:
        for reader in readers:
            reader.with_graph = allowed
        yield
    finally:
        for reader in readers:
            reader.with_graph = False
