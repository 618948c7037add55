"""The model-consistent adversary: the same predictions from attention that is as different as possible."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.trained import existing_checkpoint, given, twin
from attn_lightning.numerics import kl_divergence, log_attention
from attn_lightning.step import TrainStep
from attn_lightning.types import AttentionOutput


def total_variation(logits: Tensor, base_logits: Tensor) -> Tensor:
    """`TVD(p, q) = 1/2 sum_c |p_c - q_c|` per example.

    Args:
        logits: (B, C) of p.
        base_logits: (B, C) of q.

    Returns:
        (B,) in [0, 1].
    """
    return 0.5 * (logits.softmax(-1) - base_logits.softmax(-1)).abs().sum(-1)


def imitation_loss(output: AttentionOutput, base: AttentionOutput, divergence_weight: float) -> Tensor:
    """`TVD(p, p_base) - lambda KL(a || a_base)` per example.

    Args:
        output: of the model that is trained.
        base: of the model that is imitated, a constant.
        divergence_weight: lambda.

    Returns:
        (B,), at least -88 lambda: zeros of attention are taken as the smallest float.
    """
    # The smallest float stands for 0, so that sparse attention gives a large divergence instead of infinity.
    log_p, log_q = log_attention(output.attention), log_attention(base.attention)
    divergence = kl_divergence(log_p=log_p, log_q=log_q, mask=output.mask)
    return total_variation(output.logits, base.logits) - divergence_weight * divergence


class ModelConsistentAdversary(Method):
    """An adversary that predicts like a trained base model while attending elsewhere.

    If a model can be imitated with very different attention, its attention was not the only way to its predictions.

    Objective:
        `L = mean_i [ TVD(p_i, p_i^base) - divergence_weight * KL(a_i || a_i^base) ]` in place of the task loss; labels
        are not used.

    Source:
        Wiegreffe and Pinter 2019, Attention is not not Explanation (https://arxiv.org/abs/1908.04626), the
        model-consistent training protocol.

    Own choices:
        The base is run along in evaluation mode instead of storing its outputs, so any batching serves. The adversary
        starts from its own random weights. The default of `divergence_weight` is ours. Exact zeros of sparse attention
        are taken as the smallest float. Accuracy, in metrics and in the choice of the best epoch, is still that on
        the labels.

    Cost:
        1 more pass of an encoder (the base's, forward only) and of its head, and a second set of weights in memory.

    Interactions:
        Replaces the task loss, so no other method may; weights of examples apply to it, class weights do not. Terms
        of other methods are added as usual. The base model must be of the same architecture and data.

    Args:
        weight: factor of the whole objective; 0 switches the method off, which is the baseline.
        divergence_weight: lambda, the price of attention that is like the base's, 0 or more; 0 is plain imitation.
        base_checkpoint: checkpoint of the base model, such as RUN/checkpoints/best.ckpt of a vanilla run, or RUN;
            required.

    Attributes:
        base: the model that is imitated, there while a Trainer trains.

    Raises:
        ConfigurationError: an argument is out of its range, or there is no base model that fits.
    """

    encoder_passes: ClassVar[int] = 1

    def __init__(
        self, weight: float = 1.0, divergence_weight: float = 0.1, base_checkpoint: Path | None = None
    ) -> None:
        super().__init__(weight)
        check_numbers(self, at_least=0, advice="0 is plain imitation", divergence_weight=divergence_weight)
        self.divergence_weight = divergence_weight
        self.base_checkpoint = None if base_checkpoint is None else Path(base_checkpoint)
        self.base: Backbone | None = None

    @property
    def models(self) -> Mapping[str, Path]:
        """The base model."""
        return given(self, "base_checkpoint")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the base model."""
        if self.weight > 0:
            path = existing_checkpoint(self.base_checkpoint, type(self).__name__, "base_checkpoint")
            self.base = twin(path, pl_module, "base_checkpoint")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the base model go."""
        self.base = None

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) objective that replaces the task loss."""
        if self.weight == 0:
            return None
        # Without a Trainer nobody has called `on_fit_start`; imitation of nothing would be a loss of 0.
        if self.base is None:
            raise ConfigurationError(
                "Expected ModelConsistentAdversary to have loaded a base model, but it has none; train by a Trainer."
            )
        # The base is a constant of the objective; with a graph its activations would double the memory of a step.
        with torch.no_grad():
            base = self.base(step.batch.tokens, step.batch.mask)
        return self.weight * imitation_loss(step.output, base, self.divergence_weight)
