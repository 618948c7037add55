"""Shortened and scaled texts of a chunk of documents, read by an LSTM that reads what they share once.

Legend of this file: B documents of a chunk, k variants of them, T tokens of the longest document.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.shared_lstm import SharedLSTM
from attn_lightning.numerics import at_least_float32
from attn_lightning.types import AttentionOutput


def shareable_lstm(model: Backbone) -> nn.LSTM | None:
    """The LSTM that `SharedLSTM` can stand in for; None where any part on the way to the states is not the stock one.

    A second layer would read states that differ from text to text, so there is nothing to share.
    """
    if not isinstance(model, AttentionClassifier) or type(model.encoder) is not BiLSTM or model.pair is not None:
        return None
    # By identity of the functions: a subclass that overrides one may read the text in any other way.
    own, lstm = type(model), model.encoder.lstm
    stock = own.embed is AttentionClassifier.embed and own.encode is AttentionClassifier.encode
    stock = stock and own.scaled is AttentionClassifier.scaled
    stock = stock and own.forward in (AttentionClassifier.forward, BottleneckClassifier.forward)
    return lstm if stock and lstm.num_layers == 1 else None


class SharedTexts:
    """Variants of the documents of a chunk, read by a `SharedLSTM`.

    Args:
        model: around the LSTM.
        lstm: see `shareable_lstm`.
        tokens: (B * T, ...) of the chunk.
        mask: (B, T) of the chunk.
        erased: the token of a text of which nothing is left; None if there is no such text.
    """

    def __init__(
        self, model: Backbone, lstm: nn.LSTM, tokens: Tensor, mask: NDArray[np.bool_], erased: Tensor | None
    ) -> None:
        self._model, self._mask, self._end = model, mask, len(tokens)
        if erased is not None:
            tokens = torch.cat([tokens, erased.unsqueeze(0)])
        self._words = np.arange(len(tokens))
        if type(getattr(model, "embedding", None)) is nn.Embedding:
            # A word that stands in a chunk twice has one vector, and the texts share what begins with it.
            tokens, words = tokens.unique(return_inverse=True)
            self._words = words.numpy()
        # Embedded once for all variants: they differ in which tokens are there, not in what a token is.
        inputs = model.embed(tokens.unsqueeze(0)).squeeze(0).to(next(lstm.parameters()).dtype)
        self._type, self._lstm = inputs.dtype, SharedLSTM(lstm, inputs)

    def read(self, owners: NDArray[np.int64], kept: NDArray[np.bool_]) -> AttentionOutput:
        """Shortened texts, of which (k, T) tokens are kept."""
        source, lengths = kept_places(owners, kept, self._end)
        return self._attended(self._lstm(self._words[source], lengths), lengths)

    def scaled(self, owners: NDArray[np.int64], scales: NDArray[np.floating[Any]]) -> AttentionOutput:
        """Texts whose tokens are scaled by (k, L), the longest text first and L its length."""
        lengths = self._mask.sum(1)[owners]
        places = owners[:, None] * self._mask.shape[1] + np.arange(scales.shape[1])
        factors = torch.from_numpy(scales).to(self._type)
        return self._attended(self._lstm(self._words[places], lengths, factors), lengths)

    def _attended(self, states: Tensor, lengths: NDArray[np.int64]) -> AttentionOutput:
        mask = torch.from_numpy(np.arange(states.shape[1]) < lengths[:, None])
        hidden = at_least_float32(states)
        return self._model.attend(hidden, self._model.score(hidden, mask), mask)


def kept_places(
    owners: NDArray[np.int64], kept: NDArray[np.bool_], end: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(k, L) places of the kept tokens in the flattened chunk, moved to the left, and the (k,) lengths of the texts.

    Where nothing is kept the text is the one token at `end`, behind the chunk.
    """
    sizes = kept.sum(1)
    lengths = np.maximum(sizes, 1)
    source = np.zeros((len(kept), lengths.max()), np.int64)
    variants, places = kept.nonzero()
    source[np.arange(source.shape[1]) < sizes[:, None]] = owners[variants] * kept.shape[1] + places
    source[sizes == 0, 0] = end
    return source, lengths
