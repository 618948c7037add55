"""The robustness family: its rows against plain loops over attacks, and what must not change them."""

import logging
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.spatial.distance import jensenshannon
from torch import nn

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import BiLSTM
from attn_lightning.backbone.importance import differentiable
from attn_lightning.backbone.protocol import Backbone
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.families.robustness import Robustness, word_budgets
from attn_lightning.evaluation.family import MODEL
from attn_lightning.evaluation.subject import Explained, Subject, no_progress
from attn_lightning.numerics import masked_softmax
from attn_lightning.perturbation.attacks import one_step, pgd
from attn_lightning.perturbation.sites import clean_pass, embedding_site, score_site
from attn_lightning.types import AttentionOutput, Batch, DataSpec

NOTHING = Explained(np.zeros((0, 2)), np.zeros(0, np.int64), {})
SMALL = {"score_epsilons": (1.0, 3.0), "embedding_epsilons": (0.3,), "substitutions": (1, 2), "num_steps": 3}


class Texts:
    """Random texts in random access, with as much padding as wanted."""

    def __init__(self, num_classes=3, padding=0, count=14, segment=None):
        generator = np.random.default_rng(0)
        self.lengths = generator.integers(1, 9, count)
        shape = () if segment is None else (segment,)
        self.texts = [
            generator.integers(1, 20, n) if segment is None else generator.standard_normal((n, *shape)).astype("f4")
            for n in self.lengths
        ]
        self.labels = generator.integers(0, num_classes, count)
        self.padding = padding

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows):
        lengths = self.lengths[np.asarray(rows)]
        width = lengths.max() + self.padding
        tokens = np.zeros((len(rows), width, *self.texts[0].shape[1:]), self.texts[0].dtype)
        for line, row in zip(tokens, rows, strict=True):
            line[: self.lengths[row]] = self.texts[row]
        mask = torch.from_numpy(np.arange(width) < lengths[:, None])
        return Batch(torch.from_numpy(tokens), mask, torch.from_numpy(self.labels[rows]), torch.as_tensor(rows))


