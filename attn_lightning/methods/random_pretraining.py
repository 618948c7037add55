"""Random attention first: what attention selects should not tell the label by the selection alone.

With a mask M on a text X, `I(Y; M, X_M) = I(Y; M) + I(Y; X_M | M)`: a model can learn to select in a way that depends
on the label and to read the label off the selection, the first term. Bai et al. 2021 name two remedies; the other is
`InstanceWeighting`. The body of the paper was not available here: both are derived anew from names and theory.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from attn_lightning.backbone.normalizers import TopK
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.random_attention import random_soft_attention, random_subset_attention
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.phases import forget_best_epoch, steps_of
from attn_lightning.step import TrainStep
from attn_lightning.types import Batch

Masks = Literal["subsets", "soft"]

_USUAL_SIZE = 5
"""Words of a random subset for a model that does not say how many it selects."""


class RandomAttentionPretraining(Method):
    """Random attention first, then attention is learned for a classifier that cannot read the selection.

    Objective:
        Epochs 1..T1: `L = mean_i L_task(attend(h_i, m_i))` with random attention `m_i`, independent of text and label;
        encoder and classifier learn, the scorer stands still. From then on: `L_task` with the model's own attention
        and the classifier frozen, so the scorer (and the encoder) learn to serve a classifier for which a selection
        meant nothing.

    Source:
        Bai et al. 2021, Why Attentions May Not Be Interpretable? (https://arxiv.org/abs/2006.05656). The body of the
        paper was not available: re-derived from the name and the theory, no result is a reproduction.

    Own choices:
        "subsets" draws uniformly from the subsets of k real tokens, "soft" uniformly from the simplex. The encoder
        keeps learning in the second phase. `classifier_rate` slows the classifier down instead of freezing it;
        `random_fraction` keeps a share of random attention in the second phase. Only epochs of the second phase
        compete for the best checkpoint, since the first ones are scored with an untrained scorer. What is frozen
        has no gradient, so neither weight decay nor momentum move it. A backbone may say what the classifier is
        (`classifier_parameters`): the student of a `WordSelector` has its word vectors too. The phase follows from the
        number of the epoch alone, also after a resumption.

    Cost:
        0 more passes of the encoder; 1 more of the head while attention is random.

    Interactions:
        No two methods can replace attention. Terms that run the head again (the perturbation family) do so with the
        model's own attention, also in the first phase, where the scorer stands still nevertheless. Instance
        weighting sees the random masks and learns weights near 1 from them. Unlabelled examples keep their attention.
        Early stopping counts through both phases.

    Args:
        weight: 0 switches the method off; any other value is the same, as there is no term.
        num_pretraining_epochs: T1, at least 1 and below the number of epochs, also of those that `max_steps` leaves.
        masks: kind of random attention, `subsets` or `soft`.
        subset_size: k of `subsets`; null takes that of the model's normalizer if it selects, as an explainer's does,
            and 5 otherwise. Shorter texts use all their tokens, their share is logged as `train/rap_clamped`.
        classifier_rate: learning rate of the classifier in the second phase, as a share of the others', in [0, 1];
            0 freezes it.
        random_fraction: probability, in [0, 1), that a text gets random attention in the second phase.

    Raises:
        ConfigurationError: an argument is out of its range, the training has no second phase, or the backbone does
            not say which of its parts are scorer and classifier.
    """

    def __init__(
        self,
        weight: float = 1.0,
        num_pretraining_epochs: int = 3,
        masks: Masks = "subsets",
        subset_size: int | None = None,
        classifier_rate: float = 0.0,
        random_fraction: float = 0.0,
    ) -> None:
        super().__init__(weight)
        check_numbers(self, at_least=1, num_pretraining_epochs=num_pretraining_epochs)
        if subset_size is not None:
            check_numbers(self, at_least=1, subset_size=subset_size)
        check_choice(self, choices=get_args(Masks), masks=masks)
        check_numbers(self, at_least=0, at_most=1, advice="0 freezes", classifier_rate=classifier_rate)
        check_numbers(self, at_least=0, below=1, random_fraction=random_fraction)
        self.num_pretraining_epochs = num_pretraining_epochs
        self.masks = masks
        self.subset_size = subset_size
        self.classifier_rate = classifier_rate
        self.random_fraction = random_fraction
        self._pretraining = True

    def attention(self, step: TrainStep) -> Tensor | None:
        """(B, T) random attention in the first phase and, for some texts, in the second."""
        if self.weight == 0:
            return None
        own = step.output.attention
        if self._pretraining:
            return self._draw(step).to(own.dtype)
        if self.random_fraction == 0:
            return None
        # One draw per text: its attention is its own or random, never a mixture of both.
        chosen = torch.rand(len(own), 1, device=own.device) < self.random_fraction
        return torch.where(chosen, self._draw(step).to(own.dtype), own)

    def frozen(self, model: Backbone) -> Sequence[nn.Parameter]:
        """The scorer in the first phase, the classifier in the second."""
        if self._pretraining:
            return _scorer_parameters(model)
        return _classifier_parameters(model) if self.classifier_rate == 0 else []

    def _draw(self, step: TrainStep) -> Tensor:
        if self.masks == "soft":
            return random_soft_attention(step.batch.mask)
        return random_subset_attention(step.batch.mask, self._size(step.model))

    def _size(self, model: Any) -> int:
        if self.subset_size is not None:
            return self.subset_size
        # A classifier that is fixed on the mean of five words would be asked about one, or ten, ever after.
        normalizer = getattr(model, "normalizer", None)
        return normalizer.k if isinstance(normalizer, TopK) else _USUAL_SIZE

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is a second phase and parts to freeze; give a slow classifier its own parameter group."""
        if self.weight == 0:
            return
        # -1 stands for a training without an end, in which the second phase comes for sure.
        if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= self.num_pretraining_epochs:
            raise ConfigurationError(
                f"Expected `trainer.max_epochs` above `num_pretraining_epochs` = {self.num_pretraining_epochs} of "
                f"RandomAttentionPretraining, but got {trainer.max_epochs}; the scorer learns only after them."
            )
        steps = steps_of(trainer, self.num_pretraining_epochs)
        if steps is not None and trainer.max_steps <= steps:
            raise ConfigurationError(
                f"Expected `trainer.max_steps` above the {steps} steps of `num_pretraining_epochs` = "
                f"{self.num_pretraining_epochs} of RandomAttentionPretraining, but got {trainer.max_steps}; the scorer "
                "learns only after them."
            )
        model: Any = pl_module.backbone
        parameters = _classifier_parameters(model)
        # Called for its refusal: a backbone that does not name its scorer is found out before the first phase.
        _scorer_parameters(model)
        if 0 < self.classifier_rate < 1:
            _split_off(trainer.optimizers[0], parameters)
            for config in trainer.lr_scheduler_configs:
                self._take_up(config.scheduler)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the best of the first phase when the second one begins."""
        if self.weight > 0 and trainer.current_epoch == self.num_pretraining_epochs:
            forget_best_epoch(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Find the phase from the epoch."""
        # From the epoch alone, so a resumed run needs no state of its own to be in the right phase.
        self._pretraining = trainer.current_epoch < self.num_pretraining_epochs
        if self.weight == 0:
            return
        self._set_classifier_rate(trainer.optimizers[0])
        if self._pretraining and self.masks == "subsets":
            mask = (batch if isinstance(batch, Batch) else batch["labeled"]).mask
            clamped = (mask.sum(1) < self._size(pl_module.backbone)).float().mean()
            pl_module.log(
                "train/rap_clamped", clamped, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(mask)
            )

    def _take_up(self, schedule: Any) -> None:
        """Give a schedule a function for each group that the optimizer got after it: it refuses a step with fewer."""
        if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            for group in schedule.optimizer.param_groups[len(schedule.base_lrs) :]:
                schedule.base_lrs.append(group["lr"])
                schedule.lr_lambdas.append(lambda _: self._rate)

    @property
    def _rate(self) -> float:
        """Learning rate of the classifier in this phase, as a share of the others'."""
        return 1.0 if self._pretraining else self.classifier_rate

    def _set_classifier_rate(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            if group.get("is_classifier"):
                group["lr"] = self._rate * optimizer.param_groups[0]["lr"]


def _scorer_parameters(model: Backbone) -> list[nn.Parameter]:
    function: Any = getattr(model, "attention_parameters", None)
    if function is None:
        raise ConfigurationError(
            "Expected a backbone with `attention_parameters()` for RandomAttentionPretraining, but "
            f"{type(model).__name__} has none; let it return the parameters of its scorer."
        )
    return list(function())


def _classifier_parameters(model: Backbone) -> list[nn.Parameter]:
    if (function := getattr(model, "classifier_parameters", None)) is not None:
        return list(function())
    classifier = getattr(model, "classifier", None)
    if not isinstance(classifier, nn.Module):
        raise ConfigurationError(
            "Expected a backbone with a module `classifier` for RandomAttentionPretraining, but "
            f"{type(model).__name__} has none; name its last layer so."
        )
    return list(classifier.parameters())


def _split_off(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Move parameters into last groups of their own, marked `is_classifier`, each with the options it had before."""
    moved = {id(parameter) for parameter in parameters}
    for source in list(optimizer.param_groups):
        options = {key: value for key, value in source.items() if key != "params"}
        taken = [parameter for parameter in source["params"] if id(parameter) in moved]
        source["params"] = [parameter for parameter in source["params"] if id(parameter) not in moved]
        if taken:
            optimizer.add_param_group({**options, "params": taken, "is_classifier": True})
