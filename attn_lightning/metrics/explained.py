"""How well the words that an explainer selects stand for the decision of the model that it explains, its teacher."""

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from attn_lightning.metrics.measure import Measure, by_name
from attn_lightning.metrics.per_example import PerExampleMetric, to_array

TEACHER_AGREEMENT = Measure("teacher_agreement", "share of texts in which the student decides as the teacher does")
POST_HOC_ACCURACY = Measure("post_hoc_accuracy", "share of texts whose selected words alone give the teacher's class")
EVIDENCE_RECALL = Measure("evidence_recall", "share of the marked words that are among the selected ones")


class TeacherAgreement(PerExampleMetric):
    """Share of the texts in which the student, who sees the selected words, decides as the teacher on the whole text.

    Selector and student can agree on a code: that the student is right says nothing yet of the words (`PostHocAccuracy`
    does).
    """

    declared = TEACHER_AGREEMENT

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Add a batch: (B,) int64 classes of both."""
        self.add(to_array((student == teacher).double()))


class PostHocAccuracy(PerExampleMetric):
    """Share of the texts of which the teacher, given the selected words alone, says what it says of the whole text.

    Source: Chen et al. 2018, https://arxiv.org/abs/1802.07814, section 4, where the other words are masked; here they
    are cut out.
    """

    declared = POST_HOC_ACCURACY

    def update(self, selected: Tensor, teacher: Tensor) -> None:
        """Add a batch: (B,) int64 classes of the teacher, by the selected words and by the whole text."""
        self.add(to_array((selected == teacher).double()))


class EvidenceRecall(PerExampleMetric):
    """Mean share of the words marked as evidence that are selected; texts without a mark do not count."""

    declared = EVIDENCE_RECALL

    def update(self, selection: Tensor, rationale: Tensor) -> None:
        """Add a batch: (B, T) bool selected words, and (B, T) bool marks."""
        found = (selection & rationale).sum(-1).double()
        self.add(to_array(found / rationale.sum(-1).double()))  # 0 / 0 is NaN, which does not count


def explained_measures() -> dict[str, Measure]:
    """What an explainer logs of a validation or test split, by name."""
    classes = (TEACHER_AGREEMENT, POST_HOC_ACCURACY, EVIDENCE_RECALL)
    return by_name(measure for declared in classes for measure in declared.over_examples())


def explained_metrics(marked: bool) -> MetricCollection:
    """`TeacherAgreement` and `PostHocAccuracy`, and `EvidenceRecall` for data that is marked.

    Update it with keyword arguments: student, teacher, selected, and for marked data selection and rationale.
    """
    metrics = [TeacherAgreement(), PostHocAccuracy(), *([EvidenceRecall()] if marked else [])]
    # Torchmetrics would merge measures whose sums happen to be equal after the first batch, for good.
    return MetricCollection(metrics, compute_groups=False)


def selected_only(tokens: Tensor, selection: Tensor) -> tuple[Tensor, Tensor]:
    """The selected words of every text, cut out and moved together in their order.

    Args:
        tokens: (B, T, ...).
        selection: (B, T) bool, at least one True per row.

    Returns:
        (B, K, ...) tokens and (B, K) bool mask, K the most that a row has; 0 behind them.
    """
    order = selection.int().argsort(dim=1, descending=True, stable=True)[:, : int(selection.sum(1).max())]
    rows = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
    mask = selection.gather(1, order)
    kept = tokens[rows, order]
    return kept.masked_fill(~mask.reshape(*mask.shape, *(1,) * (tokens.dim() - 2)), 0), mask
