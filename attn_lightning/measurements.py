"""What is measured of a split while a model is trained and tested: the metrics, their names, who waits for them."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torchmetrics import MetricCollection

from attn_lightning.errors import ConfigurationError, did_you_mean
from attn_lightning.metrics.agreement import agreement_metrics
from attn_lightning.metrics.evidence import evidence_metrics, shortcut_metrics
from attn_lightning.metrics.measure import MANY, Measure, by_name
from attn_lightning.metrics.prediction import prediction_metrics
from attn_lightning.types import AttentionOutput, Batch

IMPORTANCES = ("gradient", "hidden")
"""What attention is compared with; see `attn_lightning.backbone.importance`."""

MARKS = ("rationale", "shortcut")
"""What data may mark in its texts."""

TRAINING = by_name(
    (
        Measure("loss", "objective of the training, mean over the epoch", -MANY, MANY, False),
        Measure("task", "task loss of the training, mean over the epoch", -MANY, MANY, False),
    )
)
"""What every training logs under `train/`, beside the terms of its methods."""


class Measurements(nn.Module):
    """All metrics of one split: they are fed batch by batch, named in one place, and computed at the end of the split.

    - prediction: `attn_lightning.metrics.prediction`, as `accuracy`;
    - agreement of attention with every importance: `attn_lightning.metrics.agreement`, as `gradient_kendall_mean`;
    - where the data marks rationales: `attn_lightning.metrics.evidence`, as `evidence_hit_mean`;
    - where the data plants a shortcut: the same, as `shortcut_use_mean`.

    It holds no weights, so that a checkpoint does not depend on what is measured.

    Args:
        num_classes: C.
        agreement: whether attention is compared with importances.
    """

    def __init__(self, num_classes: int, agreement: bool = True) -> None:
        super().__init__()
        # A group is computed as a whole or not at all: what needs marks is a group of its own.
        groups: dict[str, MetricCollection] = {"prediction": prediction_metrics(num_classes)}
        if agreement:
            groups |= {kind: agreement_metrics() for kind in IMPORTANCES}
        # Submodules, so that their states move to the device with the module.
        self._groups = nn.ModuleDict({**groups, "rationale": evidence_metrics(), "shortcut": shortcut_metrics()})

    def update(self, output: AttentionOutput, batch: Batch) -> None:
        """Add the predictions of a batch, and what its marks tell of attention."""
        self._group("prediction").update(output.logits, batch.labels)
        known = {
            # Detached: a metric keeps no graph, but one that computes from its input would build one.
            "attention": output.attention.detach(),
            "mask": batch.mask,
            "predicted": output.logits.argmax(-1),
            "labels": batch.labels,
        }
        if batch.rationale is not None:
            self._group("rationale").update(**known, rationale=batch.rationale)
        if batch.shortcut is not None:
            self._group("shortcut").update(**known, shortcut=batch.shortcut, shortcut_class=batch.shortcut_class)

    def update_agreement(self, output: AttentionOutput, importance: dict[str, Tensor]) -> None:
        """Add the agreement of attention with the importances of a batch, (B, T) by kind."""
        for kind, values in importance.items():
            self._group(kind).update(output.attention.detach(), values, output.mask)

    def measures(self, marks: Collection[str] = MARKS) -> dict[str, Measure]:
        """What `compute` gives on data with these marks, by name."""
        names = (name for name in self._groups if name not in MARKS or name in marks)
        return by_name(measure for name in names for measure in self._declared(name))

    def compute(self) -> dict[str, Tensor]:
        """Every metric of the split by name, over all processes together; the next split starts afresh."""
        results: dict[str, Tensor] = {}
        for name in self._groups:
            group = self._group(name)
            # Data without marks leaves theirs untouched, on all processes alike: no process waits for another here.
            if name not in MARKS or next(iter(group.values())).update_called:
                results |= {_prefix(name) + key: value for key, value in group.compute().items()}
                group.reset()
        return results

    def _group(self, name: str) -> MetricCollection:
        return cast(MetricCollection, self._groups[name])

    def _declared(self, name: str) -> Iterator[Measure]:
        group = self._group(name)
        for metric in [group] if hasattr(group, "measures") else group.values():
            for measure in cast(Iterable[Measure], metric.measures):
                sentence = f"attention against importance by {name}: {measure.meaning}" if _prefix(name) else None
                yield measure.called(_prefix(name) + measure.name, sentence)


def _prefix(group: str) -> str:
    """Both importances have metrics of the same names."""
    return f"{group}_" if group in IMPORTANCES else ""


class EpochMeans:
    """Means over the steps of an epoch; a log entry at every step would cost more than the term of a method."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add a step: () values by name; no graph is kept."""
        for name, value in values.items():
            # Kept on the device as a tensor: `.item()` would make the CPU wait for the GPU at every step.
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._num_steps += 1

    def compute(self) -> dict[str, Tensor]:
        """The means by name; the next epoch starts afresh."""
        means = {name: total / self._num_steps for name, total in self._sums.items()}
        self._sums, self._num_steps = {}, 0
        return means


