"""Huge radii, scores and learning rates: a training stays finite, or ends with the error that names step and term."""

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

import attn_lightning.methods
from attn_lightning.backbone.bottleneck import BottleneckClassifier, GaussianBottleneck
from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import NumericalError
from attn_lightning.methods import L2X, InformationBottleneck, Method, ModelConsistentAdversary
from attn_lightning.module import AttentionModule
from attn_lightning.testing.small import settings_of
from support.training import QUIET

MADE_OF_OTHERS = ("Combined", "Scheduled", "Method")


def methods() -> Iterator[type[Method]]:
    for name in attn_lightning.methods.__all__:
        value = getattr(attn_lightning.methods, name)
        if isinstance(value, type) and issubclass(value, Method) and name not in MADE_OF_OTHERS:
            yield value


METHODS = [cls for cls in methods() if not issubclass(cls, ModelConsistentAdversary | L2X)]  # need a trained model
WITH_RADIUS = [cls for cls in METHODS if "epsilon" in inspect.signature(cls).parameters]
QUICK = ("AttentionIVAT", "WordIVAT", "InformationBottleneck")
"""One of each family, in every run of the tests: with all the others it is a minute of small trainings."""


def each(classes: list[type[Method]]) -> pytest.MarkDecorator:
    marks = {cls: () if cls.__name__ in QUICK else (pytest.mark.slow,) for cls in classes}
    return pytest.mark.parametrize("cls", [pytest.param(cls, marks=marks[cls], id=cls.__name__) for cls in classes])


class HugeScores(Callback):
    """Multiply the last layer of every scorer, so that scores are about 1e30."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        with torch.no_grad():
            for name, parameter in pl_module.backbone.named_parameters():
                if name.endswith("scorer.vector.weight"):
                    parameter.mul_(1e31)


class SpoiltAtTheEnd(Callback):
    """Weights that are no number from the last step of an epoch on."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.is_last_batch:
            with torch.no_grad():
                pl_module.backbone.classifier.weight.fill_(torch.nan)


def fit(
    folder: Path, *callbacks: Callback, learning_rate: float = 1e-3, max_epochs: int = 2, backbone: Any = None
) -> None:
    """Train and test; every logged number must be finite."""
    torch.manual_seed(0)
    required = [callback.requires_backbone for callback in callbacks if isinstance(callback, Method)]
    made = AttentionClassifier if all(issubclass(AttentionClassifier, cls) for cls in required) else required[0]
    data = Planted(
        train_documents=24,
        validation_documents=8,
        test_documents=8,
        max_length=18,
        batch_size=8,
        embeddings=RandomEmbeddings(4),
        cache=folder.parent / "cache",  # that of the run of the tests: the texts are prepared once
    )
    module = AttentionModule(made if backbone is None else backbone, learning_rate=learning_rate, num_probe_examples=0)
    trainer = Trainer(
        callbacks=list(callbacks),
        max_epochs=max_epochs,
        limit_val_batches=1,
        default_root_dir=folder,
        **QUIET,
    )
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    assert logged
    assert all(torch.isfinite(torch.tensor(value)) for value in logged.values()), logged
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def finite_or_named(term: str, folder: Path, *callbacks: Callback, **options: Any) -> None:
    try:
        fit(folder, *callbacks, **options)
    except NumericalError as error:
        message = str(error)
        assert "step" in message
        assert term in message


def small(cls: type[Method], **options: Any) -> tuple[Method, int]:
    settings = settings_of(cls)
    return cls(**settings.options, **options), settings.num_epochs


@each(WITH_RADIUS)
def test_a_radius_of_a_million_stays_finite(cls: type[Method], tmp_path: Path) -> None:
    method, num_epochs = small(cls, epsilon=1e6)
    fit(tmp_path, method, max_epochs=num_epochs)


@each(METHODS)
def test_a_learning_rate_of_a_thousand_is_finite_or_named(cls: type[Method], tmp_path: Path) -> None:
    method, num_epochs = small(cls)
    finite_or_named("", tmp_path, method, max_epochs=num_epochs, learning_rate=1e3)


@each(METHODS)
def test_scores_of_1e30_are_finite_or_named(cls: type[Method], tmp_path: Path) -> None:
    method, num_epochs = small(cls)
    finite_or_named("task = ", tmp_path, method, HugeScores(), max_epochs=num_epochs)


@pytest.mark.parametrize(("schedule", "options"), [("alternate", {}), ("joint", {"learnable_prior": True})])
def test_the_gaussian_bottleneck_names_its_term(schedule: Any, options: dict[str, Any], tmp_path: Path) -> None:
    method = InformationBottleneck(warmup_epochs=1, num_rounds=1, schedule=schedule)
    backbone = partial(BottleneckClassifier, compressor=partial(GaussianBottleneck, **options))
    with pytest.raises(NumericalError, match=r"task = .*bottleneck = .* at step \d+ of epoch \d"):
        fit(tmp_path, method, max_epochs=3, learning_rate=1e3, backbone=backbone)


def test_weights_that_became_nan_in_the_last_step_are_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match=r"finite logits on the validation split, .* after step 3"):
        fit(tmp_path, SpoiltAtTheEnd(), max_epochs=1)
