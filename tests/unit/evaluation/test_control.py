"""The linear control against scikit-learn's own pipeline."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from attn_lightning.data.planted import Planted
from attn_lightning.evaluation import control
from attn_lightning.evaluation.control import control_metrics, tfidf_logistic_regression


def corpus(count: int, classes: int, seed: int) -> tuple[list[str], list[int]]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count).tolist()
    words = [f"filler{number}" for number in range(30)]
    texts = [
        " ".join([*generator.choice(words, 6), f"sign{label}" if generator.random() < 0.7 else "none"])
        for label in labels
    ]
    return texts, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_figures_are_scikit_learns(classes):
    train, test = corpus(200, classes, 0), corpus(60, classes, 1)
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(C=10.0, max_iter=1000)
    ).fit(*train)
    probabilities = pipeline.predict_proba(test[0])
    ours = tfidf_logistic_regression(train, test, classes)
    assert ours["accuracy"] == pytest.approx(accuracy_score(test[1], probabilities.argmax(1)), abs=1e-6)
    assert ours["log_loss"] == pytest.approx(log_loss(test[1], probabilities), abs=1e-4)
    if classes == 2:
        assert ours["auroc"] == pytest.approx(roc_auc_score(test[1], probabilities[:, 1]), abs=1e-5)


def test_it_is_deterministic():
    train, test = corpus(150, 2, 0), corpus(30, 2, 1)
    assert tfidf_logistic_regression(train, test, 2) == tfidf_logistic_regression(train, test, 2)


def test_a_class_without_training_texts_gets_probability_zero():
    train = (["one two", "three four"] * 20, [0, 2] * 20)
    ours = tfidf_logistic_regression(train, (["one two", "three four", "five"], [0, 2, 1]), 3)
    assert ours["accuracy"] == pytest.approx(2 / 3)
    assert np.isfinite(ours["log_loss"])


def test_a_corpus_of_rare_words_keeps_its_vocabulary():
    texts = [f"only{number} {'good' if number % 2 else 'bad'}{number}" for number in range(20)]
    ours = tfidf_logistic_regression((texts, [number % 2 for number in range(20)]), (texts, [1, 0] * 10), 2)
    assert 0 <= ours["accuracy"] <= 1


@pytest.mark.parametrize("between", ["", " "])
def test_characters_of_a_script_without_spaces_are_words(between):
    generator = np.random.default_rng(0)
    labels = [0, 1] * 200
    texts = [between.join([*generator.choice(list("天地玄黄宇宙洪荒日月"), 12), "好坏"[label]]) for label in labels]
    ours = tfidf_logistic_regression((texts[:300], labels[:300]), (texts[300:], labels[300:]), 2)
    assert ours["accuracy"] > 0.95


def test_sequences_of_single_letters_have_a_control():
    generator = np.random.default_rng(0)
    labels = [0, 1] * 100
    texts = [" ".join([*generator.choice(list("abcd"), 8), "xy"[label]]) for label in labels]
    ours = tfidf_logistic_regression((texts[:150], labels[:150]), (texts[150:], labels[150:]), 2)
    assert ours["accuracy"] > 0.95


def test_the_figures_are_made_once_per_data(tmp_path, monkeypatch):
    data = Planted(train_documents=60, validation_documents=10, test_documents=20, cache=tmp_path)
    data.prepare_data()
    data.setup()
    first = control_metrics(data)
    expected = tfidf_logistic_regression(
        (data.texts("train"), list(data.dataset("train")["label"])),
        (data.texts("test"), list(data.dataset("test")["label"])),
        2,
    )
    assert first == pytest.approx(expected)
    monkeypatch.setattr(control, "tfidf_logistic_regression", lambda *_: pytest.fail("made again"))
    assert control_metrics(data) == first
    other = Planted(train_documents=60, validation_documents=10, test_documents=20, cache=tmp_path, seed=1)
    other.prepare_data()
    other.setup()
    with pytest.raises(pytest.fail.Exception, match="made again"):
        control_metrics(other)
