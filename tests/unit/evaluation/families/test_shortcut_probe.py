"""Shortcut probe: texts whose label is told by positions, by length or by nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.families.shortcut_probe import ShortcutProbe
from attn_lightning.evaluation.subject import Explained, Subject, attention_of, no_progress
from attn_lightning.types import AttentionOutput, Batch


class Texts:
    """The first word of a text is its label + 1, all others are 3."""

    def __init__(self, lengths, labels):
        self.lengths = np.asarray(lengths)
        self.labels = np.asarray(labels)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows):
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.where(mask, 3, 0)
        tokens[:, 0] = np.maximum(self.labels[rows], 0) + 1
        return Batch(*(torch.from_numpy(part) for part in (tokens, mask, self.labels[rows], np.asarray(rows))))


class Selector(Backbone):
    """Attends to the first or the last token, by the first word or whatever it is."""

    def __init__(self, tells):
        super().__init__()
        self.tells = tells
        self.layer = nn.Linear(1, 2)

    def embed(self, tokens):
        return tokens.unsqueeze(-1).float()

    def encode(self, embeddings, mask):
        return embeddings

    def score(self, hidden, mask):
        places = torch.arange(mask.shape[1]).expand(mask.shape)
        sign = torch.where(hidden[:, :1, 0] == 1, 1.0, -1.0) if self.tells else 1.0
        return sign * places.float()

    def attend(self, hidden, scores, mask, attention=None):
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.layer(context), weights, scores, hidden, context, mask)


def texts(count, seed, labels=None):
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, 2, count)
    return Texts(generator.integers(6, 15, count), drawn if labels is None else labels(drawn))


def subject_of(tells=True, train=None, test=None, **options):
    return Subject(Selector(tells), test or texts(200, 1), 2, training=train or texts(400, 0), **options)


def explained(subject):
    attention = attention_of(subject, subject.examples, {"model": subject.model}, no_progress).weights["model"]
    return Explained(np.zeros((len(attention), 2)), subject.examples.labels, {"attention": attention})


def measured(subject, **options):
    rows = ShortcutProbe(**{"probe": "logistic", **options}).run(subject, explained(subject), no_progress)
    return {(row.metric, row.explainer, *row.setting.values()): row for row in rows}


@pytest.mark.parametrize("probe", ["boosting", "logistic"])
def test_a_selection_that_tells_the_label_is_found_out(probe):
    rows = measured(subject_of(), k=2, probe=probe)
    for masks in ("top 2", "profile"):
        assert rows[("shortcut_accuracy", "model", masks)].value == 1
        gain = rows[("shortcut_gain", "model", masks)].value
        assert gain == pytest.approx(1 - rows[("majority_rate", "model")].value)
        assert abs(rows[("shortcut_gain", "random", masks)].value) < 0.15


def test_a_selection_that_tells_nothing_gains_nothing():
    rows = measured(subject_of(tells=False), k=2)
    for masks in ("top 2", "profile"):
        assert abs(rows[("shortcut_gain", "model", masks)].value) < 0.15


def test_a_label_told_by_the_length_is_no_shortcut_of_the_selection():
    def by_length(count, seed):
        found = texts(count, seed)
        return Texts(found.lengths, (found.lengths > 9).astype(np.int64))

    rows = measured(subject_of(tells=False, train=by_length(400, 0), test=by_length(200, 1)), k=2)
    assert rows[("shortcut_accuracy", "random", "profile")].value == 1
    assert rows[("shortcut_accuracy", "model", "profile")].value == 1


def test_the_majority_is_that_of_the_training_split():
    train = texts(60, 0, lambda drawn: np.where(np.arange(60) < 40, 1, 0))
    test = texts(50, 1, lambda drawn: np.where(np.arange(50) < 10, 1, 0))
    row = measured(subject_of(train=train, test=test), k=2)[("majority_rate", "model")]
    assert (row.value, row.n_valid) == (pytest.approx(0.2), 50)


def test_unlabelled_examples_are_left_out():
    train = texts(60, 0, lambda drawn: np.where(np.arange(60) < 10, -1, drawn))
    test = texts(50, 1, lambda drawn: np.where(np.arange(50) < 20, -1, drawn))
    row = measured(subject_of(train=train, test=test), k=2)[("shortcut_accuracy", "model", "top 2")]
    assert (row.value, row.n_valid, row.n) == (1, 30, 50)


@pytest.mark.parametrize("label", [1, -1])
def test_one_class_alone_leaves_the_probe_undefined(label):
    rows = measured(subject_of(train=texts(20, 0, lambda drawn: np.full(20, label))), k=2)
    row = rows[("shortcut_accuracy", "model", "top 2")]
    assert row.value is None
    assert row.n_valid == 0
    assert (rows[("majority_rate", "model")].value is None) == (label == -1)


def test_batches_change_nothing_and_the_seed_decides_the_random_masks():
    subject = subject_of()
    first = measured(subject, k=2)
    assert measured(subject, k=2) == first
    assert measured(replace(subject, batch_size=7, token_budget=60), k=2) == first
    other = measured(replace(subject, seed=1), k=2)
    names = [("shortcut_accuracy", "random", masks) for masks in ("top 2", "profile")]
    assert [other[name].value for name in names] != [first[name].value for name in names]


def test_without_a_training_split_it_is_unavailable():
    assert ShortcutProbe().unavailable(subject_of()) is None
    reason = ShortcutProbe().unavailable(replace(subject_of(), training=None))
    assert reason is not None
    assert "training" in reason


def test_progress_tells_of_every_example_once():
    subject, told = subject_of(), []
    ShortcutProbe(2, "logistic").run(subject, explained(subject), told.append)
    assert sum(told) == 200


@pytest.mark.parametrize("options", [{"k": 0}, {"probe": "forest"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ShortcutProbe(**options)
