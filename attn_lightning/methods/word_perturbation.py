"""Adversarial and virtual adversarial training on word embeddings: RP, AT, iAT, VAT and iVAT.

The objectives of `perturbed.py` with the word vectors as the place: everything but the place and the directions to
neighboring words is shared with the attention scores. The price of the place is the encoder, which runs again.
"""

from typing import ClassVar

from attn_lightning.checks import check_numbers
from attn_lightning.methods.base import Differentiates
from attn_lightning.methods.perturbed import _AdversarialTraining, _RandomPerturbation, _VirtualAdversarialTraining
from attn_lightning.perturbation.neighbors import NearestWords
from attn_lightning.perturbation.sites import EMBEDDINGS, Place


class WordRP(_RandomPerturbation):
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
    term: ClassVar[str] = "word_rp"
    place: ClassVar[Place] = EMBEDDINGS

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0) -> None:
        super().__init__(weight, epsilon)


class WordAT(_AdversarialTraining):
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
    term: ClassVar[str] = "word_at"
    place: ClassVar[Place] = EMBEDDINGS

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0) -> None:
        super().__init__(weight, epsilon)


class WordIAT(_AdversarialTraining):
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
    reads_word_table: ClassVar[bool] = True
    term: ClassVar[str] = "word_iat"
    place: ClassVar[Place] = EMBEDDINGS

    def __init__(self, weight: float = 1.0, epsilon: float = 1.0, num_neighbors: int = 10) -> None:
        super().__init__(weight, epsilon)
        check_numbers(self, at_least=1, advice="10 is the published number", num_neighbors=num_neighbors)
        self.num_neighbors = num_neighbors
        self.directions = NearestWords(num_neighbors)


class WordVAT(_VirtualAdversarialTraining):
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
    term: ClassVar[str] = "word_vat"
    place: ClassVar[Place] = EMBEDDINGS

    def __init__(
        self, weight: float = 1.0, epsilon: float = 1.0, xi: float = 0.1, num_power_iterations: int = 1
    ) -> None:
        super().__init__(weight, epsilon, xi, num_power_iterations)


class WordIVAT(_VirtualAdversarialTraining):
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
    reads_word_table: ClassVar[bool] = True
    term: ClassVar[str] = "word_ivat"
    place: ClassVar[Place] = EMBEDDINGS

    def __init__(
        self,
        weight: float = 1.0,
        epsilon: float = 1.0,
        xi: float = 0.1,
        num_power_iterations: int = 1,
        num_neighbors: int = 10,
    ) -> None:
        super().__init__(weight, epsilon, xi, num_power_iterations)
        check_numbers(self, at_least=1, advice="10 is the published number", num_neighbors=num_neighbors)
        self.num_neighbors = num_neighbors
        self.directions = NearestWords(num_neighbors)
