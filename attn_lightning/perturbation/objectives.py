"""The perturbation family of training: noise that a model must withstand, built from three independent choices.

The axes:

 - where: what the noise `r` is added to; a function `(model, output) -> Site`, see `sites.py`;
 - objective: what `r` should raise; `label_trials` (task loss) or `virtual_trials` (change of the prediction);
 - direction: which `r` of length epsilon does it; `random_perturbation`, `label_perturbation` or
   `virtual_perturbation`, the last two with a `Projection` for restricted noise, see `directions.py`.

A method of the family is one value on each axis; `perturbation_term` turns the three into the loss term. Every
direction is a constant of the loss (`r` is detached), and none is differentiated below the place of its noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision, kl_divergence
from attn_lightning.perturbation.directions import Projection, gradient_at, slope, unit_noise
from attn_lightning.perturbation.sites import Site, Where
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch, LossTerm

AdversarialObjective = Callable[[Tensor], Tensor]
"""What a perturbation should raise: (B, C) logits to (B,)."""


@dataclass(frozen=True)
class Trial:
    """A site together with what the perturbation should raise there.

    Attributes:
        site: of the clean pass.
        objective: to raise.
        batch: the examples.
    """

    site: Site
    objective: AdversarialObjective
    batch: Batch


def label_trials(step: TrainStep, where: Where) -> list[Trial]:
    """The adversarial objective `L_task(r)` on the labelled examples."""
    # Without the unlabelled batch: this objective needs a label to lead away from.
    labels = step.batch.labels
    return [Trial(where(step.model, step.output), lambda logits: step.task_loss(logits, labels), step.batch)]


def virtual_trials(step: TrainStep, where: Where) -> list[Trial]:
    """The virtual objective `KL(sg(p) || p(r))` on the labelled and, where there are any, the unlabelled examples."""
    passes = ((step.batch, step.output), (step.unlabeled, step.unlabeled_output))
    return [
        Trial(where(step.model, output), divergence_from(output.logits), batch)
        for batch, output in passes
        if batch is not None and output is not None
    ]


def divergence_from(clean_logits: Tensor) -> AdversarialObjective:
    """`logits -> KL(sg(p) || softmax(logits))` per example, in nats.

    Args:
        clean_logits: (B, C) of `p`; a constant, as the clean prediction is the target.

    Returns:
        A function from (B, C) to (B,). Value and gradient are 0 at the clean logits.
    """
    # Detached, `sg(p)`: else the clean prediction would move towards the perturbed one, and agree by being flat.
    log_p = clean_logits.detach().log_softmax(-1)
    return lambda logits: kl_divergence(log_p=log_p, log_q=logits.log_softmax(-1))


def random_perturbation(trial: Trial, epsilon: float, start: Tensor) -> Tensor:
    """`r = epsilon d / ||d||`: random noise of the length that an adversary has.

    Args:
        trial: what is perturbed.
        epsilon: length of `r`.
        start: (B, T, ...) draws `d ~ N(0, I)`.

    Returns:
        (B, T, ...) `r`.
    """
    return epsilon * unit_noise(start, trial.site.room)


def label_perturbation(trial: Trial, epsilon: float, projection: Projection) -> Tensor:
    """`r = epsilon M g / ||M g||` with `g = d objective / dr` at `r = 0`: the first-order worst case.

    Args:
        trial: what is perturbed and to raise what.
        epsilon: length of `r`, one norm per example over its real tokens.
        projection: the map M; the identity for adversarial training (Miyato et al. 2017, equation 5).

    Returns:
        (B, T, ...) `r`, without graph; 0 at padding and in rows whose gradient is exactly 0.
    """
    return epsilon * unit_noise(projection(_noiseless_gradient(trial)), trial.site.room)


def virtual_perturbation(
    trial: Trial, epsilon: float, projection: Projection, start: Tensor, xi: float, num_power_iterations: int
) -> Tensor:
    """`r = epsilon d` with d after K rounds of `g = d objective / dr` at `r = xi d`, `d <- M g / ||M g||`.

    As the gradient of the KL vanishes at 0, `g` is `xi H d` up to higher orders with its Hessian H: the rounds are the
    power method for the dominant eigenvector of `M H` (Miyato et al. 2019, algorithm 1, where M is the identity).

    Args:
        trial: what is perturbed and to raise what.
        epsilon: length of `r`, one norm per example over its real tokens.
        projection: the map M.
        start: (B, T, ...) draws `d ~ N(0, I)`; the first d is `M start` at unit length.
        xi: length of the finite difference. The direction is scaled to length 1 exactly however small `g` is.
        num_power_iterations: K.

    Returns:
        (B, T, ...) `r`, without graph; 0 at padding and in rows whose gradient is exactly 0.
    """
    room = trial.site.room
    # Restricted before the first round too, so that no iterate leaves what the noise may be.
    direction = unit_noise(projection(start), room)
    for _ in range(num_power_iterations):
        # Only the direction is kept: the length of the gradient goes with xi and the curvature, which epsilon replaces.
        direction = unit_noise(projection(_gradient(trial, xi * direction)), room)
    return epsilon * direction


def _gradient(trial: Trial, noise: Tensor) -> Tensor:
    return _required(gradient_at(trial.site, trial.objective, noise)[1])


def _noiseless_gradient(trial: Trial) -> Tensor:
    """(B, T, ...) `g` at `r = 0`, from the clean pass where the site offers that: it saves a pass."""
    site = trial.site
    if site.place is None:
        return _gradient(trial, site.noiseless)
    # The graph of the clean pass is kept, as the backward pass of the whole loss needs it once more.
    found = slope(trial.objective(site.output.logits), site.place, retain_graph=True)
    return at_least_float32(_required(found))


def _required(gradient: Tensor | None) -> Tensor:
    """An adversary without a gradient would be no adversary, and nobody would notice."""
    if gradient is None:
        raise ConfigurationError(
            "Expected the logits of the model to depend on what is perturbed, but they do not; use a normalizer that "
            "depends on the scores, or a method that perturbs words."
        )
    return gradient


def perturbation_term(
    name: str, weight: float, trials: Sequence[Trial], perturb: Callable[[Trial], Tensor]
) -> LossTerm:
    """Mean objective over the examples of all trials, each at its own perturbation.

    Args:
        name: of the term.
        weight: lambda.
        trials: labelled and possibly unlabelled examples.
        perturb: finds the constant `r` of a trial.

    Returns:
        The term; logs `radius`, the mean length reached by `r`, and `flips`, the share of examples whose predicted
        class changes under it.
    """
    values, radii, flips = [], [], []
    for trial in trials:
        output = trial.site.output
        with full_precision(output.scores.device.type):
            # Found first and constant from here on: the loss is differentiated at the noise, never through its search.
            noise = perturb(trial)
            logits = trial.site.rerun(noise).logits
            values.append(trial.objective(logits))
        radii.append(noise.flatten(1).norm(dim=1))
        flips.append(logits.detach().argmax(-1) != output.logits.argmax(-1))
    # A radius below epsilon tells of rows without any gradient; no flips at all, of an epsilon that is too small.
    logs = {"radius": torch.cat(radii).mean(), "flips": torch.cat(flips).to(noise.dtype).mean()}
    return LossTerm(name, torch.cat(values).mean(), weight, logs)
