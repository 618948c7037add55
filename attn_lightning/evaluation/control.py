"""The control row of every results table: a linear model on TF-IDF features, without any attention."""

import hashlib
import json
import logging
import math
from typing import Any, TypeGuard

import numpy as np
import torch

from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.text import UNSPACED
from attn_lightning.files import write_json
from attn_lightning.metrics.prediction import prediction_metrics

logger = logging.getLogger(__name__)

_VERSION = 2
"""Part of the cache key: raised whenever the same data would give other numbers."""

_WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]{{2,}}"
"""scikit-learn's words of two letters or more, and each character of a script that writes no spaces between words."""


def is_text(data: Any) -> TypeGuard[TextDataModule]:
    """Whether a data module gives what the control learns from: texts and their labels."""
    return hasattr(data, "training_examples") and hasattr(data, "whole_texts")


def control_metrics(data: TextDataModule) -> dict[str, float | None]:
    """Metrics of `tfidf_logistic_regression` on the prepared training and test texts of a data module.

    It learns from the training labels that the run is shown, no others.
    They depend on the texts alone, so they are kept in the cache and shared by all methods and seeds of a data set. A
    metric that is undefined on these labels is None.
    """
    splits = data.manifest["splits"]
    # By what was read and not by its name: other texts or other labels never find these numbers.
    content = [_VERSION, data.label_names, splits["train"]["sha256"], splits["test"]["sha256"]]
    if "labeled" in data.manifest:
        content.append(data.manifest["labeled"]["sha256"])
    path = data.cache / "controls" / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.json"
    if not path.exists():
        logger.info("control: TF-IDF logistic regression on %s texts", len(data.labeled_rows))
        train, test = data.training_examples(), (data.whole_texts("test"), list(data.dataset("test")["label"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        found = tfidf_logistic_regression(train, test, len(data.label_names))
        write_json(path, {name: value if math.isfinite(value) else None for name, value in found.items()})
    metrics: dict[str, float | None] = json.loads(path.read_text("utf-8"))
    return metrics


def tfidf_logistic_regression(
    train: tuple[list[str], list[int]], test: tuple[list[str], list[int]], num_classes: int
) -> dict[str, float]:
    """Prediction metrics of a logistic regression on TF-IDF features of words and word pairs.

    scikit-learn's `TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)` and
    `LogisticRegression(C=10)`; no value was tuned on any test split. Deterministic. Of Han, Kana, Thai and the like
    every character is a word. Where that leaves no word that occurs twice, as in sequences of single letters, whatever
    stands between spaces is one.

    Args:
        train: texts and labels to fit.
        test: texts and labels to measure.
        num_classes: C; a class that is missing in `train` gets probability 0.

    Returns:
        The metrics of `attn_lightning.metrics.prediction`, by name.
    """
    # Imported where it is used: no command that trains no control waits for it.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = train
    # A corpus of only rare words would lose its whole vocabulary to min_df = 2.
    usual = {"ngram_range": (1, 2), "sublinear_tf": True}
    vectorizer = TfidfVectorizer(**usual, token_pattern=_WORD, min_df=2 if len(texts) > 100 else 1)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # that no word is left
        vectorizer = TfidfVectorizer(**usual, token_pattern=r"\S+")
        features = vectorizer.fit_transform(texts)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels)
    probabilities = np.zeros((len(test[0]), num_classes), dtype=np.float32)
    # scikit-learn leaves classes out that it has not seen; the metrics count on C columns.
    probabilities[:, model.classes_] = model.predict_proba(vectorizer.transform(test[0]))
    metrics = prediction_metrics(num_classes)
    metrics.update(torch.from_numpy(probabilities).clamp_min(1e-12).log(), torch.tensor(test[1]))
    return {name: float(value) for name, value in metrics.compute().items()}
