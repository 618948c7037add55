"""Training of the information bottleneck: which part of a `BottleneckClassifier` learns what, and when."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from attn_lightning.backbone.bottleneck import BottleneckClassifier
from attn_lightning.backbone.normalizers import Softmax
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.phases import forget_best_epoch, steps_of
from attn_lightning.numerics import full_precision, kl_divergence, masked_log_softmax
from attn_lightning.step import TrainStep
from attn_lightning.types import LossTerm

Schedule = Literal["alternate", "compressor", "joint"]
Feedback = Literal["divergence", "direct"]
Phase = Literal["warmup", "compressor", "learner", "joint"]

_LEARNER_SCORES = "learner_scores"
"""Where in `AttentionOutput.aux` the task loss leaves the learner's scores for the term of the same step."""


def phase_of(epoch: int, schedule: Schedule, warmup_epochs: int) -> Phase:
    """What is trained in an epoch; a function of its number alone, so that a resumed run goes on as planned.

    Args:
        epoch: counted from 0.
        schedule: `alternate`: warm-up, then compressor and learner in turn; `compressor`: warm-up, then the
            compressor only; `joint`: everything in every epoch.
        warmup_epochs: epochs of the learner alone.

    Returns:
        The phase.
    """
    if schedule == "joint":
        return "joint"
    if epoch < warmup_epochs:
        return "warmup"
    return "learner" if schedule == "alternate" and (epoch - warmup_epochs) % 2 else "compressor"


def annealed(beta: float, progress: float, anneal: float) -> float:
    """`beta * min(1, progress / anneal)`: a weight that rises linearly from 0.

    Args:
        beta: the final value.
        progress: at most 1; below 0 it counts as 0.
        anneal: share of the progress over which it rises; 0 for a constant.
    """
    progress = max(0.0, progress)
    return beta if progress >= anneal else beta * progress / anneal


def mean_token_divergence(divergences: Tensor, mask: Tensor) -> Tensor:
    """`mean_i mean_t KL_t`: first over the real tokens of an example, then over examples.

    Args:
        divergences: (B, T) nats; values at padding are ignored.
        mask: (B, T) bool.

    Returns:
        () nats.
    """
    return (divergences.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1)).mean()


def attention_feedback(compressed: Tensor, learner_scores: Tensor, mask: Tensor) -> Tensor:
    """`mean_i KL( sg(a^comp) || a )` with the learner's `a = softmax(s)`.

    Args:
        compressed: (B, T) attention of the compressor; a constant.
        learner_scores: (B, T) scores of the learner.
        mask: (B, T) bool.

    Returns:
        () nats, at least 0.
    """
    target = compressed.detach()
    log_p = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    return kl_divergence(log_p=log_p, log_q=masked_log_softmax(learner_scores, mask), mask=mask).mean()