def small_subject(num_classes=3, texts=None, **options):
    torch.manual_seed(0)
    spec = DataSpec(num_classes, 20, 6, tuple(f"class {c}" for c in range(num_classes)))
    model = AttentionClassifier(spec, encoder=partial(BiLSTM, hidden_size=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return Subject(model.double().eval(), texts or Texts(num_classes), num_classes, erased=1, **options)


def measured(subject, advance=no_progress, **options):
    return Robustness(**{**SMALL, **options}).run(subject, NOTHING, advance)


def table(rows):
    return {(row.metric, *sorted(row.setting.items())): row for row in rows}


def find(rows, metric, **setting):
    (row,) = [row for row in rows if row.metric == metric and dict(row.setting) == setting]
    return row


def assert_same(rows, expected):
    found, wanted = table(rows), table(expected)
    assert list(found) == list(wanted)
    for key, row in found.items():
        assert row.value == pytest.approx(wanted[key].value, abs=1e-6), key
        assert row.std == pytest.approx(wanted[key].std, abs=1e-6), key
        assert (row.n_valid, row.n) == (wanted[key].n_valid, wanted[key].n)


@pytest.mark.parametrize("num_classes", [2, 3, 50])
@pytest.mark.parametrize("target", ["prediction", "label"])
@pytest.mark.parametrize("where", ["scores", "embeddings"])
def test_rows_equal_a_loop_over_examples(where, target, num_classes):
    subject = small_subject(num_classes)
    rows, epsilon = measured(subject), {"scores": 3.0, "embeddings": 0.3}[where]
    make = {"scores": score_site, "embeddings": embedding_site}[where]
    results = {"one_step": [], "pgd": []}
    for i in range(len(subject.examples)):
        batch = subject.examples[[i]]
        clean = clean_pass(subject.model, batch.tokens, batch.mask)
        site, predicted = make(subject.model, clean), clean.logits.argmax(1)
        leave = predicted if target == "prediction" else batch.labels
        draws = torch.ones_like(site.noiseless)  # no gradient is exactly 0 but for one token, which moves nothing
        with differentiable(subject.model):
            for attack, found in {
                "one_step": one_step(site, leave, epsilon, draws),
                "pgd": pgd(site, leave, epsilon, draws, num_steps=3),
            }.items():
                now = found.logits.argmax(1)
                shift = jensenshannon(clean.attention[0].numpy(), found.attention[0].numpy()) ** 2
                shift = np.nan if batch.mask.sum() < 2 else shift
                results[attack].append([float(now == batch.labels), float(now == predicted), shift])
    for attack, values in results.items():
        setting = {"where": where, "attack": attack, "target": target, "epsilon": epsilon}
        for metric, numbers in zip(("accuracy", "unchanged", "attention_jsd"), np.array(values).T, strict=True):
            row = find(rows, metric, **setting)
            assert row.explainer == MODEL
            assert row.value == pytest.approx(np.nanmean(numbers), abs=1e-6)
            assert row.std == pytest.approx(np.nanstd(numbers), abs=1e-6)
            assert row.n_valid == np.isfinite(numbers).sum()


def test_every_curve_starts_with_the_clean_model_and_has_its_area():
    subject = small_subject()
    rows = measured(subject)
    batch = subject.examples[list(range(len(subject.examples)))]
    accuracy = (clean_pass(subject.model, batch.tokens, batch.mask).logits.argmax(1) == batch.labels).double().mean()
    areas = [row for row in rows if row.metric.endswith("_area")]
    assert len(areas) == 3 * (2 * (1 + 2 * 2) + 2)
    for area in areas:
        metric, curve = area.metric.removesuffix("_area"), dict(area.setting)
        points = [row for row in rows if row.metric == metric and curve.items() <= row.setting.items()]
        (axis,) = set(points[0].setting) - set(curve)
        strengths, values = [row.setting[axis] for row in points], [row.value for row in points]
        expected = {"accuracy": accuracy.item(), "unchanged": 1.0, "attention_jsd": 0.0}[metric]
        assert strengths[0] == 0
        assert values[0] == pytest.approx(expected)
        assert area.value == pytest.approx(trapezoid(values, strengths) / strengths[-1])


@pytest.mark.parametrize(("metric", "target"), [("accuracy", "label"), ("unchanged", "prediction")])
def test_what_an_attack_aims_at_falls_with_its_strength(metric, target):
    rows, seen = measured(small_subject()), []
    for where, epsilons in {"scores": (1.0, 3.0), "embeddings": (0.3,)}.items():
        for epsilon in epsilons:
            clean, weak, strong = (
                find(rows, metric, where=where, attack=attack, target=target, epsilon=strength).value
                for attack, strength in (("pgd", 0.0), ("one_step", epsilon), ("pgd", epsilon))
            )
            assert clean >= weak >= strong
            seen.append(clean - strong)
    assert max(seen) > 0


def test_names_of_rows_do_not_depend_on_the_data():
    first, second = measured(small_subject()), measured(small_subject(2, Texts(2, count=5)))
    assert list(table(first)) == list(table(second))
    assert {row.metric for row in first} == set(Robustness.measures)
    assert len(table(first)) == len(first)
    budgets = {row.setting["budget"] for row in first if "budget" in row.setting}
    assert budgets == {0, 1, 2}


def test_whole_numbers_of_any_type_name_the_same_rows():
    options = {"score_epsilons": (1, 3), "substitutions": (2.0, 1.0)}
    assert_same(measured(small_subject(), **options), measured(small_subject()))


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 5}, {"token_budget": 1}, {"token_budget": 30}])
def test_batch_size_and_budget_change_nothing(options):
    assert_same(measured(small_subject(**options)), measured(small_subject()))


def test_padding_changes_nothing():
    assert_same(measured(small_subject(texts=Texts(padding=4))), measured(small_subject()))


def test_the_seed_changes_random_noise_alone():
    first, second = (table(measured(small_subject(seed=seed), attacks=("random", "pgd"))) for seed in (0, 1))
    different = {dict(key[1:])["attack"] for key, row in first.items() if row.value != second[key].value}
    assert different == {"random"}


def test_one_target_alone_gives_the_same_rows():
    both = table(measured(small_subject()))
    for target in ("prediction", "label"):
        rows = table(measured(small_subject(), targets=(target,)))
        assert {dict(key[1:])["target"] for key in rows} == {target, "none"}
        for key, row in rows.items():
            assert row.value == pytest.approx(both[key].value, abs=1e-6)


def test_examples_without_a_label_count_only_where_none_is_needed():
    texts = Texts()
    texts.labels[:4] = -1
    rows = measured(small_subject(texts=texts))
    known = {"where": "scores", "attack": "pgd", "epsilon": 3.0}
    assert find(rows, "accuracy", target="prediction", **known).n_valid == 10
    assert find(rows, "unchanged", target="prediction", **known).n_valid == 14
    assert find(rows, "unchanged", target="label", **known).n_valid == 10
    assert find(rows, "unchanged", target="label", **{**known, "epsilon": 0.0}).n_valid == 10
    texts.labels[:] = -1
    row = find(measured(small_subject(texts=texts)), "accuracy", target="label", **known)
    assert (row.value, row.n_valid) == (None, 0)


