"""Pairs of texts: the second one conditions where the model looks in the first, and what it says of it.

The second text stands behind the first in a row of tokens, where the mask is False. For everything that perturbs,
erases, averages or measures it is padding, so all of that concerns the first text only, and no method knows of pairs.
`encode` reads it and leaves its summary q in the last column of the hidden states, which is outside the mask as well.

Where an answer is one of a list, C columns stand behind the second text, 0 at each class that cannot be the answer of
this example. They go the same way, into the columns before q.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attn_lightning.backbone.encoders import Encoder
from attn_lightning.backbone.equal_texts import ReadsEqualTextsOnce
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32

Reading = Literal["shared", "own", "joint"]

IMPOSSIBLE = -1e4
"""The logit of a class that is no candidate. Its probability is exactly 0 in float32, as with minus infinity, but its
logarithm is a number, and 0 times a number is 0 in divergences where 0 times infinity is NaN."""


def second_text(embeddings: Tensor, mask: Tensor) -> Tensor:
    """Where the words of the second text are: outside the mask, and no padding, whose embedding is exactly zero.

    Args:
        embeddings: (B, T, E).
        mask: (B, T) bool, the words of the first text.

    Returns:
        (B, T) bool.
    """
    return ~mask & (embeddings != 0).any(-1)


def moved_left(embeddings: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The second text as a batch of its own.

    Args:
        embeddings: (B, T, E).
        second: (B, T) bool.

    Returns:
        (B, S, E), and the (B, S) bool mask; a row without any word has one of zeros.
    """
    lengths = second.sum(1)
    width = max(1, int(lengths.max()))
    # Stable: the words go to the left and keep their order.
    order = torch.argsort((~second).to(torch.uint8), dim=1, stable=True)[:, :width]
    moved = embeddings.gather(1, order.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1]))
    return moved, torch.arange(width, device=second.device) < lengths.clamp_min(1).unsqueeze(1)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """(B, D) mean of (B, T, D) states over the words of a (B, T) mask; 0 where there is none."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    # An empty second text has the summary 0, not NaN.
    return (states * weights).sum(1) / weights.sum(1).clamp_min(1)


def candidates_behind(embeddings: Tensor, count: int) -> Tensor:
    """Which classes can be the answer: (B, C) bool out of the last C columns of (B, T, E) embeddings."""
    return (embeddings[:, embeddings.shape[1] - count :] != 0).any(-1)


def with_candidates(hidden: Tensor, candidates: Tensor) -> Tensor:
    """(B, T, D) states with (B, C) candidates in the C columns before the summary q."""
    # Written after dropout, which could take an answer away.
    flags = candidates.to(hidden.dtype).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
    return torch.cat([hidden[:, : -1 - candidates.shape[1]], flags, hidden[:, -1:]], 1)


def candidates_of(hidden: Tensor, count: int) -> Tensor:
    """(B, C) bool, what `with_candidates` left in (B, T, D) states."""
    return hidden[:, -1 - count : -1, 0] != 0


class PairReader(ReadsEqualTextsOnce):
    """Reads both texts: states of the first, and the mean state q of the second in the last column.

    A first text of several questions in a batch is read once, unless the two are read together.

    Args:
        encoder: of the first text; it stays the model's.
        own: the encoder of the second text; None shares the first one.
        joint: both texts go through one pass of a pretrained encoder, each reading the other.
        num_candidates: columns behind the second text that are no words of it.

    Raises:
        ConfigurationError: `joint` with an encoder that reads one text.
    """

    def __init__(
        self, encoder: Encoder, own: Encoder | None = None, joint: bool = False, num_candidates: int = 0
    ) -> None:
        super().__init__()
        if joint and not encoder.reads_pairs:
            raise ConfigurationError(
                f"Expected an encoder that reads two texts together for `reading: joint`, such as Pretrained, but got "
                f"{type(encoder).__name__}; use `--model.backbone.reading=shared` or `own`."
            )
        self._first = (encoder,)  # in a tuple, or it would be a part of both
        self.own, self.joint, self.num_candidates = own, joint, num_candidates

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """(B, T, E) of both texts to (B, T, D) states of the first, 0 elsewhere but for q in the last column.

        Raises:
            ConfigurationError: there is no room for a second text.
        """
        # On the CPU only: a GPU would have to wait for the answer at every step.
        if mask.device.type == "cpu" and bool(mask[:, -1].any()):
            raise ConfigurationError(
                "Expected rows with a second text behind the first, but got texts alone: this model was trained on "
                "pairs; give the second text, with `--data.question_column` for example."
            )
        encoder, second = self._first[0], self._second(embeddings, mask)
        if self.joint:
            both = at_least_float32(encoder.read_pair(embeddings, mask, second))
            states, query = both.masked_fill(~mask.unsqueeze(-1), 0.0), masked_mean(both, second)
        else:
            once = encoder.can_share
            first = self.read_once(encoder, embeddings, mask) if once else encoder(embeddings, mask)
            states = at_least_float32(first)
            reader = encoder if self.own is None else self.own
            query = self._read(reader, embeddings, second)
        # In a column that no mask covers: the signature of the four functions stays that of single texts.
        return torch.cat([states[:, :-1], query.unsqueeze(1)], 1)

    def token_attention(self, embeddings: Tensor, mask: Tensor) -> Tensor | None:
        """Where words look inside the encoder as it reads them here: those of both texts where it reads them together.

        Args:
            embeddings: (B, T, E).
            mask: (B, T) bool, the words of the first text.

        Returns:
            (L, B, T, T), see `Encoder.token_attention` and `Encoder.pair_attention`.
        """
        if not self.joint:
            return self._first[0].token_attention(embeddings, mask)
        return self._first[0].pair_attention(embeddings, mask, self._second(embeddings, mask))

    def _second(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        second = second_text(embeddings, mask)
        if not self.num_candidates:
            return second
        # Taken out of the mask alone: the encoder must get the very tensor that `embed` made, to know its states.
        return F.pad(second[:, : -self.num_candidates], (0, self.num_candidates))

    @staticmethod
    def _read(encoder: Encoder, embeddings: Tensor, second: Tensor) -> Tensor:
        if encoder.reads_pairs:  # it finds words wherever they are, and knows the very tensor that `embed` made
            return masked_mean(at_least_float32(encoder(embeddings, second)), second)
        moved, real = moved_left(embeddings, second)
        return masked_mean(at_least_float32(encoder(moved, real)), real)


def query_of(hidden: Tensor) -> Tensor:
    """(B, D) the summary of the second text that `PairReader` left in (B, T, D) states."""
    return hidden[:, -1]


class PairClassifier(nn.Module):
    """`logits = W_o tanh(W_1 c + W_2 q + b)`, as the published models of questions and answers have it.

    Source: Jain and Wallace 2019, https://aclanthology.org/N19-1357.

    Args:
        hidden_size: D of context and query.
        num_classes: C.
        width: rows of W_1 and W_2.
    """

    def __init__(self, hidden_size: int, num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.context = nn.Linear(hidden_size, width)
        # One bias is enough for the sum of the two.
        self.query = nn.Linear(hidden_size, width, bias=False)
        self.output = nn.Linear(width, num_classes)

    def forward(self, context: Tensor, query: Tensor, candidates: Tensor | None = None) -> Tensor:
        """(..., D) contexts and queries to (..., C) logits, `IMPOSSIBLE` where (..., C) candidates are False."""
        logits: Tensor = self.output(torch.tanh(self.context(context) + self.query(query)))
        return logits if candidates is None else logits.masked_fill(~candidates, IMPOSSIBLE)
