"""The only LightningModule: one backbone, the task loss, the terms of the attached methods, the measurements."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.equal_texts import equal_texts_once
from attn_lightning.backbone.freezing import constant, kept_in_graph
from attn_lightning.backbone.importance import importances, small_passes
from attn_lightning.backbone.joint import joint_passes
from attn_lightning.backbone.precision import unreached_by
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.checkpoint import (
    add_checkpoint_contents,
    check_finite,
    check_layout,
    check_same_data,
    checkpoint_contents,
    checkpoint_spec,
    make_weights_only,
    read_checkpoint,
)
from attn_lightning.checkpoint.trust import check_checkpoint
from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.reading import prepare_encoder
from attn_lightning.errors import ConfigurationError, one_line
from attn_lightning.measurements import MARKS, EpochMeans, Measurements, Probe, check_monitors, example_record, joined
from attn_lightning.methods.base import Method, leave_embeddings
from attn_lightning.methods.combined import flatten
from attn_lightning.methods.requirements import (
    answer,
    check_methods,
    extra_term,
    ignored_pool,
    learns_from_pool,
    with_attention,
)
from attn_lightning.optimization.choice import OptimizerName, adapt, make_optimizer
from attn_lightning.optimization.groups import parameter_groups, with_schedule
from attn_lightning.step import TrainStep
from attn_lightning.task_loss import LossWatch, class_counts, class_weights_from_counts, cross_entropy, finite
from attn_lightning.types import AttentionOutput, Batch, DataSpec

logger = logging.getLogger(__name__)


class AttentionModule(LightningModule):
    """An attention classifier under training: task loss + weighted terms of the attached methods, and measurements.

    The objective of a step is `mean_i w_i L(x_i, y_i) + sum_m lambda_m L_m`. The methods are the callbacks of the
    trainer that derive from `Method`; without one the run is the vanilla baseline.

    Optimiser: Adam with amsgrad, as in the published protocol, fused into one kernel; or SGD. Weight decay acts on the
    encoder and the classifier only. It stays off the attention scorer (published) and off the word vectors (own
    choice: under Adam, a decay of 1e-5 moves every word that is *not* in the batch by up to a full learning rate
    per step, because the normalized gradient of such a word is the decay alone).

    What is measured on validation and test data: see `Measurements`. Agreement with gradients is measured on a fixed
    random subset of the validation split and on the whole test split.

    Args:
        backbone: class of the model, built from the data's `DataSpec` when the data is known.
        learning_rate: step size of the optimizer, above 0.
        weight_decay: L2 penalty on encoder and classifier, 0 or more.
        amsgrad: keep the running maximum of Adam's second moment.
        optimizer: adam; dense_adam, the same with a pass over all word vectors at every step, where adam moves a vector
            when it is read, if that is faster; or sgd, stochastic gradient descent with `momentum`.
        momentum: of sgd, in [0, 1); adam ignores it.
        class_weights: "none", "positive" (`N_neg / N_pos` on class 1, the published binary recipe) or "balanced".
        num_probe_examples: validation examples for the agreement of attention with gradients at every epoch; 0
            switches it off.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        backbone: Callable[[DataSpec], Backbone] = AttentionClassifier,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
        amsgrad: bool = True,
        class_weights: Literal["none", "positive", "balanced"] = "none",
        num_probe_examples: int = 512,
        optimizer: OptimizerName = "adam",
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        check_numbers(above=0, learning_rate=learning_rate)
        check_numbers(at_least=0, weight_decay=weight_decay, num_probe_examples=num_probe_examples)
        check_numbers(at_least=0, below=1, momentum=momentum, advice="use 0 for none")
        check_choice(choices=get_args(OptimizerName), optimizer=optimizer)
        # logger=False: the command line uploads the whole configuration once, the flat copy would only repeat it.
        self.save_hyperparameters(logger=False)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.amsgrad = amsgrad
        self.optimizer = optimizer
        self.momentum = momentum
        self.num_probe_examples = num_probe_examples
        self._class_weight_mode = class_weights
        self._make_backbone = backbone
        self.backbone: Backbone | None = None
        # A buffer, as it is made before the model goes to its device; where checkpoints have it: `on_save_checkpoint`.
        self.register_buffer("class_weights", None, persistent=False)
        self.spec: DataSpec | None = None
        self.tokenizer_state: str | None = None
        self._epoch_means = EpochMeans()
        self._losses = LossWatch(self.device)
        self._frozen: list[nn.Parameter] = []

    def build(self, spec: DataSpec, stored: bool = False) -> None:
        """Build the backbone for this data, or that of a checkpoint; called by hand where there is no data module."""
        if self.backbone is not None:
            # A checkpoint brings its backbone along, before the data or behind it; both must be of the same kind.
            assert self.spec is not None
            check_same_data(*((spec, self.spec) if stored else (self.spec, spec)))
            return
        self.spec = spec
        self.backbone = self._make_backbone(spec)
        # The weights live in the backbone now; the spec is kept only for its numbers.
        resources: Mapping[str, str] = getattr(self.backbone, "resources", dict)()
        self.spec = replace(spec, embedding_weights=None, resources=resources)
        self.validation_measurements = Measurements(spec.num_classes, agreement=self.num_probe_examples > 0)
        self.test_measurements = Measurements(spec.num_classes)

    def untrained_backbone(self) -> Backbone:
        """A new backbone of the same class and options for the same data, with random weights: a control."""
        assert self.spec is not None
        return self._make_backbone(self.spec)

    def configure_model(self) -> None:
        """Take the data's shape from the data module; Lightning calls it before the optimiser is made."""
        if self._trainer is None:
            return  # `load_from_checkpoint` calls this before `on_load_checkpoint`, which builds
        datamodule = getattr(self.trainer, "datamodule", None)
        spec = getattr(datamodule, "spec", None)
        if spec is None:
            if self.backbone is None:
                raise ConfigurationError(
                    "Expected a data module with a `spec`, but got none; pass one to the trainer or call "
                    "`module.build(DataSpec(...))` before."
                )
            return
        self.build(spec)
        tokenizer = getattr(datamodule, "tokenizer", None)
        if tokenizer is not None:
            self.tokenizer_state = tokenizer.to_str()
        if self._class_weight_mode != "none" and self.class_weights is None:
            self.class_weights = class_weights_from_counts(class_counts(datamodule), self._class_weight_mode)

    def on_fit_start(self) -> None:
        """Check the run, and compute the states of a frozen encoder."""
        self._losses = LossWatch(self.device)
        self.check()
        prepare_encoder(self._model, self.trainer)

    def check(self) -> None:
        """Check the methods against each other and the model that was built, and what is monitored.

        Raises:
            ConfigurationError: they do not go together, or nothing logs what is monitored.
        """
        check_methods(self.methods, self._model)
        pool = getattr(getattr(self.trainer, "datamodule", None), "unlabeled", None)
        if pool is not None and not learns_from_pool(self.methods) and self.trainer.is_global_zero:
            logger.warning(ignored_pool(self.methods))
        if (note := unreached_by(str(self.trainer.precision), self._model, self.device.type)) is not None:
            logger.warning(note)
        if type(self) is AttentionModule:  # a subclass may log more
            check_monitors(self.trainer.callbacks, self.validation_names)  # type: ignore[attr-defined]

    @property
    def methods(self) -> list[Method]:
        """The training methods attached to the trainer, in their order; those inside `Combined` one by one."""
        return list(flatten(self.trainer.callbacks))  # type: ignore[attr-defined]

    @property
    def _model(self) -> Backbone:
        assert self.backbone is not None, "configure_model builds it"
        return self.backbone

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over two groups of parameters: with weight decay, and without (word vectors, scorer)."""
        groups = parameter_groups(self, self._model, self.weight_decay)
        own: dict[str, Any] = {"lr": self.learning_rate, "amsgrad": self.amsgrad, "momentum": self.momentum}
        optimizer = make_optimizer(self.optimizer, [dict(group) for group in groups], self._model, **own)
        if self._trainer is not None:
            adapt(optimizer, self.trainer)
        warmup = getattr(getattr(self._model, "encoder", None), "warmup", 0.0)
        return with_schedule(optimizer, groups, warmup, lambda: self.trainer.estimated_stepping_batches)

    # --- training -------------------------------------------------------------------------------------------------

    def forward(self, tokens: Tensor, mask: Tensor) -> AttentionOutput:
        """One clean pass; see `Backbone.forward`."""
        output: AttentionOutput = self._model(tokens, mask)
        return output

    def on_train_epoch_start(self) -> None:
        """Drop what the last epoch logged: a name that only some phases log would show its old value ever after."""
        logged = self.trainer.callback_metrics
        for name in [name for name in logged if name.startswith("train/")]:
            del logged[name]

    def training_step(self, batch: Batch | dict[str, Batch], batch_index: int) -> Tensor:
        """Task loss plus the weighted terms of the attached methods.

        Args:
            batch: labelled examples, or those under "labeled" and others without labels under "unlabeled".
            batch_index: of the epoch.
        """
        # A weight of 0 is the baseline to the bit: the method may not even draw its random numbers.
        active = [method for method in self.methods if method.weight > 0]
        self._frozen = [parameter for method in active for parameter in method.frozen(self._model)]
        # Frozen from the clean pass to the last term, so that no gradient is computed which nobody would use.
        with constant(self._frozen):
            step = self._train_step(batch)
            task = self._task_loss(step)
            terms = [term for method in active if (term := extra_term(method, step)) is not None]
            # One sum of all, since Lightning calls backward once: DDP, clipping and AMP see a single loss.
            total = torch.stack([task, *(term.weight * term.value for term in terms)]).sum()
        parts = {"task": task, **{term.name: term.value for term in terms}}
        self._losses.add(total, parts, self.global_step, self.current_epoch)
        logs = {f"{term.name}_{key}": value for term in terms for key, value in term.logs.items()}
        self._epoch_means.add({"loss": total, **parts, **logs})
        return kept_in_graph(total, self._frozen)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of zeros away that DDP makes for frozen parameters: momentum would act on them."""
        for parameter in self._frozen:
            parameter.grad = None

    def _train_step(self, batches: Batch | dict[str, Batch]) -> TrainStep:
        batch, unlabeled = (batches, None) if isinstance(batches, Batch) else (batches["labeled"], batches["unlabeled"])
        if unlabeled is not None and not learns_from_pool(self.methods):
            unlabeled = None  # encoding them would cost a pass that no term reads
        with equal_texts_once(self._model, leave_embeddings(self.methods)):
            if unlabeled is None:
                output, unlabeled_output = self(batch.tokens, batch.mask), None
            else:
                output, unlabeled_output = joint_passes(self._model, batch, unlabeled)
        step = TrainStep(
            model=self._model,
            batch=batch,
            output=output,
            task_loss=partial(cross_entropy, class_weights=self.class_weights),
            progress=self._progress(),
            unlabeled=unlabeled,
            unlabeled_output=unlabeled_output,
        )
        return with_attention(step, self.methods)

    def _task_loss(self, step: TrainStep) -> Tensor:
        losses = [loss for method in self.methods if (loss := answer(method, "task_loss", step)) is not None]
        if len(losses) > 1:
            raise ConfigurationError(
                f"Expected at most one method that replaces the task loss, but got {len(losses)}; keep one of them."
            )
        loss = losses[0] if losses else step.task_loss(step.output.logits, step.batch.labels)
        for method in self.methods:
            if (weights := answer(method, "example_weights", step)) is not None:
                loss = weights * loss
        return loss.mean()

    def _progress(self) -> float:
        # Steps of the optimizer, with accumulation and all processes counted; infinite for a training without an end.
        total = self.trainer.estimated_stepping_batches
        return min(1.0, self.global_step / total) if 0 < total < float("inf") else 0.0

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the means over the epoch with its last batch, so that every callback sees them at the epoch's end."""
        if self.trainer.is_last_batch:
            self._losses.check()
            means = {f"train/{name}": value for name, value in self._epoch_means.compute().items()}
            self.log_dict(means, on_epoch=True, on_step=False, sync_dist=True, batch_size=1)

    # --- evaluation -----------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Choose the validation rows whose gradients are measured."""
        self._losses.check()  # within an epoch too: weights that are lost are not worth a validation
        loaders: Any = self.trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        self.probe = Probe(sum(len(loader.dataset) for loader in loaders), self.num_probe_examples)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Prediction and evidence metrics for all rows, agreement with gradients for the probe rows."""
        for part in small_passes(batch):
            output = finite(self(part.tokens, part.mask), "validation", self.global_step)
            self.validation_measurements.update(output, part)
        # Gradients cost a backward pass: a fixed part of the rows is enough to follow them from epoch to epoch.
        if (probed := self.probe.part_of(batch)) is not None:
            for part in small_passes(probed):
                self.validation_measurements.update_agreement(*importances(self._model, part))

    def test_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """All measurements; returns what a run record keeps of every example."""
        records = []
        for part in small_passes(batch):
            output, importance = importances(self._model, part)
            self.test_measurements.update(finite(output, "test", self.global_step), part)
            self.test_measurements.update_agreement(output, importance)
            records.append(example_record(output, importance))
        return joined(records)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Probabilities, attention and both importances of every token."""
        return joined([example_record(*importances(self._model, part)) for part in small_passes(batch)])

    def on_validation_epoch_end(self) -> None:
        """Log every measurement of the validation split under `val/`."""
        self._log_all("val", self.validation_measurements)

    def on_test_epoch_end(self) -> None:
        """Log every measurement of the test split under `test/`."""
        self._log_all("test", self.test_measurements)

    def _log_all(self, split: str, measurements: Measurements) -> None:
        values = {f"{split}/{name}": value for name, value in measurements.compute().items()}
        # Every process has the value of the whole split already. The largest of equal ones is that value to the bit,
        # which their mean is not; without a reduction Lightning warns of each name, because it cannot know.
        self.log_dict(values, sync_dist=True, reduce_fx="max")

    @property
    def validation_names(self) -> list[str]:
        """All that is logged of the validation split; what only some data marks too, where the data is not ours."""
        data: Any = getattr(self.trainer, "datamodule", None)
        marks = data.annotations("validation") if hasattr(data, "annotations") else MARKS
        return [f"val/{name}" for name in self.validation_measurements.measures(marks)]

    # --- checkpoints ----------------------------------------------------------------------------------------------

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # narrower: a file only, never unpickled as code
        cls, checkpoint_path: str | Path, *, trusted: Collection[str] | None = None, **options: Any
    ) -> Self:
        """The module of a checkpoint, as Lightning loads it, once it is known that no foreign code is run.

        Args:
            checkpoint_path: the file.
            trusted: classes outside of this package that the checkpoint may name, such as `my_model.MyModel`; None for
                those that the program has imported itself.
            options: of Lightning's `load_from_checkpoint`, `backbone` for example.

        Raises:
            ConfigurationError: a file that is missing, damaged or of another version, or names a class not trusted.
        """
        contents = read_checkpoint(Path(checkpoint_path))
        check_layout(contents)
        check_checkpoint(contents, trusted)
        return super().load_from_checkpoint(checkpoint_path, **{**options, "weights_only": True})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what `predict` needs on raw text: the data's shape, label names, vocabulary and tokeniser."""
        self._losses.check()
        assert self.spec is not None
        weights = None if self.class_weights is None else self.class_weights.tolist()
        add_checkpoint_contents(checkpoint, self.spec, self.tokenizer_state, weights)
        make_weights_only(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the backbone from what the checkpoint says of its data, and refuse other data."""
        stored = checkpoint_contents(checkpoint)
        if "unnamed_backbone" in stored and self._make_backbone is AttentionClassifier:
            raise ConfigurationError(
                f"Expected `backbone`, because the checkpoint's own, {stored['unnamed_backbone']}, has no name that "
                "could be stored; pass it: `AttentionModule.load_from_checkpoint(path, backbone=...)`."
            )
        self.build(checkpoint_spec(checkpoint), stored=True)
        if self.tokenizer_state is not None and self.tokenizer_state != stored["tokenizer"]:
            raise ConfigurationError(
                "Expected the vocabulary that the checkpoint was trained with, but the data gives another one; use "
                "the data and the data options of that run."
            )
        self.tokenizer_state = stored["tokenizer"]
        weights = stored["class_weights"]
        self.class_weights = None if weights is None else torch.tensor(weights, device=self.device)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; a model of another shape, or one that diverged, is the user's error, not ours."""
        check_finite(state_dict)
        if self._trainer is not None and self.trainer.precision == "64-true":
            self.double()  # Lightning does so after it has loaded them, when they have lost half of their digits
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            raise ConfigurationError(
                f"Expected weights of the configured model, but the checkpoint holds another one: {one_line(error)}; "
                "use the `config.yaml` of its run folder."
            ) from error
