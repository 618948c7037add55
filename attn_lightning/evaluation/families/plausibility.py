"""Plausibility: whether an explanation finds the tokens that a human marked."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attn_lightning.checks import check_numbers
from attn_lightning.errors import DataFormatError
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import BoolArray, FloatArray, to_array
from attn_lightning.metrics.plausibility import (
    AREAS,
    MEASURES,
    NUM_TOKENS,
    OVER_ALL,
    PER_DOCUMENT,
    TOKEN_F1,
    HardMatches,
    Matches,
    areas,
    f1,
    precision,
    recall,
    span_matches,
    token_matches,
)
from attn_lightning.types import Batch

CACHED_TOKENS = 2**14
"""Tokens of a batch, padding included, whose arrays stay in the processor's cache: beyond it the formulas over long
texts take several times as long per token (measured)."""


class Plausibility(Family):
    """Every explanation against the human rationale, by the definitions of ERASER; see `metrics.plausibility`.

    Documents without a rationale count in no row (`n` of a row less its `n_valid`), those that are marked as a whole
    count in none of the three areas. Hard rationales are the k tokens with the highest scores, the earlier of equals
    first.

    - `auprc`, `average_precision`, `roc_auc`: areas per document. `auprc` flatters ties, so the uniform control and
      sparse attention look better by it than by average precision.
    - `token_f1`: mean of the documents' F1; `token_f1_micro` counts all tokens together.
    - `iou_f1`: F1 of the mean precision and the mean recall of spans; `iou_f1_micro` counts all spans together.
    - `rationale_mass`: share of the scores on the rationale, for explanations without negative scores.
    - `top_1_hit`: share of documents whose highest score is in the rationale.
    - `k`: how many tokens a hard rationale has.

    Args:
        k: tokens of a hard rationale; None for the mean length of the rationales of the evaluated split, rounded.
        threshold: of intersection over union, in (0, 1].

    Raises:
        ConfigurationError: an argument is out of its range.

    Cost: no pass of the model; one sort of every document's scores per explanation.
    """

    name: ClassVar[str] = "plausibility"
    heading: ClassVar[str] = "Whether an explanation finds the tokens that a human marked."
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)

    def __init__(self, k: int | None = None, threshold: float = 0.5) -> None:
        check_numbers(self, at_least=1, advice="None takes the mean length", k=k)
        check_numbers(self, above=0, at_most=1, advice="0.5 is usual", threshold=threshold)
        self.k = k
        self.threshold = threshold

    def unavailable(self, subject: Subject) -> str | None:
        """Data without rationales has no plausibility."""
        return lacks_rationales(subject)

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`.

        Raises:
            DataFormatError: a rationale has another length than its text; names the row.
        """
        # One k for all documents, as ERASER has it: a k per document would tell each explanation how much was marked.
        k = mean_rationale_length(subject) if self.k is None else self.k
        shape = (len(AREAS) + len(PER_DOCUMENT) + 2 * len(Matches._fields), len(subject.examples))
        found = {name: np.full(shape, np.nan) for name in explained.explanations}
        for batch in small_batches(subject):
            rows, marked, mask = to_array(batch.rows), marked_tokens(batch), to_array(batch.mask)
            for name, scores in explained.explanations.items():
                found[name][:, rows] = self._measured(scores.pad(rows, mask.shape[1]), marked, mask, k)
            advance(len(rows))
        return [row for name, values in found.items() for row in _rows(name, values, k)]

    def _measured(self, scores: FloatArray, marked: BoolArray, mask: BoolArray, k: int) -> FloatArray:
        """(M, B) the areas, the other numbers per document, then tokens and spans in common."""
        return np.stack(
            [
                *areas(scores, marked, mask),
                *(measure(scores, marked, mask) for measure in PER_DOCUMENT.values()),
                *token_matches(scores, marked, mask, k),
                *span_matches(scores, marked, mask, k, self.threshold),
            ]
        )


def _rows(explainer: str, values: FloatArray, k: int) -> list[Row]:
    # In the order in which `_measured` stacks them.
    ends = np.cumsum([len(AREAS), len(PER_DOCUMENT), len(Matches._fields)])
    of_areas, of_documents, tokens, spans = np.split(values, ends)
    found = HardMatches(Matches(*tokens), Matches(*spans))
    valid = int((~np.isnan(found.tokens.matched)).sum())

    def whole(measure: Measure, value: float) -> Row:
        return Row(measure.name, explainer, value if valid else None, None, valid, values.shape[1])

    return [
        *(Row.of(measure.name, explainer, each) for measure, each in zip(AREAS, of_areas, strict=True)),
        Row.of(TOKEN_F1.name, explainer, f1(precision(found.tokens), recall(found.tokens))),
        *(whole(measure, of_all(found)) for measure, of_all in OVER_ALL.items()),
        *(Row.of(measure.name, explainer, each) for measure, each in zip(PER_DOCUMENT, of_documents, strict=True)),
        whole(NUM_TOKENS, float(k)),
    ]


def lacks_rationales(subject: Subject) -> str | None:
    """Why measurements against rationales cannot be had; None if the data has rationales."""
    # One row tells, as all batches of a split have the same fields.
    if len(subject.examples) and subject.examples[[0]].rationale is None:
        return "the data has no rationales"
    return None


def small_batches(subject: Subject) -> Iterator[Batch]:
    """`Subject.batches` of at most `CACHED_TOKENS` tokens, for measurements that run no model."""
    return replace(subject, token_budget=min(subject.token_budget, CACHED_TOKENS)).batches()


def mean_rationale_length(subject: Subject) -> int:
    """Mean number of marked tokens of the documents that have any, rounded, at least 1.

    Raises:
        DataFormatError: a rationale has another length than its text; names the row.
    """
    tokens, documents = 0, 0
    for batch in small_batches(subject):
        lengths = marked_tokens(batch).sum(1)
        tokens, documents = tokens + int(lengths.sum()), documents + int((lengths > 0).sum())
    return max(1, round(tokens / max(documents, 1)))


def marked_tokens(batch: Batch) -> NDArray[Any]:
    """(B, T) bool, the rationales of a batch of data that has them.

    Raises:
        DataFormatError: a rationale has another length than its text; names the row.
    """
    assert batch.rationale is not None, "asked `unavailable` before"
    marked, mask, rows = to_array(batch.rationale), to_array(batch.mask), to_array(batch.rows)
    lengths = mask.sum(1)
    if marked.shape != mask.shape:
        longest = int(lengths.argmax())
        raise _wrong_length(rows[longest], lengths[longest], f"{marked.shape[1]} marks")
    # A mark beyond the text would count as one that no explanation can find.
    outside = np.flatnonzero((marked & ~mask).any(1))
    if len(outside):
        first = outside[0]
        raise _wrong_length(rows[first], lengths[first], f"a mark at token {marked[first].nonzero()[0][-1] + 1}")
    return marked


def _wrong_length(row: int, length: int, got: str) -> DataFormatError:
    return DataFormatError(
        f"Expected the rationale of row {row} to have one mark for each of its {length} tokens, but got {got}; mend "
        "the row."
    )
