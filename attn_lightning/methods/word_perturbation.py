"""Adversarial and virtual adversarial training on word embeddings: RP, AT, iAT, VAT and iVAT.

The design of `perturbation.py` with the word vectors as the place: everything but the place and the directions to
neighboring words is shared with the attention scores. The price of the place is the encoder, which runs again.
"""

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Differentiates, Method
from attn_lightning.perturbation.neighbors import NeighborCache, toward_neighbors, word_table
from attn_lightning.perturbation.objectives import (
    Steer,
    Trial,
    check_positive,
    check_power_iterations,
    label_perturbation,
    label_trials,
    perturb_embeddings,
    perturbation_term,
    random_perturbation,
    unsteered,
    virtual_perturbation,
    virtual_trials,
)
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm


class WordRP(Method):
    """Random perturbation of the word embeddings: the control that adversarial training must beat.

    Objective:
        `L = L_task(e) + weight * mean_i L_task(e + r)`, `r = epsilon d / ||d||_2` with `d ~ N(0, I)` over the word
        vectors of an example, one norm for all its words; `r` is 0 at padding.

    Source:
        Miyato et al. 2017 (https://arxiv.org/abs/1605.07725), the random perturbation they compare with.

    Own choices:
        The noise has the length of the adversary's exactly. Word vectors are perturbed as they are, not normalized
        over the vocabulary as in the source.

    Cost:
        1 more pass of the encoder, forward and backward.

    Interactions:
        Unlabelled examples are ignored. The perturbed pass runs in float32, also under autocast, draws its own dropout
        of the encoder, and uses the model's own attention, also where another method replaces attention at this step.
        Works with every normalizer. Draws random numbers, so a run with it is not comparable to one without it step by
        step.

    Args:
        weight: lambda, factor of the perturbed loss, 0 or more.
        epsilon: length of the noise of a text in units of the word vectors, above 0.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.EMBEDDINGS
    encoder_passes: ClassVar[int] = 1

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0) -> None:
        super().__init__(weight)
        check_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def loss(self, step: TrainStep) -> LossTerm:
        """The task loss under random noise."""
        return perturbation_term("word_rp", self.weight, label_trials(step, perturb_embeddings), self._perturb)

    def _perturb(self, trial: Trial) -> Tensor:
        return random_perturbation(trial, self.epsilon, torch.randn_like(trial.site.noiseless))


class WordAT(Method):
    """Adversarial training of the word embeddings (Word AT).

    Objective:
        `L = L_task(e) + weight * mean_i L_task(e + r)`, `r = epsilon g / ||g||_2` with `g = d L_task(e + r) / dr` at
        `r = 0`; one norm for all words of an example, `r` is 0 at padding and a constant of the loss.

    Source:
        Miyato et al. 2017, Adversarial Training Methods for Semi-Supervised Text Classification
        (https://arxiv.org/abs/1605.07725, equation 5), with epsilon = 5 for IMDB.

    Own choices:
        The default epsilon is chosen on SST (`experiments/method/word_at.yaml`); 5 ends there at the majority rate.
        `g` is taken from the graph of the clean pass, which saves a pass of the encoder. The norm is exact however
        small the gradient is. Word vectors are perturbed as they are, not normalized over the vocabulary as in the
        source, so an epsilon belongs to the scale of the vectors.

    Cost:
        1 more pass of the encoder, forward and backward, and 1 more backward through the clean pass. With frozen word
        vectors the clean pass has no gradient to give, and 1 more forward pass is needed.

    Interactions:
        Unlabelled examples are ignored. Class weights of the task loss apply. The perturbed pass runs in float32, also
        under autocast, draws its own dropout of the encoder, and uses the model's own attention, also where another
        method replaces attention at this step (`g` is then that of the replaced one). Works with every normalizer.

    Args:
        weight: lambda, factor of the adversarial loss, 0 or more.
        epsilon: length of the perturbation of a text in units of the word vectors, above 0.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.EMBEDDINGS
    encoder_passes: ClassVar[int] = 1

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0) -> None:
        super().__init__(weight)
        check_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def loss(self, step: TrainStep) -> LossTerm:
        """The task loss at the worst word vectors within epsilon, to first order."""
        return perturbation_term("word_at", self.weight, label_trials(step, perturb_embeddings), self._perturb)

    def _perturb(self, trial: Trial) -> Tensor:
        return label_perturbation(trial, self.epsilon, unsteered)


