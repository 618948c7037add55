"""How well scores per token find the tokens that a human marked as the evidence: the rationale.

The pure functions take padded NumPy arrays `scores` (B, T), `rationale` (B, T) bool and `mask` (B, T) bool, with whole
batches at a time. Values at padding never count. A number is NaN where it is undefined:
no token is marked, or a score is not finite; the areas also where every token is marked.

Spans are what ERASER's code compares, but a mask cannot tell two marked spans that touch from a single one.

Source: DeYoung et al. 2020, https://aclanthology.org/2020.acl-main.408, and the code released with it,
https://github.com/jayded/eraserbenchmark (`rationale_benchmark/metrics.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attn_lightning.metrics.agreement import distribution, top_k
from attn_lightning.metrics.measure import MANY, Measure
from attn_lightning.metrics.per_example import BoolArray, FloatArray

IntArray = NDArray[np.integer[Any]]


class Areas(NamedTuple):
    """Areas under the curves of a ranking of tokens, (B,) float64 each; see `areas`."""

    auprc: FloatArray
    average_precision: FloatArray
    roc_auc: FloatArray


def areas(scores: FloatArray, rationale: BoolArray, mask: BoolArray) -> Areas:
    """Areas of the ranking of tokens by score against the rationale, all three from one sort.

    With precision P_i and recall R_i at the i-th distinct score from the top, R_0 = 0 and P_0 = 1:

        auprc             = sum_i (R_i - R_{i-1}) (P_i + P_{i-1}) / 2
        average_precision = sum_i (R_i - R_{i-1}) P_i
        roc_auc           = P(a marked token scores above an unmarked one) + P(they tie) / 2

    `auprc` is the trapezoidal area that ERASER reports. It flatters ties: one score for all n tokens of which m are
    marked gives (1 + m / n) / 2, where average precision gives m / n. Compare sparse attention, with its many equal
    zeros, by average precision.

    Args:
        scores: (B, T).
        rationale: (B, T) bool.
        mask: (B, T) bool.

    Returns:
        (B,) each in [0, 1]; NaN also where every token is marked, for there is nothing to tell apart (ERASER's code
        keeps such documents in the mean of `auprc`, as 1).

    Source: equal to scikit-learn's `auc(*precision_recall_curve)`, `average_precision_score` and `roc_auc_score`.
    Cost: one sort of every row.
    """
    descending = np.where(mask, -scores, np.inf)
    order = np.argsort(descending, axis=1)
    ranked = np.take_along_axis(descending, order, axis=1)
    marked = np.take_along_axis(rationale & mask, order, axis=1)
    real = np.take_along_axis(mask, order, axis=1)

    # A curve has a point after every run of equal scores, and the one before it where the run begins.
    changes = ranked[:, 1:] != ranked[:, :-1]
    edge = np.ones((len(mask), 1), np.bool_)
    is_point = np.concatenate([changes, edge], axis=1) & real
    begin = np.maximum.accumulate(
        np.where(np.concatenate([edge, changes], axis=1), np.arange(mask.shape[1]), 0), axis=1
    )
    true, true_before = _cumulated(marked, begin)
    false, false_before = _cumulated(real & ~marked, begin)

    positives, negatives = true[:, -1], false[:, -1]
    # With one class of tokens only there is no order to judge.
    defined = (np.isfinite(scores) | ~mask).all(1) & (positives > 0) & (negatives > 0)
    precision = true / np.maximum(true + false, 1)
    precision_before = np.where(begin == 0, 1.0, true_before / np.maximum(true_before + false_before, 1))
    recalled = np.where(is_point, true - true_before, 0) / np.maximum(positives, 1)[:, None]
    mistaken = np.where(is_point, false - false_before, 0) / np.maximum(negatives, 1)[:, None]
    found = (true + true_before) / 2 / np.maximum(positives, 1)[:, None]
    sums = (
        (recalled * (precision + precision_before) / 2).sum(1),
        (recalled * precision).sum(1),
        (mistaken * found).sum(1),
    )
    return Areas(*(np.where(defined, value, np.nan) for value in sums))


class Matches(NamedTuple):
    """What a hard rationale and the marked one have in common, in tokens or in spans.

    Attributes:
        matched: (B,) float64 predicted ones that are right, NaN in documents that do not count.
        predicted: (B,) float64 all predicted ones.
        marked: (B,) float64 all marked ones.
    """

    matched: FloatArray
    predicted: FloatArray
    marked: FloatArray


class HardMatches(NamedTuple):
    """What the hard rationales of all documents match."""

    tokens: Matches
    spans: Matches


def token_matches(scores: FloatArray, rationale: BoolArray, mask: BoolArray, k: int) -> Matches:
    """Tokens of the hard rationale, the k tokens with the highest scores, that are marked.

    Of tied tokens the earlier come first; a document of fewer than k tokens is chosen whole.

    Args:
        scores: (B, T).
        rationale: (B, T) bool.
        mask: (B, T) bool.
        k: at least 1; ERASER takes the mean length of the rationales of the data set.
    """
    chosen, marked, counts = _hard(scores, rationale, mask, k)
    matched = (chosen & marked).sum(1)
    return Matches(*(np.where(counts, value, np.nan) for value in (matched, chosen.sum(1), marked.sum(1))))


def span_matches(scores: FloatArray, rationale: BoolArray, mask: BoolArray, k: int, threshold: float = 0.5) -> Matches:
    """Spans of the hard rationale that overlap enough with a marked span.

    Spans are runs of neighbouring tokens, of the k with the highest scores and of the marked ones. A predicted span
    matches if its tokens in common with some marked span, divided by the tokens in either, are `threshold` or more.

    Args:
        scores: (B, T).
        rationale: (B, T) bool.
        mask: (B, T) bool.
        k: at least 1; ERASER takes the mean length of the rationales of the data set.
        threshold: of intersection over union, in (0, 1].
    """
    chosen, marked, counts = _hard(scores, rationale, mask, k)
    chosen_span, chosen_row, chosen_size = _spans(chosen)
    marked_span, marked_row, marked_size = _spans(marked)
    both = chosen & marked
    # A pair of spans as one number, so that counting tokens in common needs no loop over spans.
    pairs, common = np.unique(chosen_span[both] * len(marked_size) + marked_span[both], return_counts=True)
    first, second = pairs // max(len(marked_size), 1), pairs % max(len(marked_size), 1)
    # Size of the union from the two sizes, as |A or B| = |A| + |B| - |A and B|.
    overlap = common / (chosen_size[first] + marked_size[second] - common)
    # A predicted span may overlap two marked ones: it is one hit.
    hits = np.unique(first[overlap >= threshold])
    rows = len(mask)
    values = (np.bincount(span_rows, minlength=rows) for span_rows in (chosen_row[hits], chosen_row, marked_row))
    return Matches(*(np.where(counts, value, np.nan) for value in values))


def precision(matches: Matches) -> FloatArray:
    """(B,) in [0, 1] `matched / predicted`, 0 where nothing was predicted."""
    # Of no predictions none is right: 0, as in scikit-learn, not 0 / 0.
    return matches.matched / np.maximum(matches.predicted, 1)


def recall(matches: Matches) -> FloatArray:
    """(B,) in [0, 1] `matched / marked`."""
    return matches.matched / np.maximum(matches.marked, 1)


def f1(precision: FloatArray, recall: FloatArray) -> FloatArray:
    """Harmonic mean `2 P R / (P + R)`, 0 where either is 0; NaN stays NaN."""
    total = np.asarray(precision + recall)
    return 2 * precision * recall / np.where(total > 0, total, 1.0)


def macro_f1(matches: Matches) -> float:
    """F1 of the mean precision and the mean recall over documents: ERASER's macro-averaged IOU-F1.

    This is not the mean of the documents' F1.

    Args:
        matches: of all documents; those with NaN are left out.

    Returns:
        In [0, 1], NaN if no document counts.
    """
    counts = ~np.isnan(matches.matched)
    if not counts.any():
        return float("nan")
    return float(f1(precision(matches)[counts].mean(), recall(matches)[counts].mean()))


def micro_f1(matches: Matches) -> float:
    """F1 of precision and recall over all predicted and marked ones together, whatever their document.

    Args:
        matches: of all documents; those with NaN are left out.

    Returns:
        In [0, 1], NaN if no document counts.
    """
    counts = ~np.isnan(matches.matched)
    if not counts.any():
        return float("nan")
    matched, predicted, marked = (values[counts].sum() for values in matches)
    return float(2 * matched / (predicted + marked))


def marked_mass(attention: FloatArray, marked: BoolArray, mask: BoolArray) -> FloatArray:
    """Attention on the marked tokens, `sum_{t marked} a_t`.

    Args:
        attention: (B, T) weights that sum to 1 over real tokens; values at padding are ignored.
        marked: (B, T) bool, a rationale or shortcut words.
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1] up to rounding; NaN where no real token is marked.
    """
    # Annotations may reach beyond a text that was cut off.
    marked = marked & mask
    mass = np.where(marked, attention, 0.0).sum(1, dtype=np.float64)
    return np.where(marked.any(1), mass, np.nan)


def rationale_mass(scores: FloatArray, rationale: BoolArray, mask: BoolArray) -> FloatArray:
    """Share of the scores that lies on the rationale, `sum_marked s_t / sum_t s_t`.

    Args:
        scores: (B, T), attention weights or any other numbers of at least 0.
        rationale: (B, T) bool.
        mask: (B, T) bool.

    Returns:
        (B,) in [0, 1]; a uniform score gives the share of marked tokens. NaN also where a score is negative or all
        are 0, for there is no distribution then.
    """
    return marked_mass(distribution(scores, mask), rationale, mask).clip(0, 1)


def top_1_hit(scores: FloatArray, rationale: BoolArray, mask: BoolArray) -> FloatArray:
    """1 where the token with the highest score, the first of equals, is a marked one, 0 where it is not.

    Args:
        scores: (B, T).
        rationale: (B, T) bool.
        mask: (B, T) bool.

    Returns:
        (B,) 0 or 1; a score without information gives the share of marked tokens on average. NaN where no real token is
        marked or a score is not finite.
    """
    # `argmax` takes the first of equals, which makes ties reproducible.
    chosen = np.where(mask, scores, -np.inf).argmax(1)
    hit = (rationale & mask)[np.arange(len(mask)), chosen].astype(np.float64)
    return np.where(_counts(scores, rationale, mask), hit, np.nan)


def _cumulated(counted: BoolArray, begin: IntArray) -> tuple[IntArray, IntArray]:
    """(B, T) how many there are up to every place, and how many before the place `begin` (B, T)."""
    up_to: IntArray = np.cumsum(counted, axis=1)
    before = np.concatenate([np.zeros((len(counted), 1), up_to.dtype), up_to], axis=1)
    return up_to, np.take_along_axis(before, begin, axis=1)


def _counts(scores: FloatArray, marks: BoolArray, mask: BoolArray) -> BoolArray:
    """(B,) whether the real scores are finite and some token is marked."""
    return np.asarray((np.isfinite(scores) | ~mask).all(1) & (marks & mask).any(1))


def _hard(scores: FloatArray, rationale: BoolArray, mask: BoolArray, k: int) -> tuple[BoolArray, BoolArray, BoolArray]:
    """(B, T) the k best tokens, (B, T) the marked ones, and (B,) which documents count."""
    return top_k(scores, mask, k), rationale & mask, _counts(scores, rationale, mask)


def _spans(marks: BoolArray) -> tuple[IntArray, IntArray, IntArray]:
    """(B, T) the number of the run of True that a token belongs to, and (S,) row and (S,) length of every run."""
    # A run begins where a mark has none on its left; a zero column keeps rows from running into each other.
    begins = marks & ~np.concatenate([np.zeros((len(marks), 1), np.bool_), marks[:, :-1]], axis=1)
    number: IntArray = np.cumsum(begins).reshape(marks.shape) - 1
    return number, np.nonzero(begins)[0], np.bincount(number[marks], minlength=int(begins.sum()))


AREAS = (
    Measure("auprc", "area under the precision-recall curve of the tokens (trapezoidal: flatters ties)"),
    Measure("average_precision", "average precision of the tokens, which ties do not flatter"),
    Measure("roc_auc", "chance that a marked token scores above an unmarked one", uninformative=0.5),
)
"""What `areas` gives, in the same order."""

TOKEN_F1 = Measure("token_f1", "F1 of the k highest tokens, mean over texts")

OVER_ALL: Mapping[Measure, Callable[[HardMatches], float]] = {
    Measure("token_f1_micro", "F1 of the k highest tokens, counted over all texts together"): (
        lambda found: micro_f1(found.tokens)
    ),
    Measure("iou_f1", "F1 of the spans that overlap a marked span enough, from mean precision and recall"): (
        lambda found: macro_f1(found.spans)
    ),
    Measure("iou_f1_micro", "F1 of the spans that overlap a marked span enough, counted over all texts together"): (
        lambda found: micro_f1(found.spans)
    ),
}
"""What is one number for all documents."""

RATIONALE_MASS = Measure("rationale_mass", "share of the scores that lies on the rationale")
TOP_1_HIT = Measure("top_1_hit", "share of texts whose highest token is in the rationale")
PER_DOCUMENT: Mapping[Measure, Callable[[FloatArray, BoolArray, BoolArray], FloatArray]] = {
    RATIONALE_MASS: rationale_mass,
    TOP_1_HIT: top_1_hit,
}
"""What is a number per document, from scores, rationale and mask."""

NUM_TOKENS = Measure("k", "how many tokens a hard rationale has", 1.0, MANY, None, "tokens")

# The family goes over these tables, so a metric that is put into one of them is measured, declared and shown.
MEASURES = (*AREAS, TOKEN_F1, *OVER_ALL, *PER_DOCUMENT, NUM_TOKENS)
"""All of them, in the order in which they are shown."""
