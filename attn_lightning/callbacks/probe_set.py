"""Explanations measured during training, on a few validation examples, for early stopping, sweeps and curves."""

import math
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from attn_lightning.checks import check_numbers
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.catalog import chosen_families
from attn_lightning.evaluation.explainers.gradients import native_explanations
from attn_lightning.evaluation.family import MODEL
from attn_lightning.evaluation.naming import logged_name
from attn_lightning.evaluation.out_of_domain import subset
from attn_lightning.evaluation.subject import Explained, Subject, no_progress


class ProbeSet(Callback):
    """Logs measurements of attention on a fixed subset of the validation split after every epoch, as `val/...`.

    Names: `val/faithfulness_aopc_comprehensiveness`, `val/plausibility_auprc`, ... : the family, the metric, and for
    curves the setting, as `val/faithfulness_comprehensiveness_fraction_0.2`. Usable as `--run.monitor`, by Lightning's
    `EarlyStopping` and by sweeps. Attach it by `--trainer.callbacks+=ProbeSet`. Under DDP every process measures the
    same subset and gets the same numbers.

    Args:
        suite: families, separated by commas, as `evaluate --suite` takes them. Each runs once per epoch: choose cheap
            ones.
        num_examples: size of the subset, at least 1.
        every_n_epochs: measure only after each n-th epoch; what is monitored has to be measured with every validation.
        seed: of the subset and of what the families draw.
    """

    logs_validation_metrics = True
    """Its names depend on the suite, so that every monitored one passes the check before training."""

    def __init__(
        self, suite: str = "faithfulness", num_examples: int = 200, every_n_epochs: int = 1, seed: int = 0
    ) -> None:
        check_numbers(self, at_least=1, num_examples=num_examples, every_n_epochs=every_n_epochs)
        chosen_families(suite)
        self.suite = suite
        self.num_examples = num_examples
        self.every_n_epochs = every_n_epochs
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at what is monitored.

        Raises:
            ConfigurationError: it is of this callback, and the first to look at it would find nothing.
        """
        names = tuple(f"val/{family.name}_" for family in chosen_families(self.suite))
        # Without it, validation comes every so many steps, in any epoch.
        validated = trainer.check_val_every_n_epoch or 1
        for each in trainer.callbacks if stage == "fit" else ():  # type: ignore[attr-defined]
            if not (_insists(each) and str(each.monitor).startswith(names)):
                continue
            looks = math.lcm(validated, each.every_n_epochs or 1) if isinstance(each, ModelCheckpoint) else validated
            if looks % self.every_n_epochs:
                raise ConfigurationError(
                    f"Expected a monitored metric that every validation measures, but got {each.monitor!r} of a "
                    f"ProbeSet with `every_n_epochs: {self.every_n_epochs}`; leave that out, or set "
                    f"`trainer.check_val_every_n_epoch` to {self.every_n_epochs}."
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        # The rehearsal of the validation measures a model before any training.
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = pl_module
        if not hasattr(data, "examples"):
            raise ConfigurationError(
                f"Expected a data module with `examples(split)` for ProbeSet, but got {type(data).__name__}; leave the "
                "callback out."
            )
        # Made anew in every epoch, as the model moves; the subset depends on the seed alone and is always the same.
        subject = Subject(
            model=module.backbone,
            examples=subset(data.examples("validation"), self.num_examples, self.seed),
            num_classes=module.spec.num_classes,
            erased=None if module.spec.segment_shape else 1,
            seed=self.seed,
            device=module.device,
        )
        probabilities, labels, explanations = native_explanations(subject, ["attention"], no_progress)
        explained = Explained(probabilities, labels, explanations)
        for family in chosen_families(self.suite):
            if (reason := family.unavailable(subject)) is not None:
                raise ConfigurationError(
                    f"Expected a family that can be measured on this data for ProbeSet, but {family.name} cannot: "
                    f"{reason}; choose another `suite`."
                )
            for row in family.run(subject, explained, no_progress):
                if row.explainer in ("attention", MODEL):
                    value = np.nan if row.value is None else row.value
                    # The same on all processes; see `AttentionModule` for the reduction.
                    pl_module.log(f"val/{logged_name(family.name, row)}", float(value), sync_dist=True, reduce_fx="max")


def _insists(callback: Callback) -> bool:
    """Whether the callback ends a run that has not measured what it monitors."""
    return isinstance(callback, ModelCheckpoint) or (isinstance(callback, EarlyStopping) and callback.strict)