def test_the_encoder_runs_once_per_batch_for_all_attacks_on_scores():
    subject, calls = small_subject(batch_size=5), []
    subject.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    measured(subject, embedding_epsilons=(), substitutions=())
    assert len(calls) == len(list(subject.batches())) == 3


def test_parts_can_be_left_out():
    rows = measured(small_subject(), score_epsilons=(), substitutions=(), attacks=("pgd",))
    assert {(row.setting["where"], row.setting["attack"]) for row in rows} == {("embeddings", "pgd")}
    rows = measured(small_subject(), embedding_epsilons=(), attacks=("random",))
    assert {row.setting["attack"] for row in rows} == {"random", "substitution"}


def test_progress_counts_every_example():
    done = []
    measured(small_subject(batch_size=4), advance=done.append)
    assert sum(done) == 14
    assert len(done) == 4


def test_the_model_is_left_as_it_was():
    subject = small_subject()
    subject.model.train()
    subject.model.scorer.requires_grad_(False)
    wanted = {name: parameter.requires_grad for name, parameter in subject.model.named_parameters()}
    with torch.inference_mode():
        rows = measured(subject)
    assert_same(rows, measured(small_subject()))
    assert subject.model.training
    assert wanted == {name: parameter.requires_grad for name, parameter in subject.model.named_parameters()}
    assert all(parameter.grad is None for parameter in subject.model.parameters())


class Segments(Backbone):
    """A model without words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.scorer, self.classifier = nn.Linear(4, 1), nn.Linear(4, 2)

    def embed(self, tokens):
        return tokens

    def encode(self, embeddings, mask):
        return embeddings.tanh()

    def score(self, hidden, mask):
        return self.scorer(hidden).squeeze(-1)

    def attend(self, hidden, scores, mask, attention=None):
        weights = masked_softmax(scores, mask) if attention is None else attention
        context = (weights.unsqueeze(2) * hidden).sum(1)
        return AttentionOutput(self.classifier(context), weights, scores, hidden, context, mask)


@pytest.mark.parametrize("erased", [None, 1])
def test_without_words_the_other_rows_remain(erased, caplog):
    subject = Subject(Segments(), Texts(2, segment=4), 2, erased=erased)
    with caplog.at_level(logging.WARNING):
        rows = measured(subject)
    assert "undefined" in caplog.text
    assert ("segments" if erased is None else "nn.Embedding") in caplog.text
    assert list(table(rows)) == list(table(measured(small_subject())))
    for row in rows:
        clean = row.setting.get("budget") == 0
        assert (row.n_valid == 0) == (row.setting["where"] == "words" and not clean)


def test_word_substitution_lowers_the_margin_within_the_budget():
    rows = measured(small_subject(), substitutions=(0.2, 0.9))
    values = [
        find(rows, "accuracy", where="words", attack="substitution", target="label", budget=budget).value
        for budget in (0.0, 0.2, 0.9)
    ]
    assert values[0] >= values[1] >= values[2]
    assert values[0] > values[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_epsilons": (0.0, 1.0)}, "score_epsilons"),
        ({"embedding_epsilons": (float("inf"),)}, "embedding_epsilons"),
        ({"attacks": ("fgsm",)}, "random, one_step, pgd"),
        ({"attacks": ()}, "attacks"),
        ({"targets": ("other",)}, "prediction, label"),
        ({"num_steps": 0}, "num_steps"),
        ({"num_neighbors": 0}, "num_neighbors"),
        ({"score_epsilons": (), "embedding_epsilons": (), "substitutions": ()}, "at least one"),
        ({"substitutions": (0.1, 2)}, "one kind"),
        ({"substitutions": (1.5,)}, "whole numbers"),
        ({"substitutions": (-1,)}, "substitutions"),
        ({"substitutions": (float("inf"),)}, "finite"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        Robustness(**options)


def test_budgets_in_words_and_in_shares():
    lengths = torch.tensor([1, 20, 100, 33])
    assert word_budgets(lengths, (1, 3)).tolist() == [[1, 3]] * 4
    expected = [[math.ceil(n * 7 / 100), math.ceil(n * 20 / 100)] for n in lengths.tolist()]
    assert word_budgets(lengths, (0.07, 0.2)).tolist() == expected
