"""The model-consistent adversary: the same predictions from attention that is as different as possible."""

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checkpoint import checkpoint_contents, read_checkpoint
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
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
        base_checkpoint: checkpoint of the base model, such as RUN/checkpoints/best.ckpt of a vanilla run; required.

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the base model."""
        if self.weight > 0:
            self.base = base_model(self._existing_checkpoint(), pl_module)

    def _existing_checkpoint(self) -> Path:
        if self.base_checkpoint is None or not self.base_checkpoint.is_file():
            raise ConfigurationError(
                "Expected `base_checkpoint` of ModelConsistentAdversary to be the checkpoint of a trained model, but "
                f"got {self.base_checkpoint}, which is no file; train one (`make run EXP=vanilla_...`) and give its "
                "RUN/checkpoints/best.ckpt by `--method.base_checkpoint`."
            )
        return self.base_checkpoint

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the base model go."""
        self.base = None

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) objective that replaces the task loss."""
        if self.weight == 0:
            return None
        if self.base is None:
            raise ConfigurationError(
                "Expected ModelConsistentAdversary to have loaded a base model, but it has none; train by a Trainer."
            )
        with torch.no_grad():
            base = self.base(step.batch.tokens, step.batch.mask)
        return self.weight * imitation_loss(step.output, base, self.divergence_weight)


def base_model(path: Path, module: LightningModule) -> Backbone:
    """The backbone of a checkpoint in evaluation mode without gradients, on the module's device.

    Args:
        path: a checkpoint of this package.
        module: the module under training; its backbone says what the architecture is, and its tokenizer the words.

    Raises:
        ConfigurationError: the checkpoint is damaged, of other data or of another architecture.
    """
    checkpoint = read_checkpoint(path)
    tokenizer: Any = getattr(module, "tokenizer_state", None)
    if tokenizer is not None and tokenizer != checkpoint_contents(checkpoint)["tokenizer"]:
        raise ConfigurationError(
            f"Expected `base_checkpoint` to be trained on the same data, but {path} has another vocabulary; use the "
            "data and the data options of that run."
        )
    base: Any = copy.deepcopy(module.backbone)
    prefix = "backbone."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    try:
        base.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Expected `base_checkpoint` to hold a model of the same architecture, but {path} does not: {error}; use "
            "the same `model` options for both runs."
        ) from error
    found: Backbone = base.eval().requires_grad_(False)
    return found
