"""Predictions of texts from which tokens were erased: many shortened texts of many documents at once.

Legend of this file: B documents of a chunk, K erased variants of them, T tokens of the longest document.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.shared_lstm import SharedLSTM
from attn_lightning.checks import check_choice
from attn_lightning.data.batching import length_batches
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.subject import Subject
from attn_lightning.numerics import at_least_float32
from attn_lightning.types import AttentionOutput, Batch

Replacement = Literal["delete", "unknown", "attention"]
"""What happens to an erased token: deleted, replaced by the unknown word, or only left out by the attention."""

_CACHED_TOKENS = 2**13
"""Tokens of a pass beyond which a CPU gets slower per token, for its caches are full (measured on a BiLSTM)."""

_FEWEST_TEXTS = 128
"""Texts of a pass below which the steps along them are too small to be fast, whatever the caches hold (the same)."""


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Run the block in eval mode and without autograd; the modes of all modules are restored.

    Args:
        model: what the block runs.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def erased_probabilities(
    subject: Subject,
    batch: Batch,
    owners: NDArray[np.int64],
    keep: NDArray[np.bool_],
    replacement: Replacement = "delete",
    output: AttentionOutput | None = None,
) -> NDArray[np.float64]:
    """Class probabilities of documents of which only some tokens are kept.

    All variants of all documents are sorted by the tokens that they keep and run together, as many at a time as
    `Subject.token_budget` allows, so memory depends on the chunk and never on the data. Equal variants of a document
    are run once.

    - `delete`: erased tokens are cut out and the encoder runs on the shorter text. A text without any token left is
      the single token `Subject.erased`: the unknown word; for segments a segment of zeros.
    - `unknown`: erased tokens become that token, and the text keeps its length.
    - `attention`: hidden states stay those of the whole text; the scores of erased tokens are left out, so that
      attention is normalized over what is kept. Only the head runs. Where nothing is kept attention is 0 everywhere,
      and what remains is the prediction from an empty context.

    Args:
        subject: model and limits.
        batch: a chunk of documents on the device of the model, from `Subject.batches`; only `tokens` and `mask` are
            read.
        owners: (K,) the document of every variant, as a place in `batch`.
        keep: (K, T) tokens to keep; padding is never kept.
        replacement: what happens to erased tokens.
        output: the clean pass over `batch` in eval mode, for `attention`; it is made where it is not given.

    Returns:
        (K, C) float64, in the order of the variants. Neither the order, nor the other variants, nor the budget
        change them by more than rounding.

    Raises:
        ConfigurationError: an unknown replacement, or text without `Subject.erased` where that word is needed.

    Cost: one pass of the encoder over the kept tokens (`delete`) or over all tokens (`unknown`), of the head alone
    (`attention`).
    """
    check_choice(choices=get_args(Replacement), replacement=replacement)
    # Padding is never a token, whatever the caller's ranks say of it.
    kept = keep & batch.mask.cpu().numpy()[owners]
    chosen, inverse = _distinct(owners, kept)
    owners, kept = owners[chosen], kept[chosen]
    probabilities = np.empty((len(owners), subject.num_classes))
    with inference(subject.model):
        run = _runner(subject, batch, replacement, output, not kept.any(1).all())
        sizes = kept.sum(1) if replacement == "delete" else batch.mask.sum(1).cpu().numpy()[owners]
        # By length, since a batch costs what its longest text costs; the order has no effect on the numbers.
        budget = _tokens_at_once(subject, batch.tokens.device, sizes)
        for places in length_batches(np.maximum(sizes, 1), token_budget=budget):
            probabilities[places] = _probabilities(run(owners[places], kept[places]))
    return probabilities[inverse]


def scaled_probabilities(
    subject: Subject, batch: Batch, owners: NDArray[np.int64], scales: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Class probabilities of documents whose embeddings were scaled, `x'_t = s_t x_t`: erasing by degrees.

    Args:
        subject: model and limits.
        batch: a chunk of documents on the device of the model; only `tokens` and `mask` are read.
        owners: (K,) the document of every variant, as a place in `batch`.
        scales: (K, T) `s`; 1 leaves a token as it is, 0 takes it away without shortening the text.

    Returns:
        (K, C) float64, in the order of the variants.

    Cost: one pass of the encoder over every variant, packed as in `erased_probabilities`.
    """
    lengths = batch.mask.sum(1).cpu().numpy()[owners]
    probabilities = np.empty((len(owners), subject.num_classes))
    model, device = subject.model, batch.tokens.device
    with inference(model):
        embeddings = model.embed(batch.tokens)
        for places in length_batches(lengths, token_budget=_tokens_at_once(subject, device, lengths)):
            width = int(lengths[places].max())
            which = torch.from_numpy(owners[places]).to(device)
            # The type first and then the device: some accelerators have no float64.
            factors = torch.from_numpy(scales[places, :width]).to(embeddings.dtype).to(device)
            mask, behind = _cut(batch.mask, which, width), _second(batch.mask)
            scaled = model.scaled(embeddings[which, :width], factors.unsqueeze(-1))
            if embeddings[:, behind].shape[1]:
                scaled = torch.cat([scaled, embeddings[:, behind][which]], 1)
            hidden = model.encode(scaled, mask)
            probabilities[places] = _probabilities(model.attend(hidden, model.score(hidden, mask), mask))
    return probabilities


