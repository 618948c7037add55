"""Explainers of a black box: a selector of k words and a student that reproduces a trained teacher from them alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torchmetrics import MetricCollection

from attn_lightning.backbone.normalizers import TopK
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.backbone.word_selector import WordSelector
from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods.base import Method
from attn_lightning.methods.requirements import check_requirements
from attn_lightning.methods.subsets import subset_divergence
from attn_lightning.methods.trained import black_box, existing_checkpoint, given
from attn_lightning.metrics.explained import explained_metrics, selected_only
from attn_lightning.numerics import full_precision
from attn_lightning.step import TARGETS, TrainStep
from attn_lightning.types import AttentionOutput, Batch, LossTerm


def imitation_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """`- sum_c f_c log g_c` per example: cross-entropy of the student g with the teacher's distribution f.

    It is `KL(f || g)` plus the entropy of f, a constant: both have the same gradient.

    Args:
        logits: (B, C) of the student.
        teacher_logits: (B, C) of the teacher, a constant.

    Returns:
        (B,) nats, at least 0.
    """
    return -(teacher_logits.detach().softmax(-1) * logits.log_softmax(-1)).sum(-1)


class Teacher:
    """A trained model that is explained, and how well its explainer does.

    Args:
        model: in evaluation mode, without gradients.
    """

    def __init__(self, model: Backbone) -> None:
        self.model = model
        self._metrics: dict[str, MetricCollection] = {}

    @torch.no_grad()
    def logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, C) of texts."""
        output: AttentionOutput = self.model(tokens, mask)
        return output.logits

    @torch.no_grad()
    def measure(self, split: str, batch: Batch, output: AttentionOutput) -> None:
        """Add what the explainer in evaluation mode makes of a batch."""
        selection = (output.attention > 0) & batch.mask
        values = {
            "student": output.logits.argmax(-1),
            "teacher": self.logits(batch.tokens, batch.mask).argmax(-1),
            "selected": self.logits(*selected_only(batch.tokens, selection)).argmax(-1),
        }
        if batch.rationale is not None:
            values |= {"selection": selection, "rationale": batch.rationale & batch.mask}
        if split not in self._metrics:
            self._metrics[split] = explained_metrics(marked=batch.rationale is not None).to(batch.tokens.device)
        self._metrics[split].update(**values)

    def results(self, split: str) -> dict[str, Tensor]:
        """By name, over all processes; the next split begins anew."""
        metrics = self._metrics.pop(split, None)
        return {} if metrics is None else metrics.compute()


