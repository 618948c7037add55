"""Sparsity of explanations, and the geometry of the hidden states that attention averages."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attn_lightning.data.buckets import LengthBatches
from attn_lightning.evaluation.erasure import inference
from attn_lightning.evaluation.families.plausibility import CACHED_TOKENS
from attn_lightning.evaluation.family import MODEL, Family, Row
from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.conicity import ABSOLUTE_CONICITY, CONICITY, conicity
from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.sparsity import MEASURES


class Sparsity(Family):
    """How few tokens every explanation names; see `metrics.sparsity`.

    Scores are divided by their sum first. Explanations with negative scores have no valid example. Neither direction
    is better: sparse weights are easy to read, and they can be wrong.

    Cost: no pass of the model; one sort of every document's scores per explanation.
    """

    name: ClassVar[str] = "sparsity"
    heading: ClassVar[str] = "How few tokens an explanation is spread over."
    measures: ClassVar[Mapping[str, Measure]] = by_name(MEASURES)

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        lengths = np.asarray(subject.examples.lengths)
        found = {name: np.full((len(MEASURES), len(lengths)), np.nan) for name in explained.explanations}
        # No model runs here, so that the cache of the processor is the bound and not the memory.
        budget = min(subject.token_budget, CACHED_TOKENS)
        for plan in LengthBatches(lengths, subject.batch_size, token_budget=budget):
            rows = np.asarray(plan, np.int64)
            mask = np.arange(lengths[rows].max()) < lengths[rows][:, None]
            for name, explanation in explained.explanations.items():
                scores = explanation.pad(rows)
                found[name][:, rows] = np.stack([measure(scores, mask) for measure in MEASURES.values()])
            advance(len(rows))
        return [
            Row.of(metric.name, name, each)
            for name, values in found.items()
            for metric, each in zip(MEASURES, values, strict=True)
        ]


class Geometry(Family):
    """Conicity of the hidden states; see `metrics.conicity`.

    Near 1 all states of a text point the same way, so that its context hardly depends on the attention.

    Cost: one pass of the encoder.
    """

    name: ClassVar[str] = "geometry"
    heading: ClassVar[str] = "How narrow the cone of a text's hidden states is: near 1 attention changes little."
    measures: ClassVar[Mapping[str, Measure]] = by_name((CONICITY, ABSOLUTE_CONICITY))
    # The states are the model's own, so no explanation is judged.
    uncontrolled: ClassVar[frozenset[str]] = frozenset(measures)

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """See `Family.run`."""
        values = np.full((2, len(subject.examples)), np.nan)
        with inference(subject.model):
            for batch in subject.batches():
                hidden = subject.model.encode(subject.model.embed(batch.tokens), batch.mask)
                for place, absolute in enumerate((False, True)):
                    values[place, to_array(batch.rows)] = to_array(conicity(hidden, batch.mask, absolute=absolute))
                advance(len(batch.rows))
        return [Row.of(metric, MODEL, each) for metric, each in zip(self.measures, values, strict=True)]
