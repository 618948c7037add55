"""Faithfulness: whether the tokens that an explanation names are those the prediction hangs on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.evaluation.erasure import Replacement, Variants, removals_until_flip
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.faithfulness import (
    AREAS,
    BINS,
    DECISION_FLIP,
    MEASURES,
    PER_COUNT,
    PER_FRACTION,
    SOFT,
    Erased,
    Faded,
    area_over_perturbation_curve,
    flip_share,
    ranks,
    soft_scales,
    tokens_in_fraction,
)
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import FloatArray, to_array
from attn_lightning.types import Batch

_Key = tuple[Measure, float | None]
"""A metric and its point on the curve, None where there is no curve."""


class Faithfulness(Family):
    """Erasure by rank of every explanation: ERASER's scores, soft ones, decision flips and post-hoc accuracy.

    The class whose probability counts is always the one predicted for the whole text. Tokens are ranked by falling
    score, of equal scores the earlier token first. An example whose explanation has a NaN counts in no metric of that
    explanation. Decision flips remove attention and the soft scores scale embeddings, whatever `replacement` is.

    Args:
        bins: fractions of a text that make a rationale, in (0, 1].
        top: numbers of tokens for post-hoc accuracy, 1 or more; a shorter text is left whole.
        replacement: what happens to erased tokens: `delete`, `unknown` or `attention`, see `Variants.erased`.
        include_zero: count a bin of no tokens in AOPC, as the formula of the ERASER paper does (its code does not).

    Raises:
        ConfigurationError: an argument is out of its range.

    Cost: `2 * bins + top` shortened texts per document and explanation, all of a chunk packed together and equal ones
    run once; two whole texts per explanation for the soft scores; the head n - 1 times for the flips.
    """

    name: ClassVar[str] = "faithfulness"
    heading: ClassVar[str] = "What the prediction loses without the tokens that an explanation ranks first."
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)
    # Whatever tokens are kept of a text, a flat prediction stays as it is.
    free_untrained: ClassVar[frozenset[str]] = frozenset(
        {"sufficiency", "aopc_sufficiency", "soft_sufficiency", "post_hoc_accuracy"}
    )

    def __init__(
        self,
        bins: Sequence[float] = BINS,
        top: Sequence[int] = (1, 3, 5, 10),
        replacement: Replacement = "delete",
        include_zero: bool = False,
    ) -> None:
        check_choice(self, choices=get_args(Replacement), replacement=replacement)
        for fraction in bins or (0.0,):  # without any there is no curve to take an area of
            check_numbers(self, above=0, at_most=1, bins=fraction)
        for count in top:
            check_numbers(self, at_least=1, top=count)
        self.bins = tuple(bins)
        self.top = tuple(top)
        self.replacement = replacement
        self.include_zero = include_zero

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        # Without explanations there is nothing to erase, and the encoder need not run.
        if not explained.explanations:
            advance(len(subject.examples))
            return []
        shape = (len(explained.explanations), len(subject.examples))
        results = {key: np.full(shape, np.nan) for key in self._keys()}
        for batch in subject.batches():
            rows = to_array(batch.rows)
            # All explanations of a chunk together: they share most of their shortened texts.
            for key, values in self._measured(subject, _Chunk.of(subject, explained, batch)).items():
                results[key][:, rows] = values
            advance(len(rows))
        names = list(explained.explanations)
        return [self._row(key, name, results[key][place]) for place, name in enumerate(names) for key in results]

    def _keys(self) -> list[_Key]:
        """Every metric in the order in which it is shown."""
        curves: list[_Key] = [(metric, fraction) for metric in PER_FRACTION for fraction in self.bins]
        single: list[_Key] = [(metric, None) for metric in (*AREAS, *SOFT, DECISION_FLIP)]
        return [*curves, *single, *((metric, count) for metric in PER_COUNT for count in self.top)]

    def _row(self, key: _Key, explainer: str, values: FloatArray) -> Row:
        metric, point = key
        axis = "tokens" if metric in PER_COUNT else "fraction"
        setting: dict[str, Any] = {} if point is None else {axis: point}
        erases = metric not in SOFT and metric is not DECISION_FLIP
        # Named only where it is not the usual one, so that the usual rows have the short names that studies ask for.
        if erases and self.replacement != "delete":
            setting["replacement"] = self.replacement
        return Row.of(metric.name, explainer, values, **setting)

    def _measured(self, subject: Subject, chunk: "_Chunk") -> dict[_Key, FloatArray]:
        """(E, B) values of every metric for a chunk of documents."""
        return {
            **self._erased(subject, chunk),
            **_soft(chunk),
            (DECISION_FLIP, None): _flips(subject, chunk),
        }

    def _erased(self, subject: Subject, chunk: "_Chunk") -> dict[_Key, FloatArray]:
        """What needs shortened texts: those of all explanations, bins and metrics are packed together."""
        place = ranks(chunk.scores, chunk.mask)
        sizes = [tokens_in_fraction(fraction, chunk.mask.sum(1))[:, None] for fraction in self.bins]
        # First without the top tokens, then with them alone, bin by bin.
        keeps = [place >= size for size in sizes] + [place < size for size in sizes]
        keeps += [place < count for count in self.top] + ([place < 0] if self.include_zero else [])
        probabilities = chunk.probabilities(subject.num_classes, np.stack(keeps), self.replacement)
        of_predicted = np.take_along_axis(probabilities, chunk.predicted[None, None, :, None], 3)[..., 0]
        count = len(self.bins)
        points = Erased(chunk.whole, of_predicted[:count], of_predicted[count : 2 * count])
        found: dict[_Key, FloatArray] = {}
        for (metric, measure), area in zip(PER_FRACTION.items(), AREAS, strict=True):
            curve = measure(points)
            found |= {(metric, fraction): values for fraction, values in zip(self.bins, curve, strict=True)}
            zero = []
            if self.include_zero:
                # Nothing removed leaves the whole text (NaN where the explanation is unknown), nothing kept no token.
                empty = of_predicted[-1]
                zero = [measure(Erased(chunk.whole, chunk.whole + 0 * empty, empty))]
            found[area, None] = area_over_perturbation_curve([*zero, *curve])
        # In the order in which `keeps` was put together.
        from_top = probabilities[2 * count : 2 * count + len(self.top)].argmax(3)
        for metric, agreement in PER_COUNT.items():
            agrees = np.where(chunk.known, agreement(chunk.predicted, from_top), np.nan)
            found |= {(metric, size): values for size, values in zip(self.top, agrees, strict=True)}
        return found


@dataclass(frozen=True)
class _Chunk:
    """Documents that are measured together, with what is known of them. E explanations, B documents, T tokens.

    Attributes:
        variants: erased and scaled copies of them, and the clean pass over them.
        mask: (B, T).
        scores: (E, B, T), 0 at padding and in explanations that are not known.
        known: (E, B) whether an explanation has a finite score for every token.
        predicted: (B,) classes of the clean pass.
        whole: (B,) their probabilities.
    """

    variants: Variants
    mask: NDArray[np.bool_]
    scores: FloatArray
    known: NDArray[np.bool_]
    predicted: NDArray[np.int64]
    whole: FloatArray

    @classmethod
    def of(cls, subject: Subject, explained: Explained, batch: Batch) -> "_Chunk":
        rows, mask = to_array(batch.rows), to_array(batch.mask)
        scores = np.zeros((len(explained.explanations), *mask.shape))
        for padded, ragged in zip(scores, explained.explanations.values(), strict=True):
            found = ragged.pad(rows)
            padded[:, : found.shape[1]] = found
        known: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(scores), axis=2)
        # Replaced, as NaN has no rank; what is measured with it becomes NaN again by `known`.
        scores[~known] = 0.0
        predicted = explained.predicted[rows]
        whole = explained.probabilities[rows, predicted]
        return cls(Variants(subject, batch), mask, scores, known, predicted, whole)

    def probabilities(self, num_classes: int, keep: NDArray[np.bool_], replacement: Replacement) -> FloatArray:
        """(M, E, B, C) for (M, E, B, T) tokens to keep; NaN where the explanation is not known."""
        # Explanations that are not known have the ranks of zeros, and are not worth a pass.
        wanted = np.broadcast_to(self.known, keep.shape[:3])
        owners = np.broadcast_to(np.arange(len(self.mask)), wanted.shape)[wanted]
        probabilities = np.full((*wanted.shape, num_classes), np.nan)
        probabilities[wanted] = self.variants.erased(owners, keep[wanted], replacement)
        return probabilities


def _soft(chunk: _Chunk) -> dict[_Key, FloatArray]:
    """(E, B) soft scores; the text of zeros is run once for all explanations."""
    documents = np.arange(len(chunk.mask))
    owners = np.broadcast_to(documents, chunk.known.shape)[chunk.known]
    scales = soft_scales(chunk.scores, chunk.mask)[chunk.known]
    every = np.concatenate([documents, owners, owners])
    kept = np.concatenate([np.zeros(chunk.mask.shape), scales, 1 - scales])
    probabilities = chunk.variants.scaled(every, kept)[np.arange(len(every)), chunk.predicted[every]]
    nothing, *rest = np.split(probabilities, [len(documents), len(documents) + len(owners)])
    only, without = (np.full(chunk.known.shape, np.nan) for _ in range(2))
    only[chunk.known], without[chunk.known] = rest
    faded = Faded(chunk.whole, without, only, nothing)
    return {(metric, None): measure(faded) for metric, measure in SOFT.items()}


def _flips(subject: Subject, chunk: _Chunk) -> FloatArray:
    """(E, B) shares of tokens that must lose their attention."""
    removals = [removals_until_flip(subject, chunk.variants.output, chunk.predicted, scores) for scores in chunk.scores]
    return np.where(chunk.known, flip_share(np.stack(removals), chunk.mask.sum(1)), np.nan)