class L2X(Method):
    """Learning to explain: k words per text from which a student reproduces a trained teacher's decisions.

    Objective:
        `L = mean_i [ - sum_c f_c(x_i) log g_c(x_i * m_i) ]` in place of the task loss: f is the teacher on the whole
        text, m the words that the selector draws, g the student on them. Labels are not used.

    Source:
        Chen et al. 2018, Learning to Explain (https://arxiv.org/abs/1802.07814), equation 6.

    Own choices:
        Words are drawn without replacement by `GumbelTopK`, with the gradient of a softmax (straight-through), where
        the paper takes the largest of k relaxed draws. The best epoch is by default the one with the highest
        `val/teacher_agreement_mean` (`experiments/method/l2x.yaml`).

    Cost:
        0 more passes of the encoder; 1 forward pass of the teacher per step, 2 and one of the explainer in validation
        and test, where `teacher_agreement`, `post_hoc_accuracy` and, for marked data, `evidence_recall` are measured.

    Interactions:
        Needs `WordSelector` with `GumbelTopK` or `TopK`. Replaces the task loss, so no other method may; class weights
        do not apply. `RandomAttentionPretraining` (student first, on random subsets, then fixed) and
        `InstanceWeighting` (by the teacher's decisions) are the remedies against a selection that tells the decision
        by itself: add them as callbacks, `--trainer.callbacks+=InstanceWeighting`.

    Args:
        weight: factor of the whole objective; 0 switches the method off, which is the baseline.
        teacher_checkpoint: checkpoint of the teacher, such as RUN/checkpoints/best.ckpt of a vanilla run, or RUN
            itself; of the same data and any model. Required.

    Attributes:
        teacher: there while a Trainer trains or tests.

    Raises:
        ConfigurationError: an argument is out of its range, there is no teacher that fits, or the normalizer does not
            select.
    """

    requires_backbone: ClassVar[type[Backbone]] = WordSelector

    def __init__(self, weight: float = 1.0, teacher_checkpoint: Path | None = None) -> None:
        super().__init__(weight)
        self.teacher_checkpoint = None if teacher_checkpoint is None else Path(teacher_checkpoint)
        self.teacher: Teacher | None = None

    @property
    def models(self) -> Mapping[str, Path]:
        """The teacher."""
        return given(self, "teacher_checkpoint")

    @property
    def logs_validation_metrics(self) -> bool:
        """What it measures can be monitored."""
        return self.weight > 0

    def task_loss(self, step: TrainStep) -> Tensor | None:
        """(B,) objective that replaces the task loss; the teacher's decisions become the targets of the step."""
        if self.weight == 0:
            return None
        if self.teacher is None:
            raise ConfigurationError(
                f"Expected {type(self).__name__} to have loaded a teacher, but it has none; train by a Trainer."
            )
        logits = self.teacher.logits(step.batch.tokens, step.batch.mask)
        step.output.aux[TARGETS] = logits.argmax(-1)
        return self.weight * imitation_cross_entropy(step.output.logits, logits)

    # --- the teacher ----------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the teacher, and refuse a model that does not select."""
        if self.weight == 0:
            return
        model: Any = pl_module.backbone
        # Callbacks come before the module, which asks this of all methods: another model need not have a normalizer.
        check_requirements(self, model)
        if not isinstance(model.normalizer, TopK):
            raise ConfigurationError(
                f"Expected a normalizer that selects k words for {type(self).__name__}, but got "
                f"{type(model.normalizer).__name__}; use `--model.backbone.normalizer=GumbelTopK`."
            )
        self._load(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the teacher go."""
        self.teacher = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the teacher."""
        if self.weight > 0:
            self._load(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the teacher go."""
        self.teacher = None

    def _load(self, module: LightningModule) -> None:
        path = existing_checkpoint(self.teacher_checkpoint, type(self).__name__, "teacher_checkpoint")
        self.teacher = Teacher(black_box(path, module, "teacher_checkpoint"))

    # --- what is measured -----------------------------------------------------------------------------------------

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the selection of a batch."""
        self._measure("val", pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the selection of a batch."""
        self._measure("test", pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was measured."""
        self._log("val", pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was measured."""
        self._log("test", pl_module)

    def _measure(self, split: Literal["val", "test"], module: LightningModule, batch: Batch) -> None:
        if self.teacher is not None:
            self.teacher.measure(split, batch, module(batch.tokens, batch.mask))

    def _log(self, split: Literal["val", "test"], module: LightningModule) -> None:
        if self.teacher is not None:
            values = {f"{split}/{name}": value for name, value in self.teacher.results(split).items()}
            # The same on all processes; see `AttentionModule` for the reduction.
            module.log_dict(values, sync_dist=True, reduce_fx="max")


class VIBI(L2X):
    """Variational information bottleneck for interpretation: L2X whose selection is charged for what it says.

    Objective:
        `L = mean_i [ - sum_c f_c(x_i) log g_c(x_i * m_i) + beta * KL( q(m|x_i) || r(m) ) ]` in place of the task loss,
        with the uniform distribution r over the subsets of k words; see `subset_divergence` for q.

    Source:
        Bang et al. 2021, Explaining a black-box using a deep variational information bottleneck approach
        (https://arxiv.org/abs/1902.06918).

    Own choices:
        q is the distribution over k-subsets with `q(S)` proportional to the product of `exp(s_t)`, whose divergence
        from r is exact and bounded by `log (n choose k)`. The draw of `GumbelTopK` takes word after word: it is the
        same distribution for k = 1 and for equal scores, and near to it elsewhere. Otherwise as `L2X`. The default of
        `beta` is ours.

    Cost:
        That of `L2X`, and log2 T small sums for the divergence.

    Interactions:
        As `L2X`.

    Args:
        weight: factor of the whole objective; 0 switches the method off, which is the baseline.
        teacher_checkpoint: checkpoint or run folder of the teacher; required.
        beta: price of a nat of the selection, 0 or more; 0 is `L2X`.
    """

    def __init__(self, weight: float = 1.0, teacher_checkpoint: Path | None = None, beta: float = 0.1) -> None:
        super().__init__(weight, teacher_checkpoint)
        check_numbers(self, at_least=0, advice="0 is L2X", beta=beta)
        self.beta = beta

    def loss(self, step: TrainStep) -> LossTerm | None:
        """The price of the selection."""
        model: Any = step.model
        output = step.output
        with full_precision(output.scores.device.type):
            divergence = subset_divergence(output.scores, output.mask, model.normalizer.k).mean()
        return LossTerm("selection", self.beta * divergence, self.weight, {"kl": divergence.detach()})
