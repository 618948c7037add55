"""Does attention lie on what decides the label: on a rationale, or on a planted shortcut."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from attn_lightning.metrics.per_example import PerExampleMetric, to_array
from attn_lightning.metrics.plausibility import marked_mass, top_1_hit
from attn_lightning.metrics.selective import OUTCOMES, outcomes


class EvidenceHit(PerExampleMetric):
    """Mean of `top_1_hit`: how often the most attended token is in the rationale.

    A random choice scores the share of the text that is marked.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "evidence_hit"
    higher_is_better = True
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = None

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask; (B,) predicted classes if they count apart."""
        self.add(top_1_hit(to_array(attention), to_array(rationale), to_array(mask)), predicted)


class EvidenceMass(PerExampleMetric):
    """Mean of `marked_mass` over the rationale; uniform attention scores the share of the text that is marked.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "evidence_mass"
    higher_is_better = True
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = None

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask; (B,) predicted classes if they count apart."""
        self.add(marked_mass(to_array(attention), to_array(rationale), to_array(mask)), predicted)


class ShortcutUse(PerExampleMetric):
    """Mean of `marked_mass` over planted shortcut words; uniform attention scores their share of the text.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "shortcut_use"
    higher_is_better = False
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = None

    def update(self, attention: Tensor, shortcut: Tensor, mask: Tensor, predicted: Tensor | None = None) -> None:
        """Add a batch: (B, T) attention, (B, T) bool marks and mask; (B,) predicted classes if they count apart."""
        self.add(marked_mass(to_array(attention), to_array(shortcut), to_array(mask)), predicted)


class ShortcutFollow(PerExampleMetric):
    """Share of the examples with a misleading shortcut word whose prediction is the class that this word speaks for.

    An example counts if it has a shortcut word and that word speaks for another class than the label. Unlike
    `ShortcutUse` this is behaviour: a state can carry the word to any position, past what attention shows.

    Args:
        num_classes: C, to report every predicted class apart too; 0 for the whole split only.
        kwargs: options of `torchmetrics.Metric`.
    """

    name: ClassVar[str] = "shortcut_follow"
    higher_is_better = False
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    uninformative: ClassVar[float | None] = None

    def update(self, predicted: Tensor, labels: Tensor, shortcut_class: Tensor) -> None:
        """Add a batch: (B,) int64 predicted classes, labels, and classes of the shortcut words, -1 without one."""
        misleading = (shortcut_class >= 0) & (shortcut_class != labels)
        values = torch.where(misleading, (predicted == shortcut_class).double(), torch.nan)
        self.add(to_array(values), predicted)


class SelectionOutcomes(Metric):
    """Where attention looks against what the model says, over the examples with a rationale.

    - `ftpt`: the most attended token is in the rationale (focus true) and the prediction is right.
    - `ffpt`: it is not, and the prediction is right all the same.
    - `ftpf`: it is, and the prediction is wrong.
    - `ffpf`: neither.

    The four are shares in [0, 1] and sum to 1, or are NaN without such an example; `ftpt + ffpt` is the accuracy on
    these examples (`EvidenceHit` has their number).
    """

    full_state_update = False
    is_differentiable = False
    minimum: ClassVar[float] = 0.0
    maximum: ClassVar[float] = 1.0
    result_names: ClassVar[tuple[str, ...]] = OUTCOMES

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, attention: Tensor, rationale: Tensor, mask: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Add a batch: (B, T) attention, (B, T) bool rationale and mask, (B,) int64 predicted classes and labels."""
        found = outcomes(*(to_array(given) for given in (attention, rationale, mask, predicted, labels)))
        self.counts = self.counts + torch.from_numpy(np.nansum(found, axis=0)).to(self.counts)

    def compute(self) -> dict[str, Tensor]:
        """The four shares, float32."""
        return dict(zip(self.result_names, (self.counts / self.counts.sum()).float(), strict=True))


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
