"""The perturbation family: noise that training must withstand, built from three independent choices.

The axes:

 - where: what the noise `r` is added to; a function `(model, output) -> Site`: `perturb_scores`, `perturb_embeddings`;
 - objective: the harm that `r` should do; `label_trials` (task loss) or `virtual_trials` (change of the prediction);
 - direction: which `r` of length epsilon does it; `random_perturbation`, `label_perturbation` or
   `virtual_perturbation`, the last two with a `Steer` for restricted noise.

A method of the family is one value on each axis; `perturbation_term` turns the three into the loss term. Shapes: `r`
has the shape of what it is added to, (B, T) for scores or (B, T, E) for embeddings, written (B, T, ...) below.

Every direction is a constant of the loss (`r` is detached), and none is differentiated below the place of its noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attn_lightning.backbone.freezing import constant
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.numerics import at_least_float32, full_precision, kl_divergence, unit_vectors
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput, Batch, LossTerm

Harm = Callable[[Tensor], Tensor]
"""What a perturbation should raise: (B, C) logits to (B,)."""

Steer = Callable[[Tensor], Tensor]
"""A map of gradients (B, T, ...) for noise restricted to `r = J alpha`, such as `J Jᵀ`: see `toward_differences`."""

Normalization = Literal["sentence", "token", "released"]


@dataclass(frozen=True)
class Site:
    """A place of one clean pass where noise can be added.

    Attributes:
        output: the clean pass.
        noiseless: `r = 0`, zeros of the shape (B, T, ...) of what is perturbed.
        rerun: `r -> (B, C)` logits with the graph of the model, for the loss.
        probe: the same numbers with a graph to `r` only, for directions; never reaches below the place.
        place: what the noise is added to, as it stands in the graph of the clean pass, if the gradient at `r = 0` is to
            be taken from that graph; None leaves it to a probe.
    """

    output: AttentionOutput
    noiseless: Tensor
    rerun: Callable[[Tensor], Tensor]
    probe: Callable[[Tensor], Tensor]
    place: Tensor | None = None


Where = Callable[[Backbone, AttentionOutput], Site]


@dataclass(frozen=True)
class Trial:
    """A site together with the harm that the perturbation should do there.

    Attributes:
        site: of the clean pass.
        harm: to raise.
        batch: the examples; None only where the direction does not ask for their words.
    """

    site: Site
    harm: Harm
    batch: Batch | None = None


def perturb_scores(model: Backbone, output: AttentionOutput) -> Site:
    """The attention scores as a `Site`: `s + r` goes through `attend` only, the encoder is not run again.

    Args:
        model: the backbone.
        output: its clean pass; half-precision scores and states become float32.

    Returns:
        A site whose noise has shape (B, T).
    """
    hidden, scores, mask = at_least_float32(output.hidden), at_least_float32(output.scores), output.mask
    fixed_hidden, fixed_scores = hidden.detach(), scores.detach()
    return Site(
        output=output,
        noiseless=torch.zeros_like(fixed_scores),
        rerun=lambda noise: model.attend(hidden, scores + noise, mask).logits,
        probe=lambda noise: model.attend(fixed_hidden, fixed_scores + noise, mask).logits,
    )


def perturb_embeddings(model: Backbone, output: AttentionOutput) -> Site:
    """The word vectors as a `Site`: `e + r` goes through the whole model, so each call runs the encoder again.

    Args:
        model: the backbone.
        output: its clean pass, with `embeddings`; half-precision ones become float32.

    Returns:
        A site whose noise has shape (B, T, E). Gradients at `r = 0` come from the clean pass, unless the word vectors
        are frozen: then it has none to give.
    """
    assert output.embeddings is not None, "a clean pass has them"
    place, mask = output.embeddings, output.mask
    embeddings = at_least_float32(place)
    fixed = embeddings.detach()

    def logits(perturbed: Tensor) -> Tensor:
        hidden = at_least_float32(model.encode(perturbed, mask))
        return model.attend(hidden, model.score(hidden, mask), mask).logits

    def probe(noise: Tensor) -> Tensor:
        with constant(model.parameters()):
            return logits(fixed + noise)

    return Site(
        output=output,
        noiseless=torch.zeros_like(fixed),
        rerun=lambda noise: logits(embeddings + noise),
        probe=probe,
        place=place if place.requires_grad else None,
    )


def label_trials(step: TrainStep, where: Where) -> list[Trial]:
    """The adversarial objective `L_task(r)` on the labelled examples."""
    labels = step.batch.labels
    return [Trial(where(step.model, step.output), lambda logits: step.task_loss(logits, labels), step.batch)]


def virtual_trials(step: TrainStep, where: Where) -> list[Trial]:
    """The virtual objective `KL(sg(p) || p(r))` on the labelled and, where there are any, the unlabelled examples."""
    passes = ((step.batch, step.output), (step.unlabeled, step.unlabeled_output))
    return [
        Trial(where(step.model, output), divergence_from(output.logits), batch)
        for batch, output in passes
        if output is not None
    ]


def divergence_from(clean_logits: Tensor) -> Harm:
    """`logits -> KL(sg(p) || softmax(logits))` per example, in nats.

    Args:
        clean_logits: (B, C) of `p`; a constant, as the clean prediction is the target.

    Returns:
        A function from (B, C) to (B,). Value and gradient are 0 at the clean logits.
    """
    log_p = clean_logits.detach().log_softmax(-1)
    return lambda logits: kl_divergence(log_p=log_p, log_q=logits.log_softmax(-1))


def harm_gradient(trial: Trial, noise: Tensor) -> Tensor:
    """`g = d harm(r) / dr` at `r = noise`.

    Args:
        trial: what is perturbed and for what harm.
        noise: (B, T, ...), a constant.

    Returns:
        (B, T, ...). The harms are summed over the batch, so that a row does not depend on the others or on B.
    """
    noise = noise.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(trial.harm(trial.site.probe(noise)).sum(), noise)
    return gradient


def noiseless_gradient(trial: Trial) -> Tensor:
    """`g = d harm(r) / dr` at `r = 0`, from the clean pass where the site offers that.

    Args:
        trial: what is perturbed and for what harm.

    Returns:
        (B, T, ...), see `harm_gradient`.
    """
    site = trial.site
    if site.place is None:
        return harm_gradient(trial, site.noiseless)
    harm = trial.harm(site.output.logits).sum()
    (gradient,) = torch.autograd.grad(harm, site.place, retain_graph=True)
    return at_least_float32(gradient)


def unit_noise(noise: Tensor, mask: Tensor) -> Tensor:
    """Noise of length 1 per example over its real tokens.

    Args:
        noise: (B, T, ...) with at least one entry per row that is not 0; values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        (B, T, ...), 0 at padding; a row of zeros stays zero, as it has no direction.
    """
    inside = mask.reshape(mask.shape + (1,) * (noise.dim() - mask.dim()))
    return unit_vectors(torch.where(inside, noise, 0.0))


def random_perturbation(trial: Trial, epsilon: float, start: Tensor) -> Tensor:
    """`r = epsilon d / ||d||`: random noise of the length that an adversary has.

    Args:
        trial: what is perturbed.
        epsilon: length of `r`.
        start: (B, T, ...) draws `d ~ N(0, I)`.

    Returns:
        (B, T, ...) `r`.
    """
    return epsilon * unit_noise(start, trial.site.output.mask)


def label_perturbation(trial: Trial, epsilon: float, steer: Steer) -> Tensor:
    """`r = epsilon M g / ||M g||` with `g = d harm / dr` at `r = 0`: the first-order worst case.

    Args:
        trial: what is perturbed and for what harm.
        epsilon: length of `r`, one norm per example over its real tokens.
        steer: the map M; the identity for adversarial training (Miyato et al. 2017, equation 5).

    Returns:
        (B, T, ...) `r`, without graph; 0 at padding and in rows whose gradient is exactly 0.
    """
    return epsilon * unit_noise(steer(noiseless_gradient(trial)), trial.site.output.mask)


def virtual_perturbation(
    trial: Trial, epsilon: float, steer: Steer, start: Tensor, xi: float, num_power_iterations: int
) -> Tensor:
    """`r = epsilon d` with d after K rounds of `g = d harm / dr` at `r = xi d`, `d <- M g / ||M g||`.

    As the gradient of the KL vanishes at 0, `g` is `xi H d` up to higher orders with its Hessian H: the rounds are the
    power method for the dominant eigenvector of `M H` (Miyato et al. 2019, algorithm 1, where M is the identity).

    Args:
        trial: what is perturbed and for what harm.
        epsilon: length of `r`, one norm per example over its real tokens.
        steer: the map M.
        start: (B, T, ...) draws `d ~ N(0, I)`; the first d is `M start` at unit length.
        xi: length of the finite difference. The direction is scaled to length 1 exactly however small `g` is.
        num_power_iterations: K.

    Returns:
        (B, T, ...) `r`, without graph; 0 at padding and in rows whose gradient is exactly 0.
    """
    mask = trial.site.output.mask
    direction = unit_noise(steer(start), mask)
    for _ in range(num_power_iterations):
        direction = unit_noise(steer(harm_gradient(trial, xi * direction)), mask)
    return epsilon * direction


def unsteered(gradient: Tensor) -> Tensor:
    """The identity: noise in any direction."""
    return gradient


def toward_differences(scores: Tensor, mask: Tensor, normalize: Normalization) -> Steer:
    """Noise restricted to differences of attention scores within a sentence: interpretable perturbations.

    `r_t(alpha) = sum_k alpha_{t,k} d~_{t,k}` with `d_{t,k} = s_k - s_t` over real tokens, and alpha is chosen
    instead of `r`. As `d harm / d alpha_{t,k} = g_t d~_{t,k}`, following it gives `r_t` proportional to `w_t g_t` with
    `w_t = sum_k d~_{t,k}^2`, so the T x T differences are never formed:

     - `sentence`, `d~ = d / ||d||_F`: `w_t` is proportional to `sum_k (s_t - s_k)^2 = n ((s_t - mean)^2 + variance)`,
       that is to `1 + z_t^2` with the standard score z: up to n times more noise at tokens that stand out.
     - `token`, `d~_t = d_t / ||d_t||`: `w_t = 1`, the identity.
     - `released`: `w_t = -1`, as in the authors' code.

    Args:
        scores: (B, T), detached; values at padding are ignored.
        mask: (B, T) bool.
        normalize: see above.

    Returns:
        The map `g -> w g`. All zeros in a row of exactly equal scores under `sentence`.
    """
    if normalize == "sentence":
        weights = squared_differences(scores, mask)
        return lambda gradient: weights * gradient
    return unsteered if normalize == "token" else torch.neg


def squared_differences(scores: Tensor, mask: Tensor) -> Tensor:
    """`sum_k (s_t - s_k)^2 / n` over the n real tokens, as `(s_t - mean)^2 + variance` in O(T).

    Args:
        scores: (B, T); values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        (B, T), at least 0; meaningless at padding.
    """
    inside = mask.to(scores.dtype)
    shares = inside / inside.sum(-1, keepdim=True)
    deviations = scores - (shares * scores).sum(-1, keepdim=True)
    squares = deviations.square()
    return squares + (shares * squares).sum(-1, keepdim=True)


def perturbation_term(
    name: str, weight: float, trials: Sequence[Trial], perturb: Callable[[Trial], Tensor]
) -> LossTerm:
    """Mean harm over the examples of all trials, each at its own perturbation.

    Args:
        name: of the term.
        weight: lambda.
        trials: labelled and possibly unlabelled examples.
        perturb: finds the constant `r` of a trial.

    Returns:
        The term; logs `radius`, the mean length reached by `r`, and `flips`, the share of examples whose predicted
        class changes under it.
    """
    harms, radii, flips = [], [], []
    for trial in trials:
        output = trial.site.output
        with full_precision(output.scores.device.type):
            noise = perturb(trial)
            logits = trial.site.rerun(noise)
            harms.append(trial.harm(logits))
        radii.append(noise.flatten(1).norm(dim=1))
        flips.append(logits.detach().argmax(-1) != output.logits.argmax(-1))
    logs = {"radius": torch.cat(radii).mean(), "flips": torch.cat(flips).to(noise.dtype).mean()}
    return LossTerm(name, torch.cat(harms).mean(), weight, logs)


def check_positive(owner: object, **values: float) -> None:
    """Raise `ConfigurationError` unless every named value is above 0 and finite."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ConfigurationError(
                f"Expected `{name}` of {type(owner).__name__} to be a number above 0, but got {value}; "
                "set `weight` to 0 to switch the term off."
            )


def check_power_iterations(owner: object, num_power_iterations: int) -> None:
    """Raise `ConfigurationError` unless there is at least one round: the random start alone is no adversary."""
    if num_power_iterations < 1:
        raise ConfigurationError(
            f"Expected `num_power_iterations` of {type(owner).__name__} to be 1 or more, but got "
            f"{num_power_iterations}; use the random perturbation (RP) for noise without an adversary."
        )


def check_normalization(owner: object, normalize: str) -> None:
    """Raise `ConfigurationError` unless the name is one of `Normalization`."""
    if normalize not in get_args(Normalization):
        raise ConfigurationError(
            f"Expected `normalize` of {type(owner).__name__} to be one of {', '.join(get_args(Normalization))}, "
            f"but got {normalize!r}; use sentence for the variant that emphasises differences of attention."
        )
