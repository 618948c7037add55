"""What the tests of figures and pages share: a small model of mosaics, lines of a figure, and run folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attn_lightning.backbone import AttentionClassifier
from attn_lightning.backbone.segments import FullyConnectedClassifier, FullyConnectedFocus
from attn_lightning.data.segments import MosaicExamples, Mosaics, Points
from attn_lightning.evaluation.subject import Subject
from attn_lightning.types import DataSpec
from support.run_folders import make_run as make_run_folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes a run folder `<root>/<name>/<version>`; see `support.run_folders`."""

    def make(*names: str, root: Path | None = None, **options: Any) -> Path:
        return make_run_folder(root or tmp_path / "runs", *names, **options)

    return make


@pytest.fixture
def mosaic_model() -> Callable[..., AttentionClassifier]:
    def build(layer: int = 0, shape: tuple[int, ...] = (2,)) -> AttentionClassifier:
        torch.manual_seed(3)
        return AttentionClassifier(
            DataSpec(3, 0, int(np.prod(shape)), ("a", "b", "c"), segment_shape=shape),
            focus=lambda s: FullyConnectedFocus(s, widths=(5, 4), layer=layer),
            classifier=lambda s, classes: FullyConnectedClassifier(s, classes, widths=(6,)),
        ).eval()

    return build


@pytest.fixture
def mosaic_examples() -> Callable[..., MosaicExamples]:
    def build(count: int = 30, shape: tuple[int, ...] = (2,)) -> MosaicExamples:
        random = np.random.default_rng(5)
        pool = Points(random.uniform(-1, 1, (count * 4, *shape)), random.integers(0, 3, count * 4))
        places, position = np.arange(count * 4).reshape(count, 4), random.integers(0, 4, count)
        return MosaicExamples(pool, Mosaics(places, pool.classes[places[np.arange(count), position]], position))

    return build


@pytest.fixture
def mosaic_subject(mosaic_model, mosaic_examples) -> Callable[..., Subject]:
    def build(layer: int = 0, shape: tuple[int, ...] = (2,), **options: int) -> Subject:
        return Subject(mosaic_model(layer, shape), mosaic_examples(shape=shape), 3, **options)

    return build


@pytest.fixture
def lines() -> Callable[[Figure, str], list[Line2D]]:
    def marked(figure: Figure, name: str) -> list[Line2D]:
        return [line for axes in figure.axes for line in axes.lines if line.get_gid() == name]

    return marked