class WordVAT(Method):
    """Virtual adversarial training of the word embeddings (Word VAT).

    Objective:
        `L = L_task(e) + weight * mean_i KL(sg(p(e)) || p(e + r))` over labelled and unlabelled examples.
        `r = epsilon d`; d starts as `N(0, I)` noise of length 1 and is replaced `num_power_iterations` times by
        `g / ||g||_2`, `g = d KL(sg(p(e)) || p(e + xi d)) / dd`; one norm for all words of an example, `r` is 0 at
        padding and a constant of the loss.

    Source:
        Miyato et al. 2017 (https://arxiv.org/abs/1605.07725, equations 6 and 7, with epsilon = 5 for IMDB) and 2019
        (https://arxiv.org/abs/1704.03976, algorithm 1).

    Own choices:
        The default epsilon is chosen on SST (`experiments/method/word_vat.yaml`).
        xi = 0.1 in float32: the gradient shrinks with xi, so the norm is exact however small it is. Word vectors are
        perturbed as they are, not normalized over the vocabulary as in the source, so epsilon and xi belong to their
        scale.

    Cost:
        1 + num_power_iterations more passes of the encoder, forward and backward.

    Interactions:
        Uses unlabelled examples where the run has them; labelled and unlabelled ones take passes of their own. The
        perturbed passes run in float32, also under autocast, where the clean prediction they are compared with has the
        rounding of the encoder in half precision: train in float32 if the device has the time. They draw their own
        dropout of the encoder, which is then part of the divergence, and use the model's own attention, also where
        another method replaces attention at this step. Works with every normalizer. Draws random numbers, so a run with
        it is not comparable to one without it step by step.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        epsilon: length of the perturbation of a text in units of the word vectors, above 0.
        xi: length of the finite difference that finds the direction, above 0; below 0.1 rounding may win.
        num_power_iterations: K, rounds of the power method, 1 or more.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.EMBEDDINGS
    encoder_passes: ClassVar[int] = 2
    semi_supervised: ClassVar[bool] = True

    def __init__(
        self, weight: float = 1.0, epsilon: float = 1.0, xi: float = 0.1, num_power_iterations: int = 1
    ) -> None:
        super().__init__(weight)
        check_positive(self, epsilon=epsilon, xi=xi)
        check_power_iterations(self, num_power_iterations)
        self.epsilon = epsilon
        self.xi = xi
        self.num_power_iterations = num_power_iterations

    def loss(self, step: TrainStep) -> LossTerm:
        """The change of the prediction at the word vectors within epsilon that change it most, to second order."""
        return perturbation_term("word_vat", self.weight, virtual_trials(step, perturb_embeddings), self._perturb)

    def _perturb(self, trial: Trial) -> Tensor:
        start = torch.randn_like(trial.site.noiseless)
        return virtual_perturbation(trial, self.epsilon, unsteered, start, self.xi, self.num_power_iterations)


class _TowardNeighbors(Method):
    """Base of the interpretable word methods: the neighbors of words, found anew in every epoch.

    What is kept from step to step are ids of words, not tensors of the model: they stay out of checkpoints and pickles
    and are searched for again after a resume.
    """

    def __init__(self, weight: float, num_neighbors: int) -> None:
        super().__init__(weight)
        if num_neighbors < 1:
            raise ConfigurationError(
                f"Expected `num_neighbors` of {type(self).__name__} to be 1 or more, but got {num_neighbors}; "
                "10 is the published number."
            )
        self.num_neighbors = num_neighbors
        self._neighbors: NeighborCache | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_neighbors": None}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model without word vectors."""
        word_table(pl_module.backbone)  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the neighbors: word vectors have moved. A loop without Lightning's hooks calls it by hand."""
        self._neighbors = None

    def _steer(self, trial: Trial, step: TrainStep) -> Steer:
        assert trial.batch is not None
        with torch.no_grad():
            table = word_table(step.model)
            if self._neighbors is None or not self._neighbors.fits(table):
                self._neighbors = NeighborCache(table, self.num_neighbors)
            words, mask = trial.batch.tokens, trial.batch.mask
            neighbors = self._neighbors.look_up(words[mask], table)
        return toward_neighbors(words, mask, neighbors, table)


