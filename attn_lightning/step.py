"""One training step as methods and perturbations see it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.types import AttentionOutput, Batch

TARGETS = "targets"
"""Where in `AttentionOutput.aux` a task loss leaves what it is about, if that is not the labels."""


@dataclass(frozen=True)
class TrainStep:
    """All that a method may see of one training step.

    Attributes:
        model: the backbone; a method may call `attend` freely, and `encode` only if it declares `encoder_passes`.
        batch: the labelled examples.
        output: the clean pass over `batch`, with its graph.
        task_loss: `(logits, labels) -> (B,)`, the per-example task loss that the run uses (class weights included).
        progress: share of the training that is done, in [0, 1].
        unlabeled: examples without labels, or None in a supervised run.
        unlabeled_output: the clean pass over `unlabeled`, or None with it.
    """

    model: Backbone
    batch: Batch
    output: AttentionOutput
    task_loss: Callable[[Tensor, Tensor], Tensor]
    progress: float
    unlabeled: Batch | None = None
    unlabeled_output: AttentionOutput | None = None

    @property
    def targets(self) -> Tensor:
        """(B,) the classes that the task loss is about: the labels, or those that a method has put in their place."""
        targets: Tensor = self.output.aux.get(TARGETS, self.batch.labels)
        return targets
