"""The rows of the family of attention tests, against plain loops and scipy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from attn_lightning.backbone.encoders import Average
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.families.attention_tests import BINS, AttentionTests
from attn_lightning.evaluation.families.shortcut_probe import ShortcutProbe
from attn_lightning.evaluation.subject import Explained, attention_of, no_progress
from attn_lightning.evaluation.suite import options_of
from support.attention import (
    LENGTHS,
    Documents,
    own_model,
    passed,
    small_model,
    subject_of,
)


def measured(subject, **options):
    options = {"num_permutations": 7, "num_steps": 5, "diagnostic": False} | options
    count = len(subject.examples)
    explained = Explained(np.zeros((count, subject.num_classes)), subject.examples.labels, {})
    rows = AttentionTests(**options).run(subject, explained, no_progress)
    return {(row.metric, *row.setting.items()): row for row in rows}


def value(rows, metric, **setting):
    return rows[(metric, *setting.items())].value


def test_uniform_attention_equals_a_loop():
    model, documents = small_model(), Documents()
    rows = measured(subject_of(model, documents))
    changes, flips, right, right_uniform = [], [], [], []
    for row, n in enumerate(LENGTHS):
        batch = documents[[row]]
        with torch.no_grad():
            clean = model(batch.tokens, batch.mask).logits
            uniform = model(batch.tokens, batch.mask, torch.full((1, n), 1 / n)).logits
        right.append(clean.argmax().item() == documents.labels[row])
        right_uniform.append(uniform.argmax().item() == documents.labels[row])
        if n > 1:
            changes.append((clean.softmax(1) - uniform.softmax(1)).abs().sum().item() / 2)
            flips.append(clean.argmax().item() != uniform.argmax().item())
    assert value(rows, "uniform_change") == pytest.approx(np.mean(changes), abs=1e-6)
    assert value(rows, "uniform_flip") == pytest.approx(np.mean(flips))
    assert value(rows, "accuracy", attention="model") == pytest.approx(np.mean(right))
    assert value(rows, "accuracy", attention="uniform") == pytest.approx(np.mean(right_uniform))
    assert rows[("uniform_change",)].n_valid == sum(n > 1 for n in LENGTHS)


def test_the_rows_by_largest_weight_split_the_texts_with_a_choice():
    rows = measured(subject_of(small_model()))
    parts = [rows[("permutation_change", ("max_attention", name))] for name in BINS]
    whole = rows[("permutation_change",)]
    assert sum(part.n_valid for part in parts) == whole.n_valid == sum(n > 1 for n in LENGTHS)
    assert whole.n == len(LENGTHS)
    total = sum(part.n_valid * part.value for part in parts if part.n_valid)
    assert total / whole.n_valid == pytest.approx(whole.value)
    _, output = passed(small_model())
    largest = output.attention.amax(1).numpy()[np.asarray(LENGTHS) > 1]
    assert [part.n_valid for part in parts] == np.histogram(largest, [0, 0.25, 0.5, 0.75, 1.01])[0].tolist()


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 3}, {"token_budget": 8}])
@pytest.mark.parametrize("make", [small_model, own_model])
def test_batches_and_their_padding_change_nothing(make, options):
    subject = subject_of(make().double())
    expected = measured(subject, num_steps=30)
    found = measured(replace(subject, **options), num_steps=30)
    assert list(found) == list(expected)
    for key, row in expected.items():
        assert (found[key].value is None) == (row.value is None)
        if row.value is not None:
            assert found[key].value == pytest.approx(row.value, abs=1e-7)


def test_the_seed_decides_the_draws():
    subject = subject_of(small_model())
    first, again = measured(subject), measured(subject)
    assert first == again
    other = measured(replace(subject, seed=1))
    for metric in ("permutation_change", "adversarial_divergence"):
        assert value(other, metric) != value(first, metric)


def test_unlabelled_examples_have_no_accuracy():
    documents = Documents(labels=[0, 1, -1, 0, -1, 1, 0, 0, 1])
    row = measured(subject_of(small_model(), documents))[("accuracy", ("attention", "model"))]
    assert (row.n_valid, row.n) == (7, 9)


def test_other_models_equal_a_loop_with_scipy():
    model, documents = small_model(), Documents()
    seeds = [small_model(seed=1), small_model(seed=2)]
    rows = measured(subject_of(model, documents), others={"seeds": seeds, "itself": model})
    divergences, changes, right = [], [], []
    for row, n in enumerate(LENGTHS):
        batch = documents[[row]]
        with torch.no_grad():
            ours = model(batch.tokens, batch.mask)
            theirs = [other(batch.tokens, batch.mask) for other in seeds]
        pairs = [(ours.attention[0].double(), other.attention[0].double()) for other in theirs]
        if n > 1:
            divergences.append(np.mean([jensenshannon(a, b) ** 2 for a, b in pairs]))
        changes.append(np.mean([(ours.logits.softmax(1) - o.logits.softmax(1)).abs().sum() / 2 for o in theirs]))
        right.append(np.mean([o.logits.argmax().item() == documents.labels[row] for o in theirs]))
    assert value(rows, "attention_divergence", other="seeds") == pytest.approx(np.mean(divergences), abs=1e-6)
    assert value(rows, "prediction_change", other="seeds") == pytest.approx(np.mean(changes), abs=1e-6)
    assert value(rows, "accuracy", other="seeds") == pytest.approx(np.mean(right))
    assert value(rows, "attention_divergence", other="itself") == pytest.approx(0, abs=1e-9)
    assert value(rows, "prediction_change", other="itself") == 0
    assert value(rows, "accuracy", other="itself") == value(rows, "accuracy", attention="model")


def test_another_model_of_other_classes_is_refused():
    with pytest.raises(ConfigurationError, match=r"'wide'.*2 classes.*3"):
        measured(subject_of(small_model()), others={"wide": small_model(3)})


def test_stored_results_know_the_weights_of_other_models():
    one, same, other = (options_of(AttentionTests(others={"seed": small_model(seed=s)})) for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    "options",
    [{"num_permutations": 0}, {"num_candidates": 0}, {"num_steps": 0}, {"threshold": 1.0}, {"learning_rate": 0.0}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        AttentionTests(**options)


def test_the_adversary_can_be_left_out():
    assert not any(key[0] == "adversarial_divergence" for key in measured(subject_of(small_model()), adversarial=False))


def test_the_diagnostic_compares_the_weights_of_every_model():
    training = Documents((4, 3, 6, 2, 5, 3) * 5, seed=1)
    subject = subject_of(small_model(), training=training)
    seeds = [small_model(seed=1), small_model(seed=2)]
    rows = measured(
        subject, diagnostic=True, adversarial=False, others={"adversary": small_model(seed=3), "seeds": seeds}
    )
    guides = [dict(key[1:])["weights"] for key in rows if key[0] == "diagnostic_accuracy"]
    assert guides == ["model", "other adversary", "other seeds 0", "other seeds 1", "uniform", "random", "learned"]
    assert {key[0] for key in rows if "weights" in dict(key[1:])} == {
        f"diagnostic_{m}" for m in ("accuracy", "f1", "macro_f1")
    }
    again = measured(replace(subject, batch_size=2), diagnostic=True, adversarial=False)
    for guide in ("model", "uniform", "random", "learned"):
        expected = value(rows, "diagnostic_accuracy", weights=guide)
        assert value(again, "diagnostic_accuracy", weights=guide) == pytest.approx(expected)


def test_without_a_training_split_the_diagnostic_says_so():
    rows = measured(subject_of(small_model()), diagnostic=True)
    (key,) = [key for key in rows if key[0].startswith("diagnostic")]
    assert rows[key].value is None
    assert rows[key].setting["missing"] == "no training split"


@pytest.mark.parametrize("training", [None, Documents((3, 4, 2) * 30, seed=1)])
def test_progress_tells_of_every_example_once(training):
    subject, told = subject_of(small_model(), training=training), []
    explained = Explained(np.zeros((9, 2)), subject.examples.labels, {})
    AttentionTests(3, num_steps=2).run(subject, explained, told.append)
    assert sum(told) == len(LENGTHS)
    assert min(told) >= 0


def test_nothing_is_left_behind():
    model = small_model().train()
    with torch.inference_mode():
        measured(subject_of(model, training=Documents((3, 4, 2), seed=1)), diagnostic=True)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_a_frozen_average_encoder_serves_too():
    rows = measured(subject_of(small_model(encoder=Average)))
    assert value(rows, "permutation_change") > 0


def test_the_encoder_runs_once_for_all_tests_on_the_head():
    model, calls = small_model(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    measured(subject_of(model, batch_size=100))
    assert len(calls) == 1


def test_families_share_one_pass_over_the_training_split():
    """The tests of attention and the shortcut probe look at the same attention of the same texts."""
    training = Documents(seed=5)
    subject, read = subject_of(small_model(), training=training), []
    subject.model.register_forward_hook(lambda _, inputs, output: read.append(tuple(inputs[0].shape)))
    attention = attention_of(subject, subject.examples, {"model": subject.model}, no_progress).weights["model"]
    explained = Explained(np.zeros((len(attention), 2)), subject.examples.labels, {"attention": attention})
    read.clear()
    AttentionTests(num_permutations=1, num_steps=1).run(subject, explained, no_progress)
    passes = sum(rows for rows, _ in read)
    assert passes == len(subject.examples) + len(training), "the evaluated split once and the training split once"
    read.clear()
    ShortcutProbe(2, "logistic").run(subject, explained, no_progress)
    assert not read