class Probe:
    """A fixed random subset of the rows of a split, for what is too dear to measure on all of them.

    The same rows come at every epoch and with every batch size and number of processes, so that epochs compare.

    Args:
        size: rows of the split.
        count: rows of the subset; all if it is larger.
    """

    def __init__(self, size: int, count: int) -> None:
        self.chosen = torch.zeros(size, dtype=torch.bool)
        # Seed 0 whatever the run's, so that runs of several seeds are measured on the same rows.
        self.chosen[torch.from_numpy(np.random.default_rng(0).permutation(size)[:count])] = True

    def part_of(self, batch: Batch) -> Batch | None:
        """The rows of a batch that are in the subset, without marks; None if there are none."""
        # By the number of the row: it finds its own ones in whatever batch and process they come.
        inside = self.chosen[batch.rows.cpu()].to(batch.rows.device)
        if not bool(inside.any()):
            return None
        return Batch(*(value[inside] for value in (batch.tokens, batch.mask, batch.labels, batch.rows)))


def example_record(output: AttentionOutput, importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a run record keeps of every example: (B, C) probabilities, (B, T) attention and importances, detached."""
    return {
        "probabilities": output.logits.detach().float().softmax(-1),
        "attention": output.attention.detach(),
        **importance,
    }


def joined(records: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The records of the parts of a batch as that of the batch."""
    return {name: torch.cat([record[name] for record in records]) for name in records[0]}


def check_monitors(callbacks: Iterable[Callback], known: Iterable[str]) -> None:
    """Refuse a checkpoint or an early stopping that waits for a metric which the run does not have.

    Such a name would be noticed after the first epoch only. Names under `train/` pass, since methods choose theirs.
    With a callback of the user's own in the run, or one that measures (`ProbeSet`), every name passes, because it may
    log under any.

    Args:
        callbacks: of the trainer.
        known: the names of the validation metrics.

    Raises:
        ConfigurationError: naming the nearest known metrics, or all of them.
    """
    callbacks, known = list(callbacks), sorted(known)
    if any(_may_log(callback) for callback in callbacks):
        return
    for name in _monitored(callbacks):
        if name in known or name in ("epoch", "step") or name.startswith("train/"):
            continue
        hint = did_you_mean(name, known) or f" Use one of {', '.join(known)}."
        raise ConfigurationError(
            f"Expected a monitored metric of the validation split, but got {name!r}, which nothing logs here.{hint}"
        )


def _monitored(callbacks: Iterable[Callback]) -> Iterator[str]:
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.monitor is not None:
            yield callback.monitor


def _may_log(callback: Callback) -> bool:
    """Whether the callback may log names that do not begin with `train/`: of ours and Lightning's only one does."""
    # A callback of someone else may log under any name, which nobody can know before it does.
    package = type(callback).__module__.partition(".")[0]
    logs = getattr(callback, "logs_validation_metrics", False) or package not in ("attn_lightning", "lightning")
    # `Combined` and `Scheduled` hand every hook on: their parts log.
    return logs or any(_may_log(part) for part in getattr(callback, "parts", ()))
