"""The contract of a training method: a Lightning callback that injects an extra loss term."""

from enum import IntEnum
from typing import ClassVar

import torch
from lightning.pytorch import Callback
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm


class Differentiates(IntEnum):
    """What a method needs from autograd, in rising order of demand; checked before training starts."""

    NOTHING = 0
    SCORES = 1
    SCORES_TWICE = 2
    EMBEDDINGS = 3
    EMBEDDINGS_TWICE = 4


class Method(Callback):
    """Base of every training method; `AttentionModule` asks the attached ones at every step.

    A method never calls `.backward()`, writes into `.grad`, holds trainable parameters or keeps tensors between steps,
    so that automatic optimisation, accumulation, clipping, mixed precision and DDP work untouched. One that freezes a
    part of the model for a phase drops that part's gradients before the optimizer step, which DDP allows and
    `requires_grad` after its wrapping does not.

    Args:
        weight: lambda, the factor of the extra term, at least 0; with 0 the run is the baseline, exactly.

    Attributes:
        differentiates: what the method needs from autograd.
        encoder_passes: extra runs of the encoder per step beside the clean one (0 for score-level methods).
        semi_supervised: whether an unlabelled batch changes the term.
        requires_backbone: the class of models that the method is for.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.NOTHING
    encoder_passes: ClassVar[int] = 0
    semi_supervised: ClassVar[bool] = False
    requires_backbone: ClassVar[type[Backbone]] = Backbone

    def __init__(self, weight: float = 1.0) -> None:
        if not weight >= 0:
            raise ConfigurationError(
                f"Expected `weight` of {type(self).__name__} to be 0 or more, but got {weight}; "
                "use 0 to switch the term off."
            )
        self.weight = weight

    def loss(self, step: TrainStep) -> LossTerm | None:
        """The extra term of the objective, a mean over examples; None if the method adds none at this step."""
        return None

    def weights(self, step: TrainStep) -> Tensor | None:
        """(B,) factors of the per-example task losses; None leaves them alone."""
        return None

    def attention(self, step: TrainStep) -> Tensor | None:
        """(B, T) attention to train with at this step instead of the model's own; None leaves it alone."""
        return None

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) another task objective that replaces the cross-entropy; None leaves it alone."""
        return None


def check_requirements(method: Method, model: Backbone) -> None:
    """Refuse a method that the model cannot serve, before the first step.

    A normaliser says how often it can be differentiated with respect to the scores (`max_derivatives`): 0 for one
    that ignores them (uniform attention), 1 for one whose second derivative is wrong or NaN. A method that perturbs
    words needs none. A compiled model has no second derivative at all. A model without a `normalizer` attribute is
    taken to be smooth.

    Raises:
        ConfigurationError: naming the method, the part of the model that cannot serve it, and what to change.
    """
    if not isinstance(model, method.requires_backbone):
        wanted = method.requires_backbone.__name__
        raise ConfigurationError(
            f"Expected a {wanted} for {type(method).__name__}, but got a {type(model).__name__}; use "
            f"`--model.backbone={wanted}` or another method."
        )
    twice = method.differentiates in (Differentiates.SCORES_TWICE, Differentiates.EMBEDDINGS_TWICE)
    needed = 2 if twice else int(method.differentiates == Differentiates.SCORES)
    normalizer = getattr(model, "normalizer", None)
    possible = getattr(normalizer, "max_derivatives", 2)
    if needed > possible:
        raise ConfigurationError(
            f"Expected a normalizer that can be differentiated {needed} time(s) for {type(method).__name__}, but "
            f"{type(normalizer).__name__} allows {possible}; use `--model.backbone.normalizer=Softmax` or another "
            "method."
        )
    if twice and isinstance(model, torch._dynamo.OptimizedModule):
        raise ConfigurationError(
            f"Expected a model that is not compiled for {type(method).__name__}, which differentiates twice; "
            "remove `torch.compile`."
        )