class InformationBottleneck(Method):
    """Variational information bottleneck attention: a learner and a compressor trained in turns.

    Objective:
        Warm-up and learner epochs train the learner, that is everything but the compressor:
        `L = CE(learner) + weight * gamma * KL( sg(a^comp) || a )`, without the second term during the warm-up.
        Compressor epochs train the compressor and the classifier, with encoder, word vectors and the learner's scorer
        frozen: `L = E[ -log p(y | z) ] + weight * beta * mean_t KL_t`, one draw of the noisy tokens `z` per step.
        `KL_t` is what `z_t` carries about token t in nats, summed over the D dimensions. The epochs are
        `warmup_epochs`, then `num_rounds` times one compressor and one learner epoch: `trainer.max_epochs` must be
        `warmup_epochs + 2 * num_rounds`. The token bottleneck is an option of the backbone: `NoiseGate`,
        `LearnerGate` (points and images), `GaussianBottleneck`.

    Source:
        A re-derivation of variational information bottleneck attention with a learner and a compressor from its name
        and the variational bound of Alemi et al. 2017 (https://arxiv.org/abs/1612.00410). The paper's equations were
        not available: no result of this method is a reproduction.

    Own choices:
        Both parts share one classifier, which learns in every epoch; the prediction of the model is the compressor's
        on mean tokens, the one that its attention explains. Noise statistics m and s are exact over the epoch before.
        Validation scores of the warm-up do not compete for the best epoch: no compressor was trained. Phases follow
        from the epoch's number, so they survive a checkpoint. `schedule: joint` sums the losses of both parts.

    Cost:
        0 more passes of the encoder, 2 of the head in a learner or compressor epoch, 3 in a joint one. Compressor
        epochs have no backward pass through the encoder. Measured with `NoiseGate` at 32 x 25 tokens: 1.06 vanilla
        steps in the warm-up, 0.47 in a compressor and 1.02 in a learner epoch, 1.22 in a joint one; with
        `GaussianBottleneck` 1.01, 0.75, 1.06 and 1.56.

    Interactions:
        Needs `BottleneckClassifier`, and with feedback by divergence its softmax normalizer. Replaces the task loss,
        so it excludes other methods that do. Terms of other methods train whatever the phase leaves unfrozen.
        Draws random numbers in compressor epochs. Unlabelled examples are ignored.

    Args:
        weight: lambda, factor of both extra terms, 0 or more; at 0 there are no phases either and the model is
            trained as a whole by its task loss.
        beta: price of a nat per token, 0 or more; at 0 nothing is compressed. The gates have D dimensions to pay for:
            useful values are about 1/D of those of a scalar code.
        gamma: factor of the feedback by divergence, 0 or more.
        warmup_epochs: learner epochs before the first round, 0 or more; 5 for an LSTM, 1 for a transformer.
        num_rounds: R, rounds of two epochs, at least 1.
        schedule: `alternate`; `compressor`, where the rounds train the compressor only; or `joint`, where all
            epochs, the warm-up's too, train everything by the sum of all losses.
        feedback: how the learner hears of the compression: `divergence` (see above), or `direct`: after the warm-up
            its task loss is that of the model's own prediction, under the frozen compressor's attention and gates.
        anneal: share in [0, 1] of the training after the warm-up over which beta rises linearly from 0; 0 for a
            constant.

    Raises:
        ConfigurationError: an argument is out of its range; the epochs of the trainer are not those of the schedule, or
            its steps end before them.
    """

    requires_backbone: ClassVar[type[Backbone]] = BottleneckClassifier

    def __init__(
        self,
        weight: float = 1.0,
        beta: float = 1e-3,
        gamma: float = 1.0,
        warmup_epochs: int = 5,
        num_rounds: int = 3,
        schedule: Schedule = "alternate",
        feedback: Feedback = "divergence",
        anneal: float = 0.0,
    ) -> None:
        super().__init__(weight)
        check_numbers(self, at_least=0, beta=beta, gamma=gamma, warmup_epochs=warmup_epochs)
        check_numbers(self, at_least=1, num_rounds=num_rounds)
        check_numbers(self, at_least=0, at_most=1, advice="1 raises beta until the end", anneal=anneal)
        check_choice(self, choices=get_args(Schedule), schedule=schedule)
        check_choice(self, choices=get_args(Feedback), feedback=feedback)
        self.beta, self.gamma, self.anneal = beta, gamma, anneal
        self.warmup_epochs, self.num_rounds = warmup_epochs, num_rounds
        self.schedule: Schedule = schedule
        self.feedback: Feedback = feedback
        # Without a trainer there are no epochs, and all parts learn at once.
        self.phase: Phase = "joint"

    # --- objective ------------------------------------------------------------------------------------------------

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """The task loss of the part that learns in this phase; in a joint one, that of both."""
        if self.weight == 0:
            return None
        model, labels = cast(BottleneckClassifier, step.model), step.batch.labels
        hidden, mask = step.output.hidden, step.output.mask
        logits = []
        if self._learns_from_compressor:
            logits.append(step.output.logits)
        elif self.phase != "compressor":
            learner = model.learner(hidden, mask)
            step.output.aux[_LEARNER_SCORES] = learner.scores
            logits.append(learner.logits)
        if self.phase in ("compressor", "joint"):
            logits.append(model.noisy_logits(hidden, mask, step.output.scores))
        return torch.stack([step.task_loss(each, labels) for each in logits]).sum(0)

    def loss(self, step: TrainStep) -> LossTerm | None:
        """The price of the information that passes, and the feedback to the learner, as far as they are due."""
        compresses = self.phase in ("compressor", "joint")
        feeds_back = self.phase in ("learner", "joint") and self.feedback == "divergence" and self.gamma > 0
        if not (compresses or feeds_back):
            return None
        terms: list[Tensor] = []
        logs: dict[str, Tensor] = {}
        with full_precision(step.output.scores.device.type):
            if compresses:
                divergence, beta = self._divergence(step), self._beta(step.progress)
                terms.append(beta * divergence)
                logs |= {"kl": divergence.detach(), "beta": torch.full_like(divergence.detach(), beta)}
            if feeds_back:
                feedback = self._feedback(step)
                terms.append(self.gamma * feedback)
                logs["feedback"] = feedback.detach()
        return LossTerm("bottleneck", torch.stack(terms).sum(), self.weight, logs)

    def _divergence(self, step: TrainStep) -> Tensor:
        model, output = cast(BottleneckClassifier, step.model), step.output
        return mean_token_divergence(model.compressor.divergence(output.hidden, output.scores), output.mask)

    def _feedback(self, step: TrainStep) -> Tensor:
        model, output = cast(BottleneckClassifier, step.model), step.output
        attention = model.compressor.attention(output.scores, output.mask)
        scores = output.aux.get(_LEARNER_SCORES)
        if scores is None:
            scores = model.scorer(output.hidden, output.mask)
        return attention_feedback(attention, scores, output.mask)

    def _beta(self, progress: float) -> float:
        warmup = 0.0 if self.schedule == "joint" else self.warmup_epochs / self.num_epochs
        return annealed(self.beta, (progress - warmup) / (1 - warmup), self.anneal)

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.warmup_epochs + 2 * self.num_rounds

    @property
    def _learns_from_compressor(self) -> bool:
        return self.phase == "learner" and self.feedback == "direct"

    # --- phases ---------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a trainer that cannot follow the schedule."""
        if self.weight == 0:
            return
        developing = getattr(trainer, "fast_dev_run", False)
        if trainer.max_epochs != self.num_epochs and not developing:
            raise ConfigurationError(
                f"Expected `trainer.max_epochs` to be warmup_epochs + 2 * num_rounds = {self.num_epochs} for "
                f"InformationBottleneck, but got {trainer.max_epochs}; change one of the three."
            )
        steps = None if developing else steps_of(trainer, self.num_epochs)
        if steps is not None and trainer.max_steps < steps:
            raise ConfigurationError(
                f"Expected `trainer.max_steps` to leave the {self.num_epochs} epochs of InformationBottleneck, which "
                f"have {steps} steps, but got {trainer.max_steps}; leave it out, or lower warmup_epochs or num_rounds."
            )
        self._check_normalizer(pl_module.backbone)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the phase, also in the middle of an epoch that is resumed."""
        if self.weight > 0:
            self._enter(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the phase of this epoch, with the noise statistics of the last one."""
        if self.weight == 0:
            return
        model = cast(BottleneckClassifier, pl_module.backbone)
        model.compressor.update_statistics()
        self._enter(trainer)
        if self.schedule != "joint" and trainer.current_epoch == self.warmup_epochs:
            model.compressor.begin(model.scorer)
            forget_best_epoch(trainer)

    def _enter(self, trainer: Trainer) -> None:
        self.phase = phase_of(trainer.current_epoch, self.schedule, self.warmup_epochs)

    def frozen(self, model: Any) -> Sequence[nn.Parameter]:
        """The compressor in learner epochs, the learner without the classifier in compressor epochs."""
        if self.phase == "joint":
            return []
        if self.phase == "compressor":
            parts = [model.embedding, model.encoder, model.scorer]
        else:
            # Under the compressor's own attention the learner's scorer has nothing to do.
            parts = [model.compressor, *([model.scorer] if self._learns_from_compressor else [])]
        return [parameter for part in parts for parameter in part.parameters()]

    def _check_normalizer(self, model: Any) -> None:
        normalizer = getattr(model, "normalizer", None)
        if self.feedback == "divergence" and self.gamma > 0 and not isinstance(normalizer, Softmax):
            raise ConfigurationError(
                "Expected a softmax in the learner for `feedback: divergence`, as the divergence from attention with "
                f"zeros is infinite, but got {type(normalizer).__name__}; use `feedback: direct` or "
                "`--model.backbone.normalizer=Softmax`."
            )
