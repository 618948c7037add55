"""Kendall's tau-b and its p-value for many texts at once.

Legend of this file: R texts in which both scores vary, T tokens of the longest.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from attn_lightning.metrics.per_example import BoolArray, FloatArray

LONGEST_PAIRWISE = 400
"""Tokens up to which comparing all pairs beats sorting; beyond it scipy's O(n log n) is faster (measured)."""

_PAIRS_TOGETHER = 2**18
"""Pairs of tokens that are compared in one go: enough for hundreds of short texts, few enough for the cache."""

_LONGEST_EXACT = 33
"""Tokens up to which the p-value is exact, as in scipy."""


@dataclass(frozen=True)
class Ties:
    """Sums over groups of t tied tokens.

    Attributes:
        pairs: (R,) `sum t (t - 1) / 2`.
        triples: (R,) `sum t (t - 1) (t - 2)`.
        spread: (R,) `sum t (t - 1) (2 t + 5)`.
    """

    pairs: FloatArray
    triples: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, scores: FloatArray, mask: BoolArray) -> "Ties":
        """Ties among the real tokens of (R, T) finite scores."""
        # Infinity puts padding last, where it is told from real scores, which are finite.
        ordered = np.sort(np.where(mask, scores, np.inf), axis=1)
        tied = np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & np.isfinite(ordered[:, 1:])).any(1))
        last, first = (scipy.stats.rankdata(ordered[tied], method=method, axis=1) for method in ("max", "min"))
        # Of the group that a token is in, so that a group counts t times.
        size = np.where(np.isfinite(ordered[tied]), last - first + 1, 1)
        sums = np.zeros((3, len(mask)))
        sums[:, tied] = [
            ((size - 1) / 2).sum(1),
            ((size - 1) * (size - 2)).sum(1),
            ((size - 1) * (2 * size + 5)).sum(1),
        ]
        return cls(*sums)


@dataclass(frozen=True)
class Concordance:
    """What tau and its p-value are made of.

    Attributes:
        tokens: (R,) real tokens, at least 2.
        surplus: (R,) concordant minus discordant pairs.
        first: ties of the first score.
        second: ties of the second score.
    """

    tokens: NDArray[np.int64]
    surplus: FloatArray
    first: Ties
    second: Ties

    @classmethod
    def of(cls, first: FloatArray, second: FloatArray, mask: BoolArray) -> "Concordance":
        """Compare all pairs of the real tokens.

        Args:
            first: (R, T) finite at real tokens, at least two of which differ.
            second: (R, T) likewise.
            mask: (R, T) bool.
        """
        ties = Ties.of(first, mask), Ties.of(second, mask)
        return cls(mask.sum(1), _surplus(first, second, mask, ties), *ties)

    def tau(self) -> FloatArray:
        """(R,) tau-b in [-1, 1]."""
        # The root rounds: two equal orders would come out as 1.0000000000000002.
        return np.clip(self.surplus / _largest_surplus(self.tokens, self.first, self.second), -1, 1)

    def p_value(self) -> FloatArray:
        """(R,) two-sided probability of a surplus so far from 0 if all orders are equally likely, in [0, 1]."""
        tokens = self.tokens
        # If all orders are equally likely, a surplus and its opposite are: two sides are twice one.
        p_values = 2 * scipy.special.ndtr(-np.abs(self.surplus) / np.sqrt(self._variance()))
        # With ties there is no exact distribution over orders that scipy would use, so the normal limit stays.
        untied = (self.first.pairs == 0) & (self.second.pairs == 0)
        # Without ties: discordant pairs, or concordant ones if those are fewer.
        fewest = (tokens * (tokens - 1) / 2 - np.abs(self.surplus)) / 2
        short = np.flatnonzero(untied & (tokens <= _LONGEST_EXACT))
        p_values[short] = 2 * _inversions_cdf()[tokens[short], fewest[short].astype(np.int64)]
        # One order out of n! has no pair in the wrong order, n - 1 have one.
        nearly_sorted = np.flatnonzero(untied & (tokens > _LONGEST_EXACT) & (fewest <= 1))
        p_values[nearly_sorted] = 2 * np.exp(-scipy.special.gammaln(tokens + 1 - fewest)[nearly_sorted])
        return np.clip(p_values, 0, 1)

    def _variance(self) -> FloatArray:
        """(R,) of the surplus if all orders are equally likely."""
        n, first, second = self.tokens, self.first, self.second
        ordered = n * (n - 1.0)
        # Two tokens have no triples, and 0 / 0 would make the whole variance NaN.
        variance: FloatArray = (
            (ordered * (2 * n + 5) - first.spread - second.spread) / 18
            + 2 * first.pairs * second.pairs / ordered
            + first.triples * second.triples / (9 * ordered * np.maximum(n - 2, 1))
        )
        return variance


