"""Selective dependence: whether the model is right for the right reason."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attn_lightning.evaluation.families.plausibility import lacks_rationales, marked_tokens, small_batches
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import FloatArray, to_array
from attn_lightning.metrics.selective import (
    COUNTED,
    MEASURES,
    OUTCOMES,
    PER_EXAMPLE,
    Weighed,
    interpretability,
    outcomes,
)


class Selective(Family):
    """The SDC rates of every explanation; see `metrics.selective`.

    They are meant for data whose rationale marks exactly one segment, z*, that carries the label (mosaics, planted
    explained). A phrase of several tokens counts as one segment: the focus z, the token with the highest score, is true
    if it lies anywhere in the phrase. Examples without a rationale or without a label count in no row.

    - `ftpt`, `ffpt`, `ftpf`, `ffpf`: shares of focus true or false, prediction true or false; they sum to 1.
    - `accuracy`: `ftpt + ffpt`, the same for every explanation.
    - `interpretability`: `ftpt / accuracy`.
    - `evidence_weight`: mean share of the scores on z*, for explanations without negative scores.
    - `dominant`: number of examples in which one token has at least half of all score.

    Cost: no pass of the model.
    """

    name: ClassVar[str] = "selective"
    heading: ClassVar[str] = "Whether the prediction is right for the right reason: focus (F) and prediction (P)."
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)
    # Accuracy is that of the predictions, whatever the explanation. FTPF only trades with FFPF then: see `OUTCOMES`.
    uncontrolled: ClassVar[frozenset[str]] = frozenset({"accuracy", "ftpf"})

    def unavailable(self, subject: Subject) -> str | None:
        """Data without rationales has no segment to look for."""
        return lacks_rationales(subject)

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`.

        Raises:
            DataFormatError: a rationale has another length than its text; names the row.
        """
        of_weights = [*PER_EXAMPLE.values(), *COUNTED.values()]
        shape = (len(subject.examples), len(OUTCOMES) + len(of_weights))
        found = {name: np.full(shape, np.nan) for name in explained.explanations}
        for batch in small_batches(subject):
            rows, marked, mask = to_array(batch.rows), marked_tokens(batch), to_array(batch.mask)
            for name, explanation in explained.explanations.items():
                scores = explanation.pad(rows, mask.shape[1])
                each = outcomes(scores, marked, mask, explained.predicted[rows], explained.labels[rows])
                others = np.stack([measure(Weighed(scores, marked, mask)) for measure in of_weights], axis=1)
                # Plus 0 times an outcome: NaN where the outcomes are, so that all rows count the same examples.
                found[name][rows] = np.concatenate([each, others + 0 * each[:, :1]], axis=1)
            advance(len(rows))
        return [row for name, values in found.items() for row in _rows(name, values)]


def _rows(explainer: str, values: FloatArray) -> list[Row]:
    rates = values[:, : len(OUTCOMES)]
    means, counts = np.split(values[:, len(OUTCOMES) :], [len(PER_EXAMPLE)], axis=1)
    ftpt, ffpt = rates.T[:2]
    right, share = ftpt + ffpt, interpretability(rates)
    sure = None if np.isnan(share) else share
    return [
        *(Row.of(outcome.name, explainer, each) for outcome, each in zip(OUTCOMES, rates.T, strict=True)),
        Row.of("accuracy", explainer, right),
        # It is a share of the right predictions, so these are the examples that count.
        Row("interpretability", explainer, sure, None, int(np.nansum(right)), len(values)),
        *(Row.of(metric.name, explainer, each) for metric, each in zip(PER_EXAMPLE, means.T, strict=True)),
        *(_count(metric.name, explainer, each) for metric, each in zip(COUNTED, counts.T, strict=True)),
    ]


def _count(metric: str, explainer: str, each: FloatArray) -> Row:
    """The sum of (N,) ones and zeros; no value where none is known."""
    known = int((~np.isnan(each)).sum())
    return Row(metric, explainer, float(np.nansum(each)) if known else None, None, known, len(each))
