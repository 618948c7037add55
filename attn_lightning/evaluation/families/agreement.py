"""Agreement: whether attention names the same tokens as every other explanation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attn_lightning.checks import check_numbers
from attn_lightning.data.buckets import LengthBatches
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.agreement import MEASURES, agreement
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import BoolArray, FloatArray

Pair = tuple[str, str]


class AgreementFamily(Family):
    """Agreement of attention with every other explanation, and of the gradient with leave-one-out.

    The protocol of Jain and Wallace 2019, https://aclanthology.org/N19-1357: over all examples, and again over those of
    each predicted class (`class` in the setting). A row without `with` in its setting compares the named explanation
    with attention, one with it compares the two. Examples where a measure is undefined (one token, constant scores, no
    rationale) do not count in it; see `metrics.agreement`.

    - `kendall`: tau-b; `kendall_significant` is the share of examples whose tau differs from 0 at `level`.
    - `spearman`, `pearson`: correlations.
    - `jensen_shannon`: divergence of the scores divided by their sums.
    - `top_k_overlap`: share of the k highest that both have, where a text has more than k tokens.

    Args:
        pairs: names of explanations to compare beside attention; None takes the gradient with leave-one-out where both
            were computed.
        k: tokens of the top-k overlap, at least 1.
        level: of significance, in (0, 1).
        by_class: report every predicted class too.

    Raises:
        ConfigurationError: an argument is out of its range, or a pair names an explanation that was not computed.

    Cost: no pass of the model; all pairs of a text's tokens are compared once per pair of explanations.
    """

    name: ClassVar[str] = "agreement"
    heading: ClassVar[str] = "How far attention (or the explanation named by `with`) agrees with every explanation."
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)
    # The inverted control is as significant as attention itself: it is the same order, backwards.
    uncontrolled: ClassVar[frozenset[str]] = frozenset({"kendall_significant"})

    def __init__(
        self, pairs: Sequence[Pair] | None = None, k: int = 5, level: float = 0.05, by_class: bool = True
    ) -> None:
        check_numbers(self, at_least=1, k=k)
        check_numbers(self, above=0, below=1, advice="0.05 is usual", level=level)
        self.pairs = pairs
        self.k = k
        self.level = level
        self.by_class = by_class

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        lengths = np.asarray(subject.examples.lengths)
        pairs = self._pairs(list(explained.explanations))
        # Each explanation is padded once per chunk, in however many pairs it stands.
        needed = dict.fromkeys(name for pair in pairs for name in pair)
        values = np.full((len(pairs), len(self.measures), len(lengths)), np.nan)
        # Nothing here runs the model, so a chunk may have as many rows as the budget has tokens.
        for plan in LengthBatches(lengths, len(lengths), token_budget=subject.token_budget):
            rows = np.asarray(plan, np.int64)
            mask = np.arange(lengths[rows].max()) < lengths[rows][:, None]
            scores = {name: explained.explanations[name].pad(rows) for name in needed}
            for place, (first, second) in enumerate(pairs):
                found = agreement(scores[first], scores[second], mask, self.k, self.level)
                values[place, :, rows] = np.stack([found[metric] for metric in self.measures], axis=1)
            advance(len(rows))
        return list(self._rows(pairs, values, explained.predicted, subject.num_classes))

    def _pairs(self, names: list[str]) -> list[Pair]:
        """All comparisons, in the order in which they are shown."""
        wanted = [("gradient", "loo")] if {"gradient", "loo"} <= set(names) else []
        if self.pairs is not None:
            wanted = [(first, second) for first, second in self.pairs]
        unknown = [name for pair in wanted for name in pair if name not in names]
        if unknown:
            raise ConfigurationError(
                f"Expected `pairs` of explanations out of {', '.join(names)}, but got {unknown[0]!r}; add it to "
                "`--explainers`."
            )
        with_attention = [("attention", name) for name in names if name != "attention"]
        # Once each: a pair that was asked for may be one with attention.
        return list(dict.fromkeys([*with_attention, *wanted]))

    def _rows(
        self, pairs: list[Pair], values: FloatArray, predicted: NDArray[np.int64], num_classes: int
    ) -> Iterator[Row]:
        everyone: list[tuple[dict[str, Any], BoolArray]] = [({}, np.ones(len(predicted), np.bool_))]
        classes = [({"class": c}, predicted == c) for c in range(num_classes)] if self.by_class else []
        for group, members in [*everyone, *classes]:
            for place, metric in enumerate(self.measures):
                for (first, second), of_pair in zip(pairs, values[:, place], strict=True):
                    setting: dict[str, Any] = {} if first == "attention" else {"with": first}
                    if metric == "top_k_overlap":
                        setting["k"] = self.k
                    yield Row.of(metric, second, of_pair[members], **setting, **group)
