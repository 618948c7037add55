"""Predictions of texts from which tokens were erased: many shortened texts of many documents at once.

Legend of this file: B documents of a chunk, K erased variants of them, T tokens of the longest document.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_choice
from attn_lightning.data.buckets import length_batches
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.shared_texts import SharedTexts, kept_places, shareable_lstm
from attn_lightning.evaluation.subject import Subject
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
    # Of every module: a training may keep a frozen part in another mode than the rest.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class Variants:
    """Changed copies of the documents of a chunk: what all of them share is done once, however many are asked for.

    Args:
        subject: model and limits.
        batch: a chunk of documents on the device of the model, from `Subject.batches`; only `tokens` and `mask` are
            read.
        output: the clean pass over `batch` in eval mode; it is made when it is needed if it is not given.
    """

    def __init__(self, subject: Subject, batch: Batch, output: AttentionOutput | None = None) -> None:
        self._subject, self._model, self._batch = subject, subject.model, batch
        # On the CPU, where it is decided which tokens are kept, for all variants at once.
        self._mask = batch.mask.cpu().numpy()
        self._tokens = batch.tokens.flatten(0, 1)
        if output is not None:
            self.output = output

    @cached_property
    def output(self) -> AttentionOutput:
        """The clean pass over the chunk in eval mode, without embeddings."""
        documents = np.arange(len(self._mask))
        with inference(self._model):
            if self._texts is not None:
                return self._texts.read(documents, self._mask)
            output: AttentionOutput = self._model(self._batch.tokens, self._batch.mask)
        return output

    def erased(
        self, owners: NDArray[np.int64], keep: NDArray[np.bool_], replacement: Replacement = "delete"
    ) -> NDArray[np.float64]:
        """Class probabilities of documents of which only some tokens are kept.

        All variants of all documents are sorted by the tokens that they keep and run together, as many at a time as
        `Subject.token_budget` allows, so memory depends on the chunk and never on the data. Equal variants of a
        document are run once.

        - `delete`: erased tokens are cut out and the encoder runs on the shorter text. A text without any token left
          is the single token `Subject.erased`: the unknown word; for segments a segment of zeros.
        - `unknown`: erased tokens become that token, and the text keeps its length.
        - `attention`: hidden states stay those of the whole text; the scores of erased tokens are left out, so that
          attention is normalized over what is kept. Only the head runs. Where nothing is kept attention is 0
          everywhere, and what remains is the prediction from an empty context.

        Args:
            owners: (K,) the document of every variant, as a place in the chunk.
            keep: (K, T) tokens to keep; padding is never kept.
            replacement: what happens to erased tokens.

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
        kept = keep & self._mask[owners]
        chosen, inverse = _distinct(owners, kept)
        owners, kept = owners[chosen], kept[chosen]
        probabilities = np.empty((len(owners), self._subject.num_classes))
        with inference(self._model):
            run = self._runner(replacement, not kept.any(1).all())
            sizes = kept.sum(1) if replacement == "delete" else self._mask.sum(1)[owners]
            # By length, since a batch costs what its longest text costs; the order has no effect on the numbers.
            budget = _tokens_at_once(self._subject, self._tokens.device, sizes)
            # A text of which nothing is left is read as one token.
            for places in length_batches(np.maximum(sizes, 1), token_budget=budget):
                probabilities[places] = _probabilities(run(owners[places], kept[places]))
        return probabilities[inverse]

    def scaled(self, owners: NDArray[np.int64], scales: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Class probabilities of documents whose embeddings were scaled, `x'_t = s_t x_t`: erasing by degrees.

        Args:
            owners: (K,) the document of every variant, as a place in the chunk.
            scales: (K, T) `s`; 1 leaves a token as it is, 0 takes it away without shortening the text.

        Returns:
            (K, C) float64, in the order of the variants.

        Cost: one pass of the encoder over every variant, packed as in `erased`.
        """
        lengths = self._mask.sum(1)[owners]
        run, inverse = self._scaled, np.arange(len(owners))
        if self._texts is not None:
            run = self._texts.scaled
            # Without any word only the length is left, and all texts of one length are the same.
            empty = ~(scales.astype(bool) & self._mask[owners]).any(1)
            _, chosen, inverse = np.unique(
                np.where(empty, -lengths, np.arange(len(owners))), return_index=True, return_inverse=True
            )
            owners, scales, lengths = owners[chosen], scales[chosen], lengths[chosen]
        probabilities = np.empty((len(owners), self._subject.num_classes))
        with inference(self._model):
            for places in length_batches(
                lengths, token_budget=_tokens_at_once(self._subject, self._tokens.device, lengths)
            ):
                width = int(lengths[places].max())
                probabilities[places] = _probabilities(run(owners[places], scales[places, :width]))
        return probabilities[inverse]

    @cached_property
    def _texts(self) -> SharedTexts | None:
        lstm = shareable_lstm(self._model) if self._tokens.device.type == "cpu" else None
        if lstm is None:
            return None
        with inference(self._model):
            return SharedTexts(self._model, lstm, self._tokens, self._mask, self._erased)

    @cached_property
    def _embeddings(self) -> Tensor:
        return self._model.embed(self._batch.tokens)

    @property
    def _erased(self) -> Tensor | None:
        """What stands for an erased token: a word id, or a segment of zeros; None if nobody gave the word."""
        if self._tokens.is_floating_point():
            return self._tokens.new_zeros(self._tokens.shape[1:])
        return None if self._subject.erased is None else self._tokens.new_tensor(self._subject.erased)

    def _runner(self, replacement: Replacement, some_empty: bool) -> "_Runner":
        """What runs the model on variants."""
        model = self._model
        if replacement == "attention":
            return partial(_attended, model, self.output)
        erased = self._erased
        if erased is None and (some_empty or replacement == "unknown"):
            raise ConfigurationError(
                "Expected `erased` of the Subject to be the id of the unknown word, which stands for a text without "
                "tokens, but got None; give the id."
            )
        if replacement == "unknown":
            assert erased is not None
            return partial(_replaced, model, self._batch, erased)
        if self._texts is not None:
            return self._texts.read
        tokens = self._tokens if erased is None else torch.cat([self._tokens, erased.unsqueeze(0)])
        return partial(_shortened, model, tokens, len(self._tokens), self._batch.tokens[:, _second(self._batch.mask)])

    def _scaled(self, owners: NDArray[np.int64], scales: NDArray[np.floating[Any]]) -> AttentionOutput:
        """Scaled texts, read one by one (in a batch)."""
        model, embeddings, mask = self._model, self._embeddings, self._batch.mask
        which = torch.from_numpy(owners).to(embeddings.device)
        # The type first and then the device: some accelerators have no float64.
        factors = torch.from_numpy(scales).to(embeddings.dtype).to(embeddings.device)
        width, behind = scales.shape[1], _second(mask)
        mask = _cut(mask, which, width)
        scaled = model.scaled(embeddings[which, :width], factors.unsqueeze(-1))
        if embeddings[:, behind].shape[1]:
            scaled = torch.cat([scaled, embeddings[:, behind][which]], 1)
        hidden = model.encode(scaled, mask)
        return model.attend(hidden, model.score(hidden, mask), mask)


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


def _shortened(
    model: Backbone, tokens: Tensor, end: int, second: Tensor, owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> AttentionOutput:
    """Shortened texts, read one by one (in a batch), with the second texts of pairs behind them."""
    source, lengths = kept_places(owners, kept, end)
    mask = torch.from_numpy(np.arange(source.shape[1]) < lengths[:, None]).to(tokens.device)
    texts = tokens[torch.from_numpy(source).to(tokens.device)]
    # Places of padding point at the first token of the chunk; id 0 has the embedding 0.
    texts[~mask] = 0
    if second.shape[1]:
        texts = torch.cat([texts, second[torch.from_numpy(owners).to(tokens.device)]], 1)
        mask = F.pad(mask, (0, second.shape[1]))
    output: AttentionOutput = model(texts, mask)
    return output


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


def _probabilities(output: AttentionOutput) -> NDArray[np.float64]:
    """(B, C) in float64; the softmax is taken on the CPU, as some devices have no float64."""
    probabilities: NDArray[np.float64] = output.logits.cpu().double().softmax(-1).numpy()
    return probabilities