class WordIAT(_TowardNeighbors):
    """Interpretable adversarial training of the word embeddings (Word iAT).

    Objective:
        `L = L_task(e) + weight * mean_i L_task(e + r(alpha))`, `r_t(alpha) = sum_k alpha_{t,k} d_{t,k}` with the unit
        vectors `d_{t,k}` from a word to its k nearest words; `alpha_t = g_alpha,t / ||g_alpha,t||_2` per word with
        `g_alpha = d L_task / d alpha` at 0, and `r` scaled to length epsilon. One norm for all words of an example, `r`
        is 0 at padding and a constant of the loss.

    Source:
        Sato et al. 2018, Interpretable Adversarial Perturbation in Input Embedding Space for Text
        (https://arxiv.org/abs/1805.02917), with epsilon = 15 for IMDB in Kitada and Iyatomi 2021
        (https://arxiv.org/abs/2009.12064).

    Own choices:
        The default epsilon is chosen on SST (`experiments/method/word_iat.yaml`).
        Neighbors by cosine among the words of the vocabulary, without padding and `<unk>`. Each word's are searched for
        when it first occurs in an epoch, in the word vectors of that moment, not for the whole vocabulary at once.
        `g` is taken from the graph of the clean pass, which saves a pass of the encoder.

    Cost:
        1 more pass of the encoder, forward and backward, and 1 more backward through the clean pass (1 more forward
        with frozen word vectors). Per epoch `2 V^2 E` operations at most for the neighbors, in chunks: memory is
        independent of V but for k ids per word. Per step num_neighbors vectors per token.

    Interactions:
        Unlabelled examples are ignored. Class weights of the task loss apply. The perturbed pass runs in float32, also
        under autocast, draws its own dropout of the encoder, and uses the model's own attention, also where another
        method replaces attention at this step (`g` is then that of the replaced one). Works with every normalizer.
        Under DDP every process searches for the words of its own batches. Needs a model with an `nn.Embedding`.

    Args:
        weight: lambda, factor of the adversarial loss, 0 or more.
        epsilon: length of the perturbation of a text in units of the word vectors, above 0.
        num_neighbors: k, nearest words per word, 1 or more; a smaller vocabulary gives all it has.

    Raises:
        ConfigurationError: an argument is out of its range, or the model has no word vectors.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.EMBEDDINGS
    encoder_passes: ClassVar[int] = 1

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0, num_neighbors: int = 10) -> None:
        super().__init__(weight, num_neighbors)
        check_positive(self, epsilon=epsilon)
        self.epsilon = epsilon

    def loss(self, step: TrainStep) -> LossTerm:
        """The task loss at words moved toward their neighbors."""

        def perturb(trial: Trial) -> Tensor:
            return label_perturbation(trial, self.epsilon, self._steer(trial, step))

        return perturbation_term("word_iat", self.weight, label_trials(step, perturb_embeddings), perturb)


class WordIVAT(_TowardNeighbors):
    """Interpretable virtual adversarial training of the word embeddings (Word iVAT).

    Objective:
        `L = L_task(e) + weight * mean_i KL(sg(p(e)) || p(e + r(alpha)))` over labelled and unlabelled examples,
        `r_t(alpha) = sum_k alpha_{t,k} d_{t,k}` with the unit vectors `d_{t,k}` from a word to its k nearest words.
        alpha starts at random and is replaced `num_power_iterations` times by
        `alpha_t = g_alpha,t / ||g_alpha,t||_2` per word with `g_alpha = d KL(sg(p(e)) || p(e + r(alpha))) / d alpha`
        taken where `||r|| = xi`; then `r` is scaled to length epsilon. One norm for all words of an example, `r` is 0
        at padding and a constant of the loss.

    Source:
        Sato et al. 2018 (https://arxiv.org/abs/1805.02917) for the directions; Kitada and Iyatomi 2021
        (https://arxiv.org/abs/2104.08763), epsilon = 15 for IMDB; power method of Miyato et al. 2019
        (https://arxiv.org/abs/1704.03976, algorithm 1).

    Own choices:
        The default epsilon is chosen on SST (`experiments/method/word_ivat.yaml`).
        Neighbors as in WordIAT. alpha starts as the image of `N(0, I)` noise on the word vectors. Lengths are those of
        `r`, not of alpha, so that xi and epsilon mean the same for VAT and iVAT. xi = 0.1 in float32 as for VAT.

    Cost:
        1 + num_power_iterations more passes of the encoder, forward and backward. Per epoch `2 V^2 E` operations at
        most for the neighbors, in chunks: memory is independent of V but for k ids per word. Per step num_neighbors
        vectors per token.

    Interactions:
        Uses unlabelled examples where the run has them; labelled and unlabelled ones take passes of their own. The
        perturbed passes run in float32, also under autocast, where the clean prediction they are compared with has the
        rounding of the encoder in half precision: train in float32 if the device has the time. They draw their own
        dropout of the encoder, which is then part of the divergence, and use the model's own attention, also where
        another method replaces attention at this step. Works with every normalizer. Under DDP every process searches
        for the words of its own batches. Needs a model with an `nn.Embedding`. Draws random numbers, so a run with it
        is not comparable to one without it step by step.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        epsilon: length of the perturbation of a text in units of the word vectors, above 0.
        xi: length of the finite difference that finds the direction, above 0; below 0.1 rounding may win.
        num_power_iterations: K, rounds of the power method, 1 or more.
        num_neighbors: k, nearest words per word, 1 or more; a smaller vocabulary gives all it has.

    Raises:
        ConfigurationError: an argument is out of its range, or the model has no word vectors.
    """

    differentiates: ClassVar[Differentiates] = Differentiates.EMBEDDINGS
    encoder_passes: ClassVar[int] = 2
    semi_supervised: ClassVar[bool] = True

    def __init__(
        self,
        weight: float = 1.0,
        epsilon: float = 1.0,
        xi: float = 0.1,
        num_power_iterations: int = 1,
        num_neighbors: int = 10,
    ) -> None:
        super().__init__(weight, num_neighbors)
        check_positive(self, epsilon=epsilon, xi=xi)
        check_power_iterations(self, num_power_iterations)
        self.epsilon = epsilon
        self.xi = xi
        self.num_power_iterations = num_power_iterations

    def loss(self, step: TrainStep) -> LossTerm:
        """The change of the prediction at words moved toward their neighbors."""

        def perturb(trial: Trial) -> Tensor:
            start, steer = torch.randn_like(trial.site.noiseless), self._steer(trial, step)
            return virtual_perturbation(trial, self.epsilon, steer, start, self.xi, self.num_power_iterations)

        return perturbation_term("word_ivat", self.weight, virtual_trials(step, perturb_embeddings), perturb)