def removals_until_flip(
    subject: Subject, output: AttentionOutput, predicted: NDArray[np.int64], scores: NDArray[np.floating[Any]]
) -> NDArray[np.int64]:
    """How many of the highest-ranked tokens must lose their attention until the prediction changes.

    Hidden states are fixed; the attention scores of removed tokens are left out, and the normalizer runs on the rest.
    For softmax this is attention divided by what is left of it.

    Args:
        subject: the model.
        output: the clean pass over a chunk of documents, in eval mode.
        predicted: (B,) the class that has to change.
        scores: (B, T) what tokens are ranked by, the highest first, of equals the first; values at padding are
            ignored.

    Returns:
        (B,) the smallest number of removed tokens, in 1..n-1, with another predicted class; 0 if there is none (with
        all n removed there is no attention).

    Cost: the head once for every number of removed tokens, on all documents of the chunk that have not flipped yet.
    """
    mask, device = output.mask, output.mask.device
    lengths = mask.sum(1)
    order = torch.from_numpy(np.argsort(np.where(mask.cpu().numpy(), -scores, np.inf), 1, kind="stable")).to(device)
    removals = torch.zeros(len(mask), dtype=torch.int64, device=device)
    with inference(subject.model):
        left, classes = torch.arange(len(mask), device=device), torch.from_numpy(predicted).to(device)
        # Ranked by score, the tokens that are left are a view, and nothing is copied for every number of removals.
        hidden = output.hidden.take_along_dim(order.unsqueeze(-1), 1)
        ranked = output.scores.take_along_dim(order, 1)
        real = mask.take_along_dim(order, 1)
        for k in range(1, mask.shape[1]):
            running = (lengths[left] > k) & (removals[left] == 0)
            count = int(running.sum())
            if count == 0:
                break
            # Copies only when half of the documents are done: one after every flip would cost more than it saves.
            if 2 * count <= len(left):
                left, hidden, ranked, real = (part[running] for part in (left, hidden, ranked, real))
                running = running[running]
            rest = real[:, k:].clone()
            rest[:, 0] |= ~running  # documents that are done, and not worth a copy of all others, need some token
            logits = subject.model.attend(hidden[:, k:], ranked[:, k:], rest).logits
            removals[left[running & (logits.argmax(-1) != classes[left])]] = k
    return removals.cpu().numpy()


