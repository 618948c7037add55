"""The values that travel between data, backbone, methods and metrics. No logic lives here.

Shape legend, used in every docstring of the package:

| letter | meaning |
|---|---|
| B | examples of a batch |
| T | tokens of the longest text in the batch (segments, for data that is not text) |
| E | embedding size |
| D | hidden size |
| C | classes |

`mask` is True at real tokens. Text is padded on the right, so row `i` has its `lengths[i]` real tokens first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

UNLABELED = -1
"""The value of `Batch.labels` where an example has no label."""


class Batch(NamedTuple):
    """Examples of one data set, padded to the longest of them.

    A NamedTuple because Lightning moves it to the device as it is (a frozen dataclass is refused there).

    Attributes:
        tokens: (B, T) int64 token ids, 0 at padding; (B, T, ...) float32 for segments that are not words. In data of
            pairs the second text stands behind the longest first one, where the mask is False.
        mask: (B, T) bool, True at real tokens. Every row has at least one.
        labels: (B,) int64 class, `UNLABELED` (-1) where there is none.
        rows: (B,) int64 row of the example in its split, so that results can be put back in order.
        rationale: (B, T) bool, True at tokens that a human (or the generator) marked as evidence; rows without a
            rationale are all False and have `has_rationale` False. None if the data set has no rationales at all.
        has_rationale: (B,) bool, or None together with `rationale`.
        shortcut: (B, T) bool, True at planted shortcut tokens; None if the data set has none.
        shortcut_class: (B,) int64 class that the example's shortcut token speaks for, -1 where the example has no such
            token; None together with `shortcut`.
    """

    tokens: Tensor
    mask: Tensor
    labels: Tensor
    rows: Tensor
    rationale: Tensor | None = None
    has_rationale: Tensor | None = None
    shortcut: Tensor | None = None
    shortcut_class: Tensor | None = None


SAME_DATA = (
    *("num_classes", "vocabulary_size", "embedding_size", "segment_shape", "num_default_tokens"),
    *("has_question", "has_candidates"),
)
"""What data must have in common with that of a checkpoint, of the attributes of `DataSpec`."""


@dataclass(frozen=True)
class DataSpec:
    """What a backbone must know about the data to be built; made by the data module or read from a checkpoint.

    Attributes:
        num_classes: C, at least 2.
        vocabulary_size: rows of the embedding table, padding (row 0) included; 0 for data that is not text.
        embedding_size: E.
        label_names: one name per class.
        embedding_weights: (vocabulary_size, E) float32 initial word vectors with zeros in row 0, or None: the
            backbone then draws its own (and does so when a checkpoint will fill them anyway).
        segment_shape: shape of one segment for data that is not text, () for text.
        num_default_tokens: K, tokens without content that the data puts before every text; 0 for none.
        vocabulary: the words by id where the data keeps every word, for an encoder that reads their letters; else ().
        has_question: whether a second text stands behind every text, where the mask is False.
        has_candidates: whether C columns stand behind the second text, 0 at each class that cannot be the answer.
        resources: what a checkpoint kept of the parts of the model, see `Encoder.resources`; {} before one is read.
    """

    num_classes: int
    vocabulary_size: int
    embedding_size: int
    label_names: tuple[str, ...]
    embedding_weights: Tensor | None = None
    segment_shape: tuple[int, ...] = ()
    num_default_tokens: int = 0
    vocabulary: tuple[str, ...] = ()
    has_question: bool = False
    has_candidates: bool = False
    resources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AttentionOutput:
    """One pass through a backbone.

    Attributes:
        logits: (B, C) float32.
        attention: (B, T) float32, rows sum to 1, exactly 0 at padding.
        scores: (B, T) float32 raw scores before the normalizer; the value at padding is arbitrary but finite.
        hidden: (B, T, D) states that the attention averages; float32, or the autocast type of the encoder.
        context: (B, D) float32, `sum_t attention_t * hidden_t`; a backbone may average a function of the states.
        mask: (B, T) bool.
        embeddings: (B, T, E); None in an output that `attend` made without the lower half of the model.
        aux: what a special backbone wants to hand to its own method (a bottleneck's gates, for example).
    """

    logits: Tensor
    attention: Tensor
    scores: Tensor
    hidden: Tensor
    context: Tensor
    mask: Tensor
    embeddings: Tensor | None = None
    aux: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossTerm:
    """The extra term of a method: the module adds `weight * value` to the task loss.

    Attributes:
        name: short lower-case name, the key under which the term is logged.
        value: float32 scalar with a graph.
        weight: lambda of the term at this step, a plain number.
        logs: detached scalars worth watching (entropies, radius reached, clip rate), logged as `train/<name>_<key>`.
    """

    name: str
    value: Tensor
    weight: float
    logs: dict[str, Tensor] = field(default_factory=dict)
