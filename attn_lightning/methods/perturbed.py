"""One class per objective of the perturbation family: random, adversarial, virtual adversarial.

Where the noise goes and which way it may point are values of a class, not classes of their own: see
`attn_lightning.perturbation`. `attention_perturbation.py` and `word_perturbation.py` name the ten combinations that
have been published, each with its card.
"""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attn_lightning.checks import check_numbers
from attn_lightning.methods.base import Method
from attn_lightning.perturbation.directions import Directions, Projection
from attn_lightning.perturbation.objectives import (
    Trial,
    label_perturbation,
    label_trials,
    perturbation_term,
    random_perturbation,
    virtual_perturbation,
    virtual_trials,
)
from attn_lightning.perturbation.sites import Place
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm


class _Perturbed(Method):
    """Base of the family.

    Args:
        weight: lambda.
        epsilon: length of the noise.

    Attributes:
        place: where the noise goes.
        term: name of the loss term.
        directions: which way it may point: anywhere, where a subclass does not say otherwise.
    """

    place: ClassVar[Place]
    term: ClassVar[str]

    def __init__(self, weight: float = 1.0, epsilon: float = 0.5) -> None:
        super().__init__(weight)
        check_numbers(self, above=0, advice="set `weight` to 0 to switch the term off", epsilon=epsilon)
        self.epsilon = epsilon
        self.directions = Directions()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model that has no such directions."""
        model: Any = pl_module.backbone
        self.directions.check(model)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget directions that belong to old weights. A loop without Lightning's hooks calls it by hand."""
        self.directions.refresh()

    def loss(self, step: TrainStep) -> LossTerm:
        """The mean objective under noise, over the examples that the objective is for."""

        def perturb(trial: Trial) -> Tensor:
            return self._perturbation(trial, self.directions.projection(step.model, trial.site.output, trial.batch))

        return perturbation_term(self.term, self.weight, self._trials(step), perturb)

    def _trials(self, step: TrainStep) -> list[Trial]:
        """The examples, with what the noise should raise there."""
        return label_trials(step, self.place.site)

    def _perturbation(self, trial: Trial, projection: Projection) -> Tensor:
        """(B, T, ...) the constant noise of a trial."""
        raise NotImplementedError


class _RandomPerturbation(_Perturbed):
    """The task loss under random noise."""

    def _perturbation(self, trial: Trial, projection: Projection) -> Tensor:
        return random_perturbation(trial, self.epsilon, torch.randn_like(trial.site.noiseless))


class _AdversarialTraining(_Perturbed):
    """The task loss under the noise that raises it most, to first order."""

    def _perturbation(self, trial: Trial, projection: Projection) -> Tensor:
        return label_perturbation(trial, self.epsilon, projection)


class _VirtualAdversarialTraining(_Perturbed):
    """The change of the prediction under the noise that changes it most, to second order.

    Args:
        weight: lambda.
        epsilon: length of the noise.
        xi: length of the finite difference.
        num_power_iterations: K.
    """

    semi_supervised: ClassVar[bool] = True

    def __init__(
        self, weight: float = 1.0, epsilon: float = 0.5, xi: float = 0.1, num_power_iterations: int = 1
    ) -> None:
        super().__init__(weight, epsilon)
        check_numbers(self, above=0, xi=xi)
        # The random start alone is no adversary.
        check_numbers(self, at_least=1, advice="use RP for random noise", num_power_iterations=num_power_iterations)
        self.xi = xi
        self.num_power_iterations = num_power_iterations

    def _trials(self, step: TrainStep) -> list[Trial]:
        return virtual_trials(step, self.place.site)

    def _perturbation(self, trial: Trial, projection: Projection) -> Tensor:
        start = torch.randn_like(trial.site.noiseless)
        return virtual_perturbation(trial, self.epsilon, projection, start, self.xi, self.num_power_iterations)
