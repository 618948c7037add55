"""Adversarial and virtual adversarial training on attention scores: RP, AT, iAT, VAT and iVAT.

The objectives of `perturbed.py` with the scores as the place. One pass of the encoder per step serves all of them.
"""

from typing import ClassVar, get_args

from attn_lightning.checks import check_choice
from attn_lightning.methods.base import Differentiates
from attn_lightning.methods.perturbed import _AdversarialTraining, _RandomPerturbation, _VirtualAdversarialTraining
from attn_lightning.perturbation.directions import Normalization, ScoreDifferences
from attn_lightning.perturbation.sites import SCORES, Place


class AttentionRP(_RandomPerturbation):
    """Random perturbation of the attention scores: the control that adversarial training must beat.

    Objective:
        `L = L_task(s) + weight * mean_i L_task(s + r)`, `r = epsilon d / ||d||_2` with `d ~ N(0, I)` over the real
        tokens of an example; `r` is 0 at padding.

    Source:
        The random perturbation that Miyato et al. 2017 (https://arxiv.org/abs/1605.07725) compare with, moved from
        word embeddings to attention scores.

    Own choices:
        The noise has the length of the adversary's exactly, one norm per example.

    Cost:
        0 more passes of the encoder, 1 more of the head.

    Interactions:
        Unlabelled examples are ignored. The perturbed pass uses the model's own attention, also where another method
        replaces attention at this step. Draws random numbers, so a run with it is not comparable to one without it
        step by step.

    Args:
        weight: lambda, factor of the perturbed loss, 0 or more.
        epsilon: length of the noise in units of the scores, above 0.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES
    term: ClassVar[str] = "attention_rp"
    place: ClassVar[Place] = SCORES


class AttentionAT(_AdversarialTraining):
    """Adversarial training of the attention scores (Attention AT).

    Objective:
        `L = L_task(s) + weight * mean_i L_task(s + r)`, `r = epsilon g / ||g||_2` with `g = d L_task(s + r) / dr` at
        `r = 0`; one norm per example over its real tokens, `r` is 0 at padding and a constant of the loss.

    Source:
        Kitada and Iyatomi 2021, Attention Meets Perturbations (https://arxiv.org/abs/2009.12064), after Miyato et
        al. 2017 (https://arxiv.org/abs/1605.07725, equation 5).

    Own choices:
        The gradient comes from the head alone and leaves no trace in `.grad`: the released code backpropagates
        through the whole model for it, inside `forward`. The norm is exact however small the gradient is.

    Cost:
        0 more passes of the encoder, 2 more of the head and 1 more backward of the head.

    Interactions:
        Unlabelled examples are ignored. Class weights of the task loss apply. The perturbed pass uses the model's own
        attention, also where another method replaces attention at this step. Needs a normalizer that depends on the
        scores.

    Args:
        weight: lambda, factor of the adversarial loss, 0 or more.
        epsilon: length of the perturbation in units of the scores, above 0.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES
    term: ClassVar[str] = "attention_at"
    place: ClassVar[Place] = SCORES


class AttentionIAT(_AdversarialTraining):
    """Interpretable adversarial training of the attention scores (Attention iAT).

    Objective:
        `L = L_task(s) + weight * mean_i L_task(s + r(alpha))`, `r_t(alpha) = sum_k alpha_{t,k} d~_{t,k}` with the
        differences `d_{t,k} = s_k - s_t` of the sentence's scores, alpha along `d L_task / d alpha` and `r` scaled to
        length epsilon; one norm per example over its real tokens, `r` is 0 at padding and a constant of the loss.

    Source:
        Kitada and Iyatomi 2021, Attention Meets Perturbations (https://arxiv.org/abs/2009.12064), after the
        interpretable perturbations of words of Sato et al. 2018 (https://arxiv.org/abs/1805.02917).

    Own choices:
        `normalize`. "token" is the paper as printed, `d~_t = d_t / ||d_t||`, which is the same as Attention AT.
        "sentence" (the default) divides by the norm of all differences of the sentence, so that
        `r_t` is proportional to `g_t sum_k (s_t - s_k)^2`: it emphasises differences of attention, as intended.
        "released" is what the authors' code computes, `r = -epsilon g / ||g||`, and lowers the loss; for comparison.
        The T x T differences are never formed.

    Cost:
        0 more passes of the encoder, 2 more of the head and 1 more backward of the head.

    Interactions:
        Unlabelled examples are ignored. Class weights of the task loss apply. The perturbed pass uses the model's own
        attention, also where another method replaces attention at this step. Needs a normalizer that depends on the
        scores; where all scores of a text are exactly equal there is no difference to follow and `r` is 0.

    Args:
        weight: lambda, factor of the adversarial loss, 0 or more.
        epsilon: length of the perturbation in units of the scores, above 0.
        normalize: what the differences are divided by: sentence, token or released. A result must name it.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES
    term: ClassVar[str] = "attention_iat"
    place: ClassVar[Place] = SCORES

    def __init__(self, weight: float = 1.0, epsilon: float = 0.5, normalize: Normalization = "sentence") -> None:
        super().__init__(weight, epsilon)
        check_choice(self, choices=get_args(Normalization), normalize=normalize)
        self.normalize: Normalization = normalize
        self.directions = ScoreDifferences(normalize)


class AttentionVAT(_VirtualAdversarialTraining):
    """Virtual adversarial training of the attention scores (Attention VAT).

    Objective:
        `L = L_task(s) + weight * mean_i KL(sg(p(s)) || p(s + r))` over labelled and unlabelled examples.
        `r = epsilon d`; d starts as `N(0, I)` noise of length 1 and is replaced `num_power_iterations` times by
        `g / ||g||_2`, `g = d KL(sg(p(s)) || p(s + xi d)) / dd`; one norm per example over its real tokens, `r` is 0 at
        padding and a constant of the loss.

    Source:
        Kitada and Iyatomi 2021, Making Attention Mechanisms More Robust and Interpretable with Virtual Adversarial
        Training (https://arxiv.org/abs/2104.08763), after Miyato et al. 2019 (https://arxiv.org/abs/1704.03976,
        algorithm 1).

    Own choices:
        xi = 0.1 in float32: the gradient shrinks with xi, so the norm is exact however small it is; at xi = 1 the
        direction is off by curvature. The gradient comes from the head alone.

    Cost:
        0 more passes of the encoder, 1 + num_power_iterations more of the head and num_power_iterations more
        backwards of the head.

    Interactions:
        Uses unlabelled examples where the run has them. The perturbed pass uses the model's own attention, also where
        another method replaces attention at this step. Needs a normalizer that depends on the scores. Draws random
        numbers, so a run with it is not comparable to one without it step by step.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        epsilon: length of the perturbation in units of the scores, above 0.
        xi: length of the finite difference that finds the direction, above 0; below 0.1 rounding may win.
        num_power_iterations: K, rounds of the power method, 1 or more.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES
    term: ClassVar[str] = "attention_vat"
    place: ClassVar[Place] = SCORES


class AttentionIVAT(_VirtualAdversarialTraining):
    """Interpretable virtual adversarial training of the attention scores (Attention iVAT).

    Objective:
        `L = L_task(s) + weight * mean_i KL(sg(p(s)) || p(s + r(alpha)))` over labelled and unlabelled examples,
        `r_t(alpha) = sum_k alpha_{t,k} d~_{t,k}` with the differences `d_{t,k} = s_k - s_t` of the sentence's scores.
        alpha starts at random and is replaced `num_power_iterations` times by the direction of
        `d KL(sg(p(s)) || p(s + r(alpha))) / d alpha` taken where `||r|| = xi`; then `r` is scaled to length epsilon.
        One norm per example over its real tokens, `r` is 0 at padding and a constant of the loss.

    Source:
        Kitada and Iyatomi 2021, Making Attention Mechanisms More Robust and Interpretable with Virtual Adversarial
        Training (https://arxiv.org/abs/2104.08763); power method of Miyato et al. 2019
        (https://arxiv.org/abs/1704.03976, algorithm 1).

    Own choices:
        `normalize` as in AttentionIAT: "sentence" (the default) weights the gradient of a token by
        `sum_k (s_t - s_k)^2` in every round, which is the power method on the KL's curvature in alpha; "token", the
        paper as printed, is Attention VAT; "released" also turns the sign of the direction round at every round, which
        the divergence only notices beyond second order. alpha starts as the image of `N(0, I)` noise on the scores.
        Lengths are those of `r`, not of alpha, so that xi and epsilon mean the same for VAT and iVAT. xi = 0.1 in
        float32 as for VAT. The T x T differences are never formed.

    Cost:
        0 more passes of the encoder, 1 + num_power_iterations more of the head and num_power_iterations more
        backwards of the head.

    Interactions:
        Uses unlabelled examples where the run has them. The perturbed pass uses the model's own attention, also where
        another method replaces attention at this step. Needs a normalizer that depends on the scores; where all scores
        of a text are exactly equal there is no difference to follow and `r` is 0. Draws random numbers, so a run with
        it is not comparable to one without it step by step.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        epsilon: length of the perturbation in units of the scores, above 0.
        xi: length of the finite difference that finds the direction, above 0; below 0.1 rounding may win.
        num_power_iterations: K, rounds of the power method, 1 or more.
        normalize: what the differences are divided by: sentence, token or released. A result must name it.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.SCORES
    term: ClassVar[str] = "attention_ivat"
    place: ClassVar[Place] = SCORES

    def __init__(
        self,
        weight: float = 1.0,
        epsilon: float = 0.5,
        xi: float = 0.1,
        num_power_iterations: int = 1,
        normalize: Normalization = "sentence",
    ) -> None:
        super().__init__(weight, epsilon, xi, num_power_iterations)
        check_choice(self, choices=get_args(Normalization), normalize=normalize)
        self.normalize: Normalization = normalize
        self.directions = ScoreDifferences(normalize)
