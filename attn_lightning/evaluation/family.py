"""The contract of a family of measurements, and the rows that it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attn_lightning.evaluation.subject import Explained, ProgressCallback, Subject
from attn_lightning.metrics.measure import Measure

MODEL = "model"
"""Stands in the place of the explainer in rows that are about the model itself."""


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        metric: a key of the family's `measures`.
        explainer: name of the explainer, or `MODEL`.
        value: mean over the valid examples; None if there is none.
        std: standard deviation over them (divided by n); None where the metric is not a mean over examples.
        n_valid: examples for which it is defined.
        n: all examples.
        setting: what was varied, for curves: `{"epsilon": 1.0, "attack": "pgd"}`.
    """

    metric: str
    explainer: str
    value: float | None
    std: float | None
    n_valid: int
    n: int
    setting: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, metric: str, explainer: str, values: NDArray[Any], **setting: Any) -> "Row":
        """The row of (N,) numbers, one per example, NaN where the metric is undefined."""
        # In float64: summed in float32 the mean of a long split would depend on the order of its examples.
        valid = values[~np.isnan(values)].astype(np.float64)
        some = len(valid) > 0
        return cls(
            metric,
            explainer,
            float(valid.mean()) if some else None,
            float(valid.std()) if some else None,
            len(valid),
            len(values),
            setting,
        )


class Family:
    """A family of measurements, for example plausibility: it runs as a whole, and a stopped evaluation resumes with it.

    Its options are arguments of the constructor, with defaults. Formulas live in `attn_lightning.metrics` as pure
    functions; a family says what they are fed with, in batches whose size does not depend on the data.

    Attributes:
        name: of the family, as `--suite` takes it.
        measures: every metric that its rows can have, declared beside its formula in `attn_lightning.metrics`.
        uncontrolled: names of those that controls say nothing about, because their value does not depend on which
            tokens an explanation names; a control that is as good is no reason to mark them.
        free_untrained: names of those that a model without training gets for nothing, because its prediction hardly
            depends on the text: that it is as good says nothing, and is not marked.
        heading: one sentence above its table.
    """

    name: ClassVar[str]
    heading: ClassVar[str]
    measures: ClassVar[Mapping[str, Measure]]
    uncontrolled: ClassVar[frozenset[str]] = frozenset()
    free_untrained: ClassVar[frozenset[str]] = frozenset()

    def unavailable(self, subject: Subject) -> str | None:
        """Why the family cannot be measured here, "the data has no rationales" for example; None if it can."""
        return None

    def run(self, subject: Subject, explained: Explained, advance: ProgressCallback) -> list[Row]:
        """Measure everything.

        Args:
            subject: model and examples.
            explained: predictions of the clean pass and the explanations to judge.
            advance: to be called with the number of examples finished since the last call, `len(subject.examples)`
                in all.

        Returns:
            The rows, in the order in which they are shown. They depend neither on the batch size nor on the order of
            the examples.
        """
        raise NotImplementedError
