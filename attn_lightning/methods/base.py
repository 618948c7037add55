"""The contract of a training method: a Lightning callback that injects an extra loss term."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import ClassVar

from lightning.pytorch import Callback
from torch import Tensor, nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_numbers
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm

HOOKS = ("loss", "example_weights", "attention", "task_loss", "frozen")
"""What `AttentionModule` asks a method for; a method defines at least one of them."""


class Differentiates(IntEnum):
    """What a method needs from autograd, in rising order of demand; checked before training starts."""

    NOTHING = 0
    SCORES = 1
    SCORES_TWICE = 2
    EMBEDDINGS = 3


class Method(Callback):
    """Base of every training method; `AttentionModule` asks the attached ones at every step.

    A method never calls `.backward()`, writes into `.grad`, holds trainable parameters or keeps tensors between steps,
    so that automatic optimisation, accumulation, clipping, mixed precision and DDP work untouched. One that freezes a
    part of the model for a phase says so by `frozen` and leaves `requires_grad` alone.

    Args:
        weight: lambda, the factor of the extra term, at least 0; with 0 the run is the baseline, exactly.

    Attributes:
        differentiates: what the method needs from autograd.
        encoder_passes: extra runs of the encoder per step beside the clean one (0 for score-level methods).
        semi_supervised: whether an unlabelled batch changes the term.
        requires_backbone: the class of models that the method is for.
        reads_word_table: whether it reads word vectors in another way than by looking words up.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.NOTHING
    encoder_passes: ClassVar[int] = 0
    semi_supervised: ClassVar[bool] = False
    requires_backbone: ClassVar[type[Backbone]] = Backbone
    reads_word_table: ClassVar[bool] = False

    def __init__(self, weight: float = 1.0) -> None:
        check_numbers(self, at_least=0, advice="0 switches the term off", weight=weight)
        self.weight = weight

    # The parts of `Scheduled` and `Combined` are what the checks are about, not the wrapper, which overrides every
    # hook.
    @property
    def inner(self) -> "Method":
        """The method that does the work: itself, unless it only wraps another one."""
        return self

    @property
    def models(self) -> Mapping[str, Path]:
        """Checkpoints of trained models that it begins from, by the option that names them: a part of what a run is."""
        return {}

    def loss(self, step: TrainStep) -> LossTerm | None:
        """The extra term of the objective, a mean over examples; None if the method adds none at this step."""
        return None

    def example_weights(self, step: TrainStep) -> Tensor | None:
        """(B,) factors of the per-example task losses; None leaves them alone."""
        return None

    def attention(self, step: TrainStep) -> Tensor | None:
        """(B, T) attention to train with at this step instead of the model's own; None leaves it alone."""
        return None

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) another task objective that replaces the cross-entropy; None leaves it alone."""
        return None

    def frozen(self, model: Backbone) -> Sequence[nn.Parameter]:
        """Parameters that stand still at this step, the same ones at all steps between two of the optimizer.

        They are constants of the step: no gradient is computed for them or below them, and the optimizer leaves them
        as they are, momentum and weight decay included.
        """
        return []


def leave_embeddings(methods: Iterable[Method]) -> bool:
    """Whether no method asks for gradients at the embeddings of the clean pass.

    A method from elsewhere counts as one that does: it may not have said so.
    """
    parts = [method.inner for method in methods]
    own = all(type(part).__module__.startswith("attn_lightning.") for part in parts)
    return own and all(part.differentiates < Differentiates.EMBEDDINGS for part in parts)