def _distinct(owners: NDArray[np.int64], kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the first of equal variants, and for every variant which of them it is."""
    if len(owners) == 0:
        return owners, owners
    # Owner and mask as one string of bytes, which NumPy can sort and compare at once.
    keys = np.concatenate([owners.astype("<i8")[:, None].view(np.uint8), np.packbits(kept, axis=1)], 1)
    rows = np.ascontiguousarray(keys).view(f"V{keys.shape[1]}")[:, 0]
    _, chosen, inverse = np.unique(rows, return_index=True, return_inverse=True)
    return chosen, inverse


_Runner = Callable[[NDArray[np.int64], NDArray[np.bool_]], AttentionOutput]
"""From the documents (k,) and the kept tokens (k, T) of some variants to what the model says of them."""


def _runner(
    subject: Subject, batch: Batch, replacement: Replacement, output: AttentionOutput | None, some_empty: bool
) -> _Runner:
    """What runs the model on variants of a chunk, with all that they share done once."""
    model, tokens = subject.model, batch.tokens.flatten(0, 1)
    if replacement == "attention":
        return partial(_attended, model, model(batch.tokens, batch.mask) if output is None else output)
    if replacement == "unknown":
        return partial(_replaced, model, batch, _erased_token(subject, tokens))
    end = len(tokens)
    if some_empty:
        tokens = torch.cat([tokens, _erased_token(subject, tokens).unsqueeze(0)])
    lstm = _shareable_lstm(model) if tokens.device.type == "cpu" else None
    if lstm is None:
        return partial(_shortened, model, tokens, end, batch.tokens[:, _second(batch.mask)])
    # Embedded once for all variants: they differ in which tokens are there, not in what a token is.
    inputs = model.embed(tokens.unsqueeze(0)).squeeze(0).to(next(lstm.parameters()).dtype)
    return partial(_shared, model, SharedLSTM(lstm, inputs), end)


def _shareable_lstm(model: Backbone) -> nn.LSTM | None:
    """The LSTM that `SharedLSTM` can stand in for; None where any part on the way to the states is not the stock one.

    A second layer would read states that differ from text to text, so there is nothing to share.
    """
    if not isinstance(model, AttentionClassifier) or type(model.encoder) is not BiLSTM or model.pair is not None:
        return None
    # By identity of the functions: a subclass that overrides one may read the text in any other way.
    own, lstm = type(model), model.encoder.lstm
    stock = own.embed is AttentionClassifier.embed and own.encode is AttentionClassifier.encode
    stock = stock and own.forward in (AttentionClassifier.forward, BottleneckClassifier.forward)
    return lstm if stock and lstm.num_layers == 1 else None


def _shared(
    model: Backbone, lstm: SharedLSTM, end: int, owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> AttentionOutput:
    """Shortened texts, read together."""
    source, lengths = _kept_places(owners, kept, end)
    mask = torch.from_numpy(np.arange(source.shape[1]) < lengths[:, None])
    hidden = at_least_float32(lstm(source, lengths))
    return model.attend(hidden, model.score(hidden, mask), mask)


def _shortened(
    model: Backbone, tokens: Tensor, end: int, second: Tensor, owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> AttentionOutput:
    """Shortened texts, read one by one (in a batch), with the second texts of pairs behind them."""
    source, lengths = _kept_places(owners, kept, end)
    mask = torch.from_numpy(np.arange(source.shape[1]) < lengths[:, None]).to(tokens.device)
    texts = tokens[torch.from_numpy(source).to(tokens.device)]
    # Places of padding point at the first token of the chunk; id 0 has the embedding 0.
    texts[~mask] = 0
    if second.shape[1]:
        texts = torch.cat([texts, second[torch.from_numpy(owners).to(tokens.device)]], 1)
        mask = F.pad(mask, (0, second.shape[1]))
    output: AttentionOutput = model(texts, mask)
    return output


def _kept_places(
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


def _replaced(
    model: Backbone, batch: Batch, erased: Tensor, owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> AttentionOutput:
    """Whole texts in which erased tokens are replaced."""
    device = batch.tokens.device
    which, keep = torch.from_numpy(owners).to(device), torch.from_numpy(kept).to(device)
    width = int(batch.mask[which].sum(1).max())
    tokens, mask = _cut(batch.tokens, which, width, batch.mask), _cut(batch.mask, which, width)
    tokens[mask & ~F.pad(keep[:, :width], (0, mask.shape[1] - width))] = erased
    output: AttentionOutput = model(tokens, mask)
    return output


def _attended(
    model: Backbone, output: AttentionOutput, owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> AttentionOutput:
    """The head on the hidden states of whole texts, with attention over the kept tokens alone."""
    device = output.mask.device
    which = torch.from_numpy(owners).to(device)
    width = int(output.mask[which].sum(1).max())
    hidden, scores = (_cut(part, which, width, output.mask) for part in (output.hidden, output.scores))
    some = torch.from_numpy(kept[:, :width]).to(device)
    some = F.pad(some, (0, scores.shape[1] - width))
    empty = ~some.any(1)
    if not bool(empty.any()):
        return model.attend(hidden, scores, some)
    # A normalizer needs at least one token: the first one is given to it, and its weight is removed afterwards.
    some[:, 0] |= empty
    attention = model.attend(hidden, scores, some).attention.masked_fill(empty.unsqueeze(1), 0.0)
    return model.attend(hidden, scores, some, attention)


def _second(mask: Tensor) -> slice:
    """The columns behind the longest text of a chunk: there stand the second texts of pairs; none without pairs."""
    return slice(int(mask.sum(1).max()), None)


def _cut(values: Tensor, which: Tensor, width: int, mask: Tensor | None = None) -> Tensor:
    """Some rows of (B, T, ...) values, cut to their longest text; what belongs to a second text stays behind it."""
    behind = values[:, _second(values if mask is None else mask)]
    cut = values[which, :width]
    return torch.cat([cut, behind[which]], 1) if behind.shape[1] else cut


def _tokens_at_once(subject: Subject, device: torch.device, lengths: NDArray[np.int64]) -> int:
    """The most tokens of a pass over texts: within the budget, and on a CPU within its caches if texts are short."""
    cached = max(_CACHED_TOKENS, _FEWEST_TEXTS * int(lengths.max(initial=0)))
    return min(subject.token_budget, cached) if device.type == "cpu" else subject.token_budget


def _erased_token(subject: Subject, tokens: Tensor) -> Tensor:
    """What stands for an erased one of the (N, ...) tokens: a word id, or a segment of zeros."""
    if tokens.is_floating_point():
        return tokens.new_zeros(tokens.shape[1:])
    if subject.erased is None:
        raise ConfigurationError(
            "Expected `erased` of the Subject to be the id of the unknown word, which stands for a text without "
            "tokens, but got None; give the id."
        )
    return tokens.new_tensor(subject.erased)


def _probabilities(output: AttentionOutput) -> NDArray[np.float64]:
    """(B, C) in float64; the softmax is taken on the CPU, as some devices have no float64."""
    probabilities: NDArray[np.float64] = output.logits.cpu().double().softmax(-1).numpy()
    return probabilities
