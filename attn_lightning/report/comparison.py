"""Two runs on the same documents: paired tests, the documents that flipped, and how far their attention agrees."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.out_of_domain import chosen_rows
from attn_lightning.metrics.agreement import (
    JENSEN_SHANNON,
    KENDALL,
    TOP_K_OVERLAP,
    jensen_shannon,
    kendall_tau,
    top_k_overlap,
)
from attn_lightning.metrics.intervals import mean_interval
from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.statistics import paired_permutation_test
from attn_lightning.report.arithmetic import same_but_for_arithmetic
from attn_lightning.report.documents import Documents, read_documents
from attn_lightning.report.names import measure_name
from attn_lightning.report.run_data import Run

_ALL = 2**31
"""Documents at the most: a test over documents takes all of them."""

_MOST_EXPLAINED = 1000
"""Documents whose explanations are compared at the most: of more, a random choice, which depends on their number."""

_TOGETHER = 64
"""Documents whose attention is compared at a time, by length, so that padding is short."""

_Z = 1.959964
"""97.5 % quantile of the normal distribution."""

_SMALLEST = float(np.finfo(np.float32).tiny)
"""Stands for a probability that is stored as 0, whose logarithm would be infinite."""


@dataclass(frozen=True)
class Paired:
    """A number per document, of run B minus run A.

    Attributes:
        name: what is compared.
        first: mean of run A.
        second: mean of run B.
        difference: mean of the differences.
        low: lower end of the 95 % interval of the difference over documents.
        high: upper end.
        p: two-sided p-value.
        test: which test gave it.
        n: number of documents.
    """

    name: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    n: int


@dataclass(frozen=True)
class Alike:
    """Agreement of one explanation of two runs, over the documents that both cut into the same tokens.

    Attributes:
        explanation: such as `attention`.
        measure: its name, range and direction.
        mean: over documents; NaN where no document has a value.
        low: lower end of its 95 % interval over documents.
        high: upper end.
        n: number of documents with a value.
    """

    explanation: str
    measure: Measure
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Flip:
    """A document for which two runs predict another class.

    Attributes:
        row: its place in the split.
        text: untrusted; the second text of a pair stands in brackets before the first.
        label: its class; -1 where there is none.
        first: the class that run A predicts.
        second: the class that run B predicts.
        change: by how much the probability of the class that run B predicts has grown from A to B.
    """

    row: int
    text: str
    label: int
    first: int
    second: int
    change: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` says of two runs.

    Attributes:
        labels: of the two runs.
        documents: number of documents.
        outcomes: how many of the labelled documents both get right, only A, only B, and neither.
        paired: accuracy by McNemar's test, then what is compared by permutation.
        alike: agreement of every explanation that both have.
        other_tokens: documents that the two cut into other tokens, which `alike` leaves out.
        explained: documents of which `alike` is: all others, or a random choice of them.
        flips: all documents with another prediction, the largest change first.
        class_names: a name per class, as far as there are any.
        arithmetic: a sentence where the two are one configuration and seed, see `same_but_for_arithmetic`.
    """

    labels: tuple[str, str]
    documents: int
    outcomes: tuple[int, int, int, int]
    paired: tuple[Paired, ...]
    alike: tuple[Alike, ...]
    other_tokens: int
    explained: int
    flips: tuple[Flip, ...]
    class_names: tuple[str, ...]
    arithmetic: str = ""

    def class_name(self, number: int) -> str:
        """The name of a class, or its number where it has none."""
        return self.class_names[number] if 0 <= number < len(self.class_names) else str(number)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of discordant documents, either run is right in half.

    `P(|X - n/2| >= |b - n/2|)`, X binomial with n = b + c and 1/2, by `scipy.stats.binomtest`.

    Args:
        only_first: b, documents that only the first run gets right.
        only_second: c, documents that only the second one gets right.

    Returns:
        p in (0, 1]; 1 where the runs get the same documents right.
    """
    # Documents that both get right, or both wrong, say nothing of which is better.
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def difference_of_shares(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same documents, by Agresti and Min (2005).

    `((c - b) ± z sqrt(b + c + 1 - (c - b)² / (n + 2))) / (n + 2)`: Wald's interval with half a document added to each
    of the four outcomes, without which it has no width where the runs hardly differ.

    Args:
        only_first: b, documents that only the first run gets right.
        only_second: c, documents that only the second one gets right.
        count: n, all documents.

    Returns:
        Lower and upper end, in [-1, 1]; NaN of fewer than two documents.
    """
    if count < 2:
        return math.nan, math.nan
    more, others = only_second - only_first, count + 2
    half = _Z * math.sqrt(only_first + only_second + 1 - more**2 / others)
    return max(-1.0, (more - half) / others), min(1.0, (more + half) / others)


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare two runs document by document.

    Raises:
        ConfigurationError: one has no predictions, or they were tested on other documents.
    """
    # By the digest as well: two data sets may have one name, and a file may have changed between the runs.
    if (first.data_name, first.test_digest) != (second.data_name, second.test_digest):
        raise ConfigurationError(
            f"Expected two runs that were tested on the same documents, but got {first.label} on {first.data_name} and "
            f"{second.label} on {_other_data(first, second)}; compare runs of one data set."
        )
    try:
        documents = read_documents(first, _ALL), read_documents(second, _ALL)
    except DataFormatError as error:
        raise ConfigurationError(str(error)) from error
    # Runs from before data had a digest are told apart by what they predicted.
    a, b = documents
    if a.texts != b.texts or a.questions != b.questions or not np.array_equal(a.rows, b.rows):
        raise ConfigurationError(
            f"Expected predictions of the same documents, but got others of {first.label} and of {second.label}; test "
            "both on the same data."
        )
    return _comparison(first, second, a, b)


def _other_data(first: Run, second: Run) -> str:
    return second.data_name if second.data_name != first.data_name else f"another test split of {second.data_name}"


def _comparison(first: Run, second: Run, a: Documents, b: Documents) -> Comparison:
    # Tests of right and wrong need a label; flips and agreement of attention do not.
    labelled = a.labels >= 0
    right = (a.predictions == a.labels)[labelled], (b.predictions == b.labels)[labelled]
    both, neither = int((right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())
    only = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    paired = []
    if labelled.any():
        p_values = mcnemar(*only)
        # A t interval of differences of 0 and 1 may leave out 0 where the exact test sees nothing.
        interval = difference_of_shares(*only, int(labelled.sum()))
        # McNemar and not a test of means: right and wrong are pairs of 0 and 1, of which only the unequal ones count.
        paired.append(_paired("accuracy", right[0], right[1], p_values, "McNemar, exact", interval))
        own = [d.probabilities[np.flatnonzero(labelled), d.labels[labelled]].astype(np.float64) for d in (a, b)]
        # Bounded: one document with a probability of 0 would decide the mean of all alone.
        losses = [-np.log(np.maximum(found, _SMALLEST)) for found in own]
        for name, values in (("probability of the label", own), ("log loss", losses)):
            p = paired_permutation_test(values[1] - values[0])
            paired.append(_paired(name, values[0], values[1], p, "paired permutation over documents"))
    # A weight is compared with that of the same token, which two tokenizers may not have.
    same = np.flatnonzero(_same_tokens(a, b))
    explained = same[chosen_rows(len(same), _MOST_EXPLAINED, 0)]
    return Comparison(
        labels=(first.label, second.label),
        documents=len(a.rows),
        outcomes=(both, *only, neither),
        paired=tuple(paired),
        alike=tuple(_alike(a, b, explained)),
        other_tokens=len(a.rows) - len(same),
        explained=len(explained),
        flips=tuple(_flips(a, b)),
        class_names=tuple(first.class_names),
        arithmetic=same_but_for_arithmetic(first, second),
    )


def _paired(
    name: str,
    first: NDArray[np.generic],
    second: NDArray[np.generic],
    p: float,
    test: str,
    interval: tuple[float, float] | None = None,
) -> Paired:
    a, b = first.astype(np.float64), second.astype(np.float64)
    low, high = mean_interval(b - a) if interval is None else interval
    return Paired(name, float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, p, test, len(a))


def _flips(a: Documents, b: Documents) -> list[Flip]:
    places = np.flatnonzero(a.predictions != b.predictions)
    chosen = b.predictions[places]
    # Of the class that B chose: how far it came, and not only that it crossed the line.
    change = b.probabilities[places, chosen].astype(np.float64) - a.probabilities[places, chosen]
    texts = a.texts if a.questions is None else [f"[{q}] {t}" for q, t in zip(a.questions, a.texts, strict=True)]
    return [
        Flip(int(a.rows[k]), texts[k], int(a.labels[k]), int(a.predictions[k]), int(b.predictions[k]), float(grown))
        for k, grown in sorted(zip(places.tolist(), change.tolist(), strict=True), key=lambda pair: -pair[1])
    ]


def _firsts(documents: Documents) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(documents.lengths)])


def _same_tokens(a: Documents, b: Documents) -> NDArray[np.bool_]:
    """Which documents both runs cut at the same places: only there has a token a weight in both."""
    same: NDArray[np.bool_] = a.lengths == b.lengths
    first, second = _firsts(a), _firsts(b)
    for k in np.flatnonzero(same).tolist():
        mine, theirs = slice(first[k], first[k + 1]), slice(second[k], second[k + 1])
        same[k] = np.array_equal(a.starts[mine], b.starts[theirs]) and np.array_equal(a.ends[mine], b.ends[theirs])
    return same


def _alike(a: Documents, b: Documents, rows: NDArray[np.int64]) -> Iterator[Alike]:
    functions = ((KENDALL, kendall_tau), (JENSEN_SHANNON, jensen_shannon), (TOP_K_OVERLAP, top_k_overlap))
    # By length, so that documents of similar length are padded together.
    kept = rows[np.argsort(a.lengths[rows], kind="stable")]
    for explanation in (name for name in a.explanations if name in b.explanations):
        found: dict[Measure, list[NDArray[np.floating[Any]]]] = {measure: [] for measure, _ in functions}
        for place in range(0, len(kept), _TOGETHER):
            together = kept[place : place + _TOGETHER]
            mine, mask = _padded(a, explanation, together)
            theirs, _ = _padded(b, explanation, together)
            for measure, function in functions:
                found[measure].append(function(mine, theirs, mask))
        for measure, _ in functions:
            # With an empty array at the end, since of no documents at all there is nothing to concatenate.
            values = np.concatenate([*found[measure], np.zeros(0)])
            values = values[np.isfinite(values)]
            bounds = measure.minimum, measure.maximum
            mean = float(values.mean()) if len(values) else math.nan
            yield Alike(explanation, measure, mean, *mean_interval(values, bounds=bounds), len(values))


def _padded(
    documents: Documents, explanation: str, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, firsts = documents.explanations[explanation], _firsts(documents)
    lengths = documents.lengths[rows]
    mask = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    scores = np.zeros(mask.shape)
    scores[mask] = np.concatenate([values[firsts[k] : firsts[k + 1]] for k in rows.tolist()])
    return scores, mask


def lines(found: Comparison) -> Sequence[str]:
    """What a comparison says in sentences: the counts that no table holds."""
    both, first, second, neither = found.outcomes
    said = [
        f"{found.documents:,} documents: both right {both:,}, only A {first:,}, only B {second:,}, neither "
        f"{neither:,}.",
        f"{len(found.flips):,} documents have another prediction.",
    ]
    if found.arithmetic:
        said.append(found.arithmetic)
    if found.other_tokens:
        said.append(f"{found.other_tokens:,} documents are cut into other tokens; their explanations are left out.")
    if found.explained < found.documents - found.other_tokens:
        said.append(f"Agreement of explanations: of {found.explained:,} documents, a random choice.")
    return said


def comparison_content(found: Comparison) -> dict[str, Any]:
    """What the page shows of a comparison; the documents themselves it has already."""
    return {
        "labels": list(found.labels),
        "lines": list(lines(found)),
        "paired": [{**vars(row), **_finite(low=row.low, high=row.high, p=row.p)} for row in found.paired],
        "alike": [
            {
                "explanation": row.explanation,
                "name": measure_name(row.measure.name),
                "meaning": f"{row.measure.meaning} ({row.measure.span}; better: {row.measure.better})",
                "mean": row.mean,
                "n": row.n,
                **_finite(low=row.low, high=row.high),
            }
            for row in found.alike
            if row.n
        ],
    }


def _finite(**values: float) -> dict[str, float | None]:
    """Numbers as JSON can say them: of a single document there is neither an interval nor a p-value."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
