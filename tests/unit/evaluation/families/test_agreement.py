"""The agreement family, against scipy example by example."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon

from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.families.agreement import AgreementFamily
from attn_lightning.evaluation.subject import Explained, Ragged, Subject, no_progress
from attn_lightning.types import Batch

LENGTHS = np.array([1, 2, 9, 4, 12, 7, 7, 3, 30, 6])


class Lengths:
    """Examples of which only the lengths are ever asked for."""

    def __init__(self, lengths):
        self.lengths = lengths

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, rows) -> Batch:
        raise AssertionError("the family needs no pass of the model")


def subject(lengths=LENGTHS, **options):
    return Subject(torch.nn.Identity(), Lengths(lengths), 2, **options)


def explained(*names, lengths=LENGTHS, order=None):
    rng = np.random.default_rng(0)
    order = np.arange(len(lengths)) if order is None else order
    probabilities = rng.random((len(lengths), 2))
    explanations = {}
    for name in names:
        values = [rng.random(length).astype(np.float32).round(2) for length in lengths]
        values[3][:] = 0.25 if name == "gradient" else values[3]
        if name == "rationale":
            values[5][:] = np.nan
        explanations[name] = Ragged(np.concatenate([values[row] for row in order]), lengths[order])
    return Explained(probabilities[order], np.zeros(len(lengths), np.int64), explanations)


def row_of(rows, metric, explainer, **setting):
    (found,) = [row for row in rows if (row.metric, row.explainer, dict(row.setting)) == (metric, explainer, setting)]
    return found


def by_loop(measure, first, second, rows):
    values = []
    for row in rows:
        a, b = first[row].astype(float), second[row].astype(float)
        constant = len(set(a)) == 1 or len(set(b)) == 1
        values.append(np.nan if len(a) < 2 or constant or np.isnan(a + b).any() else measure(a, b))
    return np.array(values)


def overlap(a, b, k=5):
    if len(a) <= k:
        return np.nan
    best = [set(sorted(range(len(x)), key=lambda t: (-x[t], t))[:k]) for x in (a, b)]
    return len(best[0] & best[1]) / k


REFERENCES = {
    "kendall": lambda a, b: stats.kendalltau(a, b).statistic,
    "kendall_significant": lambda a, b: float(stats.kendalltau(a, b).pvalue < 0.05),
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
}


@pytest.mark.parametrize("metric", REFERENCES)
@pytest.mark.parametrize(
    ("first", "second", "setting"),
    [
        ("attention", "gradient", {}),
        ("attention", "loo", {}),
        ("attention", "rationale", {}),
        ("gradient", "loo", {"with": "gradient"}),
    ],
)
def test_rows_equal_scipy_over_all_examples_and_by_predicted_class(metric, first, second, setting):
    given = explained("attention", "gradient", "loo", "rationale")
    rows = AgreementFamily().run(subject(), given, no_progress)
    groups = [({}, np.arange(10))] + [({"class": c}, np.flatnonzero(given.predicted == c)) for c in (0, 1)]
    for group, members in groups:
        expected = by_loop(REFERENCES[metric], given.explanations[first], given.explanations[second], members)
        row = row_of(rows, metric, second, **setting, **group)
        assert row.value == pytest.approx(np.nanmean(expected), abs=1e-6)
        assert row.std == pytest.approx(np.nanstd(expected), abs=1e-6)
        assert (row.n_valid, row.n) == ((~np.isnan(expected)).sum(), len(members))


def test_divergence_and_overlap_equal_a_loop():
    given = explained("attention", "loo")
    rows = AgreementFamily(k=3).run(subject(), given, no_progress)
    first, second = given.explanations["attention"], given.explanations["loo"]
    divergences = by_loop(lambda a, b: jensenshannon(a, b) ** 2, first, second, range(10))
    assert row_of(rows, "jensen_shannon", "loo").value == pytest.approx(np.nanmean(divergences), abs=1e-6)
    overlaps = by_loop(lambda a, b: overlap(a, b, 3), first, second, range(10))
    row = row_of(rows, "top_k_overlap", "loo", k=3)
    assert row.value == pytest.approx(np.nanmean(overlaps))
    assert row.n_valid == (~np.isnan(overlaps)).sum() == 7


@pytest.mark.parametrize("token_budget", [1, 30, 2**16])
def test_neither_batches_nor_the_order_of_examples_change_anything(token_budget):
    names, order = ("attention", "gradient", "loo"), np.random.default_rng(1).permutation(10)
    expected = AgreementFamily().run(subject(), explained(*names), no_progress)
    shuffled = subject(LENGTHS[order], token_budget=token_budget, batch_size=2)
    finished = []
    found = AgreementFamily().run(shuffled, explained(*names, order=order), finished.append)
    assert sum(finished) == 10
    assert [(r.metric, r.explainer, r.setting, r.n_valid, r.n) for r in found] == [
        (r.metric, r.explainer, r.setting, r.n_valid, r.n) for r in expected
    ]
    assert [r.value for r in found] == pytest.approx([r.value for r in expected], abs=1e-12)


def test_rows_are_within_what_their_measures_declare():
    rows = AgreementFamily().run(subject(), explained("attention", "gradient", "loo"), no_progress)
    for row in rows:
        measure = AgreementFamily.measures[row.metric]
        assert row.value is None or measure.minimum <= row.value <= measure.maximum
    assert len({(r.metric, r.explainer, str(r.setting)) for r in rows}) == len(rows) == 3 * 6 * 3


def test_an_explanation_agrees_with_itself():
    given = explained("attention")
    twin = Explained(given.probabilities, given.labels, {**given.explanations, "same": given.explanations["attention"]})
    rows = AgreementFamily(by_class=False).run(subject(), twin, no_progress)
    for metric in ("kendall", "spearman", "pearson"):
        assert row_of(rows, metric, "same").value == pytest.approx(1.0)
    assert row_of(rows, "jensen_shannon", "same").value == pytest.approx(0.0)
    assert row_of(rows, "top_k_overlap", "same", k=5).value == 1.0


def test_random_explanations_score_what_is_declared():
    lengths = np.full(3000, 12)
    rng = np.random.default_rng(0)
    explanations = {name: Ragged(rng.random(36000, dtype=np.float32), lengths) for name in ("attention", "random")}
    given = Explained(rng.random((3000, 2)), np.zeros(3000, np.int64), explanations)
    rows = AgreementFamily(by_class=False).run(subject(lengths), given, no_progress)
    for row in rows:
        declared = AgreementFamily.measures[row.metric].uninformative
        assert declared is None or row.value == pytest.approx(declared, abs=0.02)


def test_nothing_defined_gives_rows_without_a_value():
    lengths = np.array([1, 1])
    given = explained("attention", "loo", lengths=np.array([1, 1, 1, 1]))
    alone = {name: Ragged(each.values[:2], lengths) for name, each in given.explanations.items()}
    rows = AgreementFamily().run(
        subject(lengths), Explained(given.probabilities[:2], given.labels[:2], alone), no_progress
    )
    assert all(row.value is None and row.std is None and row.n_valid == 0 for row in rows)


def test_only_attention_gives_no_rows():
    assert AgreementFamily().run(subject(), explained("attention"), no_progress) == []


def test_pairs_can_be_chosen():
    rows = AgreementFamily(pairs=[("loo", "hidden")]).run(
        subject(), explained("attention", "loo", "hidden"), no_progress
    )
    assert row_of(rows, "kendall", "hidden", **{"with": "loo"}).n == 10
    with pytest.raises(ConfigurationError, match="'ig'"):
        AgreementFamily(pairs=[("loo", "ig")]).run(subject(), explained("attention", "loo"), no_progress)


@pytest.mark.parametrize(("options", "named"), [({"k": 0}, "k"), ({"level": 0.0}, "level"), ({"level": 1.0}, "level")])
def test_bad_options_are_refused(options, named):
    with pytest.raises(ConfigurationError, match=named):
        AgreementFamily(**options)