def _largest_surplus(tokens: NDArray[np.int64], first: Ties, second: Ties) -> FloatArray:
    pairs = tokens * (tokens - 1) / 2
    largest: FloatArray = np.sqrt((pairs - first.pairs) * (pairs - second.pairs))
    return largest


def _surplus(first: FloatArray, second: FloatArray, mask: BoolArray, ties: tuple[Ties, Ties]) -> FloatArray:
    """(R,) concordant minus discordant pairs: long texts one by one, the others in groups of similar length."""
    tokens = mask.sum(1)
    surplus = np.zeros(len(tokens))
    largest = _largest_surplus(tokens, *ties)
    # The longest first: those that are too long for pairs then come together at the front.
    order = np.argsort(-tokens, kind="stable")
    start = int((tokens > LONGEST_PAIRWISE).sum())
    for row in order[:start]:
        real = mask[row]
        # It gives tau alone; the surplus is a whole number, so that rounding brings it back exactly.
        surplus[row] = np.rint(scipy.stats.kendalltau(first[row, real], second[row, real]).statistic * largest[row])
    while start < len(order):
        width = int(tokens[order[start]])
        rows = order[start : start + max(1, _PAIRS_TOGETHER // width**2)]
        surplus[rows] = _compared(*(_aligned(scores[rows], mask[rows], width) for scores in (first, second)))
        start += len(rows)
    return surplus


def _compared(first: FloatArray, second: FloatArray) -> NDArray[np.int64]:
    """(R,) concordant minus discordant pairs of (R, T) scores; NaN is neither above nor below anything."""
    # One side only: a pair (i, j) and its mirror (j, i) say the same, and `above` holds for at most one of them.
    above = first[:, :, None] > first[:, None, :]
    concordant, discordant = second[:, :, None] > second[:, None, :], second[:, :, None] < second[:, None, :]
    for pairs in (concordant, discordant):
        np.logical_and(pairs, above, out=pairs)
    # Counting row by row is several times faster than along axes.
    return np.array([np.count_nonzero(a) - np.count_nonzero(b) for a, b in zip(concordant, discordant, strict=True)])


def _aligned(scores: FloatArray, mask: BoolArray, width: int) -> FloatArray:
    """(R, width) float64 with the real tokens on the left and NaN on the right."""
    # Every comparison with NaN is false, so that padding is counted on neither side.
    aligned = np.full((len(scores), width), np.nan)
    aligned[np.arange(width) < mask.sum(1)[:, None]] = scores[mask]
    return aligned


@lru_cache
def _inversions_cdf() -> FloatArray:
    """Entry (n, c): the probability that a random order of n tokens has at most c pairs in the wrong order."""
    table = np.ones((_LONGEST_EXACT + 1, _LONGEST_EXACT * (_LONGEST_EXACT - 1) // 2 + 1))
    probabilities = np.ones(1)
    # The n-th token can stand before 0 to n - 1 of the others, each as likely: the number of inversions is their sum.
    for n in range(1, _LONGEST_EXACT + 1):
        probabilities = np.convolve(probabilities, np.full(n, 1 / n))
        table[n, : len(probabilities)] = probabilities.cumsum()
    return table
