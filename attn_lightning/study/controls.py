"""The rows of a study's tables that need no attention: a linear model, and always the most frequent class."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from attn_lightning.metrics.prediction import prediction_metrics

LINEAR = "TF-IDF linear (control)"
MAJORITY = "majority class (control)"


def control_values(records: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[float]]:
    """A metric of the test split for every control, one value per run that has it.

    Args:
        records: of runs on the same data.
        metric: such as `test/accuracy`; one of another split has no controls.
    """
    split, _, name = metric.partition("/")
    # They are measured on the test split alone, once per data set.
    if split != "test":
        return {}
    measured = {
        MAJORITY: [_majority(record.get("data")) for record in records],
        LINEAR: [record.get("control", {}).get("tfidf_logistic_regression", {}) for record in records],
    }
    values = {
        control: [float(each[name]) for each in found if each.get(name) is not None and math.isfinite(each[name])]
        for control, found in measured.items()
    }
    return {control: found for control, found in values.items() if found}


def _majority(manifest: Mapping[str, Any] | None) -> Mapping[str, float]:
    """The metrics of a model that knows how often each class stands in the training labels it is shown, and no text."""
    try:
        splits = (manifest or {})["splits"]
        # With hidden labels a model sees no other frequencies than those of the shown ones.
        shown = (manifest or {}).get("labeled") or splits["train"]
        train, test = shown["classes"], splits["test"]["classes"]
        names = list(train)
        counts = tuple(int(train[name]) for name in names), tuple(int(test.get(name, 0)) for name in names)
    except (KeyError, TypeError, ValueError):
        return {}  # data of the user's own, and data of segments, whose manifests count no classes
    return majority_metrics(*counts)


@lru_cache
def majority_metrics(train: tuple[int, ...], test: tuple[int, ...]) -> Mapping[str, float]:
    """Metrics of the constant prediction `p_c = n_c / sum n` of the training labels.

    Args:
        train: number of training examples n_c by class.
        test: number of test examples by class.

    Returns:
        The metrics of `attn_lightning.metrics.prediction`, NaN where undefined; empty without examples or for one
        class. `accuracy` is the share of the most frequent training class among the test examples.
    """
    if len(train) < 2 or not sum(train) or not sum(test):
        return {}
    share = torch.tensor(train, dtype=torch.float64) / sum(train)
    labels = torch.from_numpy(np.repeat(np.arange(len(test)), test))
    metrics = prediction_metrics(len(train))
    # A class without a training example would have a log loss of infinity by itself.
    metrics.update(share.clamp_min(1e-12).log().float().expand(len(labels), -1), labels)
    return {name: float(value) for name, value in metrics.compute().items()}
