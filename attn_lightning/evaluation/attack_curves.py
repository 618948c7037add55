"""What attacks do to every example: the jobs of a batch, what an attack found, and the curve that it is kept on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attn_lightning.evaluation.family import MODEL, Row
from attn_lightning.metrics.per_example import to_array
from attn_lightning.metrics.robustness import AREAS, CURVES, UnderAttack, area_under_curve
from attn_lightning.types import UNLABELED, AttentionOutput, Batch

Target = Literal["prediction", "label"]
"""The class that an attack leads away from: what the unperturbed model says, or the gold label."""


class Curve:
    """What one attack does to every example at every strength.

    Args:
        setting: `where`, `attack` and `target` of its rows.
        axis: name of the strength in its rows.
        strengths: K rising numbers above 0; the clean model is put before them, at 0.
        num_examples: N.

    Attributes:
        values: (metrics, K + 1, N) float32, NaN where undefined.
    """

    def __init__(self, setting: Mapping[str, str], axis: str, strengths: Sequence[float], num_examples: int) -> None:
        self.setting = setting
        self.axis = axis
        # 0 of the same type: a number of words is shown as 0, a radius as 0.0.
        self.strengths = (type(strengths[0])(0), *strengths)
        self.values = np.full((len(CURVES), len(self.strengths), num_examples), np.nan, np.float32)

    def areas(self) -> Iterator[Row]:
        """One row per metric: the mean height of the curve."""
        for area, values in zip(AREAS, self.values, strict=True):
            yield Row.of(area.name, MODEL, area_under_curve(values.T, np.asarray(self.strengths)), **self.setting)

    def points(self) -> Iterator[Row]:
        """One row per metric and strength."""
        for metric, values in zip(CURVES, self.values, strict=True):
            for strength, numbers in zip(self.strengths, values, strict=True):
                yield Row.of(metric.name, MODEL, numbers, **self.setting, **{self.axis: strength})


Curves = dict[tuple[str, str, str], Curve]
"""By where, attack and target."""


class Job(NamedTuple):
    """Examples of a batch that are attacked together.

    Attributes:
        rows: (b,) their places in the batch; an example may come twice, with two classes.
        classes: (b,) the class that each attack leads away from.
        serves: for every kind of target, (b,) bool: whose result it is.
    """

    rows: Tensor
    classes: Tensor
    serves: Mapping[str, NDArray[np.bool_]]


class Finding(NamedTuple):
    """What one attack of one strength found; `level` is the place of the strength on its curve."""

    where: str
    attack: str
    level: int
    job: Job
    logits: Tensor
    attention: Tensor


@dataclass(frozen=True)
class CleanBatch:
    """A batch together with what the unperturbed model says of it."""

    batch: Batch
    output: AttentionOutput

    @property
    def predicted(self) -> Tensor:
        """(B,) classes, the first of equals."""
        return self.output.logits.argmax(-1)

    def everything(self) -> Job:
        """All examples, for what leads away from no class, and for no attack at all."""
        rows = torch.arange(len(self.batch.rows), device=self.batch.rows.device)
        return Job(rows, self.predicted, {"none": np.ones(len(rows), np.bool_)})

    def jobs(self, targets: Sequence[Target], token_budget: int) -> list[Job]:
        """Every example with every class to lead away from, once: both targets of most examples are the same class.

        Args:
            targets: which are wanted; an example without a label is not attacked for it.
            token_budget: the most tokens of a job, padding included; one example may be longer.
        """
        labels, predicted = self.batch.labels, self.predicted
        everyone = torch.arange(len(labels), device=labels.device)
        first = everyone if "prediction" in targets else everyone[:0]
        second = everyone[:0]
        if "label" in targets:
            # Where the label is what is predicted anyway, the attack of the first half serves both.
            second = everyone[(labels != UNLABELED) & ((labels != predicted) | ("prediction" not in targets))]
        rows, classes = torch.cat([first, second]), torch.cat([predicted[first], labels[second]])
        serves = {
            "prediction": torch.arange(len(rows), device=rows.device) < len(first),
            "label": classes == labels[rows],
        }
        # An example that is attacked for two targets stands twice in a job, so that a batch within the budget need not
        # be one.
        most = max(1, token_budget // self.batch.mask.shape[1])
        parts = [slice(start, start + most) for start in range(0, len(rows), most)]
        return [
            Job(rows[part], classes[part], {target: to_array(serves[target][part]) for target in targets})
            for part in parts
        ]

    def record(self, curves: Curves, finding: Finding) -> None:
        """Put what was found where it belongs."""
        job = finding.job
        values, rows = self._measure(job.rows, finding.logits, finding.attention), to_array(self.batch.rows[job.rows])
        for target, served in job.serves.items():
            curve = curves[finding.where, finding.attack, target]
            curve.values[:, finding.level, rows[served]] = values[:, served]

    def record_clean(self, curves: Curves) -> None:
        """The start of every curve; one for the label has no place for examples without."""
        everything = self.everything()
        values = self._measure(everything.rows, self.output.logits, self.output.attention)
        rows, labeled = to_array(self.batch.rows), to_array(self.batch.labels) != UNLABELED
        for (_, _, target), curve in curves.items():
            served = labeled if target == "label" else np.ones_like(labeled)
            curve.values[:, 0, rows[served]] = values[:, served]

    def _measure(self, rows: Tensor, logits: Tensor, attention: Tensor) -> NDArray[np.float64]:
        """(metrics, b), one line for each of `CURVES`."""
        found = UnderAttack(
            labels=to_array(self.batch.labels[rows]),
            predicted=to_array(logits.argmax(-1)),
            clean=to_array(self.predicted[rows]),
            attention=to_array(attention),
            clean_attention=to_array(self.output.attention[rows]),
            mask=to_array(self.batch.mask[rows]),
        )
        return np.stack([measure(found) for measure in CURVES.values()])
