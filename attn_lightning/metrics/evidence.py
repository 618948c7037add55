"""Does attention lie on what decides the label: on a rationale, or on a planted shortcut."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from attn_lightning.metrics.measure import Measure
from attn_lightning.metrics.per_example import PerExampleMetric, to_array
from attn_lightning.metrics.plausibility import RATIONALE_MASS, TOP_1_HIT, marked_mass, top_1_hit
from attn_lightning.metrics.selective import OUTCOMES, outcomes

EVIDENCE_HIT = TOP_1_HIT.called("evidence_hit", "share of texts whose most attended token is in the rationale")
EVIDENCE_MASS = RATIONALE_MASS.called("evidence_mass", "attention on the rationale, of 1 in all")
SHORTCUT_USE = Measure("shortcut_use", "attention on the planted shortcut words, of 1 in all", higher_is_better=False)
SHORTCUT_FOLLOW = Measure("shortcut_follow", "share of misleading shortcut words that are followed", 0.0, 1.0, False)


class EvidenceHit(PerExampleMetric):
    """Mean of `top_1_hit`: how often the most attended token is in the rationale.

    A random choice scores the share of the text that is marked.
    """

    declared = EVIDENCE_HIT

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask."""
        self.add(top_1_hit(to_array(attention), to_array(rationale), to_array(mask)))


class EvidenceMass(PerExampleMetric):
    """Mean of `marked_mass` over the rationale; uniform attention scores the share of the text that is marked."""

    declared = EVIDENCE_MASS

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask."""
        self.add(marked_mass(to_array(attention), to_array(rationale), to_array(mask)))


class ShortcutUse(PerExampleMetric):
    """Mean of `marked_mass` over planted shortcut words; uniform attention scores their share of the text."""

    declared = SHORTCUT_USE

    def update(self, attention: Tensor, shortcut: Tensor, mask: Tensor) -> None:
        """Add a batch: (B, T) attention, (B, T) bool marks and mask."""
        self.add(marked_mass(to_array(attention), to_array(shortcut), to_array(mask)))


class ShortcutFollow(PerExampleMetric):
    """Share of the examples with a misleading shortcut word whose prediction is the class that this word speaks for.

    An example counts if it has a shortcut word and that word speaks for another class than the label. Unlike
    `ShortcutUse` this is behaviour: a state can carry the word to any position, past what attention shows.
    """

    declared = SHORTCUT_FOLLOW

    def update(self, predicted: Tensor, labels: Tensor, shortcut_class: Tensor) -> None:
        """Add a batch: (B,) int64 predicted classes, labels, and classes of the shortcut words, -1 without one."""
        # Where the word speaks for the label, following it cannot be told from reading the evidence.
        misleading = (shortcut_class >= 0) & (shortcut_class != labels)
        self.add(to_array(torch.where(misleading, (predicted == shortcut_class).double(), torch.nan)))


class SelectionOutcomes(Metric):
    """The shares of the four `outcomes` of focus and prediction, over the examples with a rationale.

    They are NaN without such an example (`EvidenceHit` has their number).
    """

    full_state_update = False
    is_differentiable = False
    measures: ClassVar[tuple[Measure, ...]] = OUTCOMES

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask, (B,) int64 predicted classes and labels."""
        found = outcomes(*(to_array(given) for given in (attention, rationale, mask, predicted, labels)))
        # `nansum` leaves out examples without a rationale, whose four outcomes are all NaN.
        self.counts = self.counts + torch.from_numpy(np.nansum(found, axis=0)).to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """The four shares, float32."""
        shares = (self.counts / self.counts.sum()).float()
        return {measure.name: share for measure, share in zip(self.measures, shares, strict=True)}


def evidence_metrics() -> MetricCollection:
    """What a rationale tells of attention, as one collection: `EvidenceHit`, `EvidenceMass`, `SelectionOutcomes`.

    Update it with keyword arguments: attention, rationale, mask, predicted, labels.
    """
    metrics: list[Metric] = [EvidenceHit(), EvidenceMass(), SelectionOutcomes()]
    # Torchmetrics would merge measures whose sums happen to be equal after the first batch, for good.
    return MetricCollection(metrics, compute_groups=False)


def shortcut_metrics() -> MetricCollection:
    """What the marks of a planted shortcut tell, as one collection: `ShortcutUse` and `ShortcutFollow`.

    Update it with keyword arguments: attention, shortcut, mask, predicted, labels, shortcut_class.
    """
    metrics: list[Metric] = [ShortcutUse(), ShortcutFollow()]
    return MetricCollection(metrics, compute_groups=False)
