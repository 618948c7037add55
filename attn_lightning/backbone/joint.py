"""Two batches through one run of the encoder."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from attn_lightning.backbone.pieces import PieceEmbedding
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.numerics import at_least_float32, full_precision
from attn_lightning.types import AttentionOutput, Batch

MAX_STRETCH = 2.0
"""Ratio of the lengths up to which two batches are encoded together: beyond it padding costs more than a second run."""


def joint_passes(model: Backbone, first: Batch, second: Batch) -> tuple[AttentionOutput, AttentionOutput]:
    """The clean passes of two batches, from one run of the encoder where their lengths allow it.

    Only `encode` is shared. Each output has a graph of its own from its embeddings to its logits, of the shape of its
    own batch, so methods cannot tell it from that of a pass alone.

    Args:
        model: the backbone; one with a `forward` of its own, of pairs or of pieces is run twice.
        first: (B, T).
        second: (B', T').

    Returns:
        The output of each batch.
    """
    batches = (first, second)
    # An LSTM's time goes with the longest text, so that one run over both is nearly as fast as one of them.
    lengths = sorted(batch.mask.shape[1] for batch in batches)
    # The second text of a pair stands at the end of its row, which stretching would move.
    apart = type(model).forward is not Backbone.forward or getattr(model, "pair", None) is not None
    # Pieces are as wide as the longest word of their batch, and stored states are known by the very tensor.
    apart = apart or isinstance(getattr(model, "embedding", None), PieceEmbedding)
    if apart or lengths[1] > MAX_STRETCH * lengths[0]:
        return model(first.tokens, first.mask), model(second.tokens, second.mask)
    embeddings = [model.embed(batch.tokens) for batch in batches]
    stretched = [F.pad(e, (0, 0, 0, lengths[1] - e.shape[1])) for e in embeddings]
    masks = [F.pad(batch.mask, (0, lengths[1] - batch.mask.shape[1])) for batch in batches]
    hidden = at_least_float32(model.encode(torch.cat(stretched), torch.cat(masks))).split([len(m) for m in masks])
    outputs = [
        _finish(model, states, batch.mask, vectors)
        for states, batch, vectors in zip(hidden, batches, embeddings, strict=True)
    ]
    return outputs[0], outputs[1]


def _finish(model: Backbone, hidden: Tensor, mask: Tensor, embeddings: Tensor) -> AttentionOutput:
    # Back to its own width: methods draw noise of this shape, and would draw other numbers for the wider one.
    hidden = hidden[:, : mask.shape[1]]
    with full_precision(hidden.device.type):
        output = model.attend(hidden, model.checked_scores(hidden, mask), mask)
    return replace(output, embeddings=embeddings)
