"""The estimate of an evaluation's time, on parts whose time is known because they wait."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.evaluation.estimate import FEWEST, estimated_seconds
from attn_lightning.evaluation.explainer import Explainer
from attn_lightning.evaluation.explainers.gradients import Attention
from attn_lightning.evaluation.family import Family, Row
from attn_lightning.evaluation.folder import Parts
from attn_lightning.evaluation.out_of_domain import Subset
from attn_lightning.evaluation.progress import Progress
from attn_lightning.evaluation.subject import Subject
from attn_lightning.evaluation.suite import Plan, measure
from attn_lightning.types import Batch, DataSpec

COUNT = 400


class Texts:
    """Texts of 1 to 8 words."""

    lengths = 1 + np.arange(COUNT) % 8

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, rows: Any) -> Batch:
        lengths = torch.from_numpy(self.lengths[list(rows)])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        return Batch(mask.long() * 3, mask, torch.tensor(list(rows)) % 2, torch.tensor(list(rows)))


class Slow(Explainer):
    """Takes half a millisecond for every word."""

    name = "slow"

    def scores(self, subject: Subject, batch: Batch) -> torch.Tensor:
        time.sleep(0.0005 * int(batch.mask.sum()))
        return batch.mask.float()


class Once(Family):
    """Takes a tenth of a second, whatever the number of texts."""

    name = "once"
    heading = ""
    measures: dict[str, Any] = {}  # noqa: RUF012

    def run(self, subject: Subject, explained: Any, advance: Any) -> list[Row]:
        time.sleep(0.1)
        advance(len(subject.examples))
        return []


@pytest.fixture
def subject() -> Subject:
    model = AttentionClassifier(DataSpec(2, 12, 4, ("a", "b")), encoder=Average).eval()
    return Subject(model, Texts(), 2, erased=1)


def test_it_is_near_the_time_of_what_is_missing_and_nothing_where_nothing_is(subject: Subject, tmp_path: Path) -> None:
    plan, parts = Plan([Once()], {"attention": Attention(), "slow": Slow()}), Parts(tmp_path)
    words = 0.0005 * int(Texts.lengths.sum())
    # On a machine at work waits are longer than asked for.
    assert words / 2 < estimated_seconds(subject, plan, parts) < 4 * words + 2
    measure(subject, Plan([], {"attention": Attention(), "slow": Slow()}), parts, Progress())
    assert 0.1 <= estimated_seconds(subject, plan, parts) < 0.1 + words
    measure(subject, plan, parts, Progress())
    assert estimated_seconds(subject, plan, parts) == 0


def test_few_examples_are_measured_at_once(subject: Subject, tmp_path: Path) -> None:
    class Never(Once):
        def run(self, subject: Subject, explained: Any, advance: Any) -> list[Row]:
            raise AssertionError("measured for an estimate that costs as much")

    few = replace(subject, examples=Subset(subject.examples, np.arange(FEWEST - 1)))
    assert estimated_seconds(few, Plan([Never()], {"attention": Attention()}), Parts(tmp_path)) == 0
