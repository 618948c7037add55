"""What the peers do about attention: states that differ from each other, and supervision by human rationales."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.metrics.conicity import conicity
from attn_lightning.numerics import at_least_float32, full_precision, kl_divergence, log_attention
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm


class Diversity(Method):
    """Diversity-driven training: hidden states that point in different directions.

    If all states of a text are nearly the same vector, any attention gives the same context and explains nothing.

    Objective:
        `L = L_task + weight * mean_i conicity(h_i)`, `conicity(h) = mean_t cos(h_t, mean_u h_u)` over real tokens; the
        mean goes over the texts of two tokens and more, see `attn_lightning.metrics.conicity`.

    Source:
        Mohankumar et al. 2020, Towards Transparent and Explainable Attention Models
        (https://arxiv.org/abs/2004.14243), with lambda 0.5.

    Own choices:
        None in the term. Both directions of a bidirectional encoder are one state.

    Cost:
        0 more passes of the encoder, 0 more of the head; about one reading of the hidden states.

    Interactions:
        Acts on the encoder only, so it combines with every method that acts on attention. `OrthogonalLSTM` is the
        same idea built into the encoder. Unlabelled examples are ignored.

    Args:
        weight: lambda, factor of the conicity, 0 or more.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__(weight)

    def loss(self, step: TrainStep) -> LossTerm:
        """Mean conicity of the labelled texts."""
        output = step.output
        # A cosine of nearly parallel states is 1 minus little, which bfloat16 with its 8 bits rounds away.
        with full_precision(output.hidden.device.type):
            each = conicity(output.hidden, output.mask)
        # A text of one token has no conicity: it counts neither as narrow nor as wide.
        defined = ~each.isnan()
        # `where` and not `nanmean`: the gradient of a NaN is NaN even if the mean leaves its value out. The clamp
        # serves a batch in which every text has one token.
        value = torch.where(defined, each, 0.0).sum() / defined.sum().clamp_min(1)
        return LossTerm("diversity", value, self.weight)


def rationale_divergence(attention: Tensor, rationale: Tensor) -> Tensor:
    """`KL(rationale / |rationale| || a)` per example, in nats.

    Args:
        attention: (B, T), rows summing to 1.
        rationale: (B, T) bool, False at padding.

    Returns:
        (B,) at least 0, and 0 where the rationale marks nothing.
    """
    marked = rationale.sum(1, keepdim=True).clamp_min(1).to(attention.dtype)
    # `log(1 / |r|)` on every token; the mask of the divergence keeps the marked ones.
    log_p = marked.log().neg().expand_as(attention)
    return kl_divergence(log_p=log_p, log_q=log_attention(attention), mask=rationale)


def shuffle_rationale(rationale: Tensor, mask: Tensor, rows: Tensor, seed: int) -> Tensor:
    """The marks of every text at random other real tokens of it: as many, and for the same row always the same ones.

    Args:
        rationale: (B, T) bool, False at padding.
        mask: (B, T) bool, the real tokens first in every row.
        rows: (B,) int64, which texts these are.
        seed: another number gives other places.

    Returns:
        (B, T) bool, a uniformly random permutation of each row's real tokens; independent of batch and padding.
    """
    shuffled = torch.zeros_like(rationale, device="cpu")
    for index, (row, length) in enumerate(zip(rows.tolist(), mask.sum(1).tolist(), strict=True)):
        # Seeded by the row, so the marks of a text do not depend on its batch, its epoch or the number of processes.
        order = torch.from_numpy(np.random.default_rng([seed, row]).permutation(length))
        shuffled[index, :length] = rationale[index, :length].cpu()[order]
    return shuffled.to(rationale.device)


class RationaleSupervision(Method):
    """Attention supervised by human rationales, and its control with shuffled ones.

    Objective:
        `L = L_task + weight * (1 / B) sum_{i with a rationale} KL(r_i / |r_i| || a_i)`, `r_i` the marks of the
        rationale: attention should be spread evenly over what a person marked.

    Source:
        Supervised attention after Liu et al. 2016, https://arxiv.org/abs/1609.04186; for hate speech, Mathew et al.
        2021, https://arxiv.org/abs/2012.10289.

    Own choices:
        The divergence has the rationale first, so that its tokens must be covered and the others lose. Examples
        without a rationale, or whose marks were cut off, count as 0 in a mean over the whole batch: their share
        changes the strength of the term, not its scale per text. Zeros of sparse attention are taken as the smallest
        float, so that the term stays finite; there they have no gradient. The control (`shuffled`) moves the marks
        of a text to random real tokens of it, the same ones in every epoch.

    Cost:
        0 more passes of the encoder, 0 more of the head.

    Interactions:
        Acts on the attention of the step: where another method replaces attention by constants (random
        pretraining), the term has no gradient. Pulls against entropy penalties and uniform attention. Unlabelled
        examples are ignored.

    Args:
        weight: lambda, factor of the divergence, 0 or more.
        shuffled: supervise with marks at random tokens: what is gained beyond this control is due to the people.
        seed: of the shuffled places, 0 or more.

    Raises:
        ConfigurationError: an argument is out of its range, or the training data has no rationales.
    """

    def __init__(self, weight: float = 1.0, shuffled: bool = False, seed: int = 0) -> None:
        super().__init__(weight)
        check_numbers(self, at_least=0, seed=seed)
        self.shuffled = shuffled
        self.seed = seed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse data that says of itself that it has no rationales."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        # Before the first step where the data says what it has; other data is asked at its first batch, in `loss`.
        if self.weight > 0 and hasattr(datamodule, "dataset"):
            rows = datamodule.dataset("train")
            if "has_rationale" not in rows.column_names or not any(rows["has_rationale"]):
                raise _no_rationales(getattr(datamodule, "corpus", type(datamodule).__name__))

    def loss(self, step: TrainStep) -> LossTerm:
        """Divergence from the rationales; logs `share`, the share of the examples that have one."""
        batch = step.batch
        if batch.rationale is None:
            raise _no_rationales("the batch")
        # Marks may reach beyond the text where `max_length` has cut it off.
        rationale = batch.rationale & batch.mask
        if batch.has_rationale is not None:
            rationale = rationale & batch.has_rationale.unsqueeze(1)
        # Before the shuffle, which keeps the number of marks of every text and therefore the share.
        share = rationale.any(1).float().mean()
        if self.shuffled:
            rationale = shuffle_rationale(rationale, batch.mask, batch.rows, self.seed)
        value = rationale_divergence(at_least_float32(step.output.attention), rationale).mean()
        return LossTerm("rationale", value, self.weight, {"share": share})


def _no_rationales(where: str) -> ConfigurationError:
    return ConfigurationError(
        f"Expected training data with rationales for RationaleSupervision, but {where} has none; use `--data "
        "Planted`, `Movies`, `HateXplain` or files with a `rationale_column`."
    )
