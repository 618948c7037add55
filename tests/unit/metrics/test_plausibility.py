"""Plausibility of token scores, against scikit-learn and a plain reading of the ERASER definitions, row by row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc as area_under
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from attn_lightning.metrics.plausibility import (
    areas,
    f1,
    macro_f1,
    micro_f1,
    precision,
    rationale_mass,
    recall,
    span_matches,
    token_matches,
    top_1_hit,
)


def token_f1(scores, rationale, mask, k):
    matches = token_matches(scores, rationale, mask, k)
    return f1(precision(matches), recall(matches))


def auprc(*example):
    return areas(*example).auprc


def average_precision(*example):
    return areas(*example).average_precision


def roc_auc(*example):
    return areas(*example).roc_auc


AREAS = (auprc, average_precision, roc_auc)
PER_EXAMPLE = (
    *AREAS,
    rationale_mass,
    top_1_hit,
    lambda *x: token_f1(*x, k=3),
    lambda *x: precision(span_matches(*x, k=3)),
    lambda *x: recall(span_matches(*x, k=3)),
)


def padded(seed=0, size=60, longest=30, ties=False, dtype=np.float32):
    """Random scores and rationales of random lengths; row 0 has one token, 1 no rationale, 2 a full one, 3 constant
    scores, 4 a score that is no number; marks and junk at padding."""
    rng = np.random.default_rng(seed)
    scores = rng.random((size, longest)).astype(dtype)
    scores = scores.round(1) if ties else scores
    lengths = rng.integers(2, longest + 1, size)
    lengths[:5] = (1, 7, 7, longest, 7)
    mask = np.arange(longest) < lengths[:, None]
    rationale = rng.random((size, longest)) < rng.choice([0.2, 0.5, 0.8], (size, 1))
    rationale[0], rationale[1], rationale[2], rationale[3], rationale[4] = True, ~mask[1], True, mask[3], mask[4]
    rationale[3, 4:9] = rationale[4, 0] = False
    scores[3], scores[4, 2] = 0.25, np.nan
    scores[~mask] = rng.choice([np.nan, np.inf, -5.0], (~mask).sum())
    return scores, rationale, mask


def by_row(measure, scores, rationale, mask):
    """`measure` of the unpadded rows; NaN where a score is no number or nothing is marked."""
    values = []
    for row in range(len(mask)):
        s, r = scores[row, mask[row]], rationale[row, mask[row]]
        values.append(measure(s, r) if np.isfinite(s).all() and r.any() else np.nan)
    return np.array(values)


def of_two_classes(measure):
    return lambda s, r: np.nan if r.all() else measure(r, s)


def trapezoid(r, s):
    heights, widths, _ = precision_recall_curve(r, s)
    return area_under(widths, heights)


# The definitions of ERASER, with sets and loops.


def spans(chosen):
    """[(start, end)] of the runs of True."""
    found, start = [], None
    for place, inside in enumerate([*chosen, False]):
        if inside and start is None:
            start = place
        if not inside and start is not None:
            found.append((start, place))
            start = None
    return found


def best(s, k):
    order = sorted(range(len(s)), key=lambda t: (-s[t], t))[:k]
    return [t in order for t in range(len(s))]


def f1_of(p, r):
    return 0.0 if p == 0 or r == 0 else 2 * p * r / (p + r)


def overlap(a, b):
    a, b = set(range(*a)), set(range(*b))
    return len(a & b) / len(a | b)


def span_counts(s, r, k, threshold):
    guessed, marked = spans(best(s, k)), spans(r)
    hits = sum(max(overlap(span, other) for other in marked) >= threshold for span in guessed)
    return hits, len(guessed), len(marked)


def eraser_averages(counts):
    """(macro, micro) F1 of [(hits, guessed, marked)]: the macro one of averaged precision and averaged recall."""
    macro_precision = sum(hits / guessed for hits, guessed, _ in counts) / len(counts)
    macro_recall = sum(hits / marked for hits, _, marked in counts) / len(counts)
    hits, guessed, marked = (sum(values) for values in zip(*counts, strict=True))
    return f1_of(macro_precision, macro_recall), f1_of(hits / guessed, hits / marked)


def documents(scores, rationale, mask):
    rows = [(scores[i, mask[i]], rationale[i, mask[i]]) for i in range(len(mask))]
    return [(s, r) for s, r in rows if np.isfinite(s).all() and r.any()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [(auprc, trapezoid), (average_precision, average_precision_score), (roc_auc, roc_auc_score)],
)
def test_areas_equal_scikit_learn(ours, reference, ties, dtype):
    example = padded(seed=1, ties=ties, dtype=dtype)
    expected = by_row(of_two_classes(reference), *example)
    assert np.isnan(expected[:3]).all()
    assert not np.isnan(expected[3])
    assert np.isnan(expected[4])
    np.testing.assert_allclose(ours(*example), expected, atol=1e-12)


def test_areas_of_equal_scores_have_a_closed_form():
    rationale = np.array([[True, False, False, True, False]])
    scores, mask = np.full((1, 5), 0.2), np.ones((1, 5), bool)
    result = areas(scores, rationale, mask)
    assert result.auprc == pytest.approx((1 + 2 / 5) / 2)
    assert result.average_precision == pytest.approx(2 / 5)
    assert result.roc_auc == pytest.approx(0.5)


def test_areas_of_a_perfect_and_an_inverted_ranking():
    rationale = np.array([[True, True, False, False]] * 2)
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [-4.0, -3.0, -2.0, -1.0]])
    result = areas(scores, rationale, np.ones((2, 4), bool))
    np.testing.assert_allclose(result.roc_auc, [1, 0])
    np.testing.assert_allclose(result.average_precision, [1, (1 / 3 + 2 / 4) / 2])
    assert result.auprc[0] == 1


@pytest.mark.parametrize("k", [1, 4, 50])
@pytest.mark.parametrize("ties", [False, True])
def test_token_f1_equals_a_loop(k, ties):
    example = padded(seed=2, ties=ties)

    def loop(s, r):
        chosen = best(s, k)
        hits = sum(a and b for a, b in zip(chosen, r, strict=True))
        return f1_of(hits / sum(chosen), hits / sum(r))

    np.testing.assert_allclose(token_f1(*example, k), by_row(loop, *example), atol=1e-12)


def test_micro_token_f1_equals_a_loop():
    example = padded(seed=3)
    counts = [
        (sum(a and b for a, b in zip(best(s, 4), r, strict=True)), sum(best(s, 4)), sum(r))
        for s, r in documents(*example)
    ]
    assert micro_f1(token_matches(*example, 4)) == pytest.approx(eraser_averages(counts)[1])


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("k", [1, 4, 12, 50])
@pytest.mark.parametrize("ties", [False, True])
def test_iou_f1_equals_the_definition(k, threshold, ties):
    example = padded(seed=4, size=100, ties=ties)
    matches = span_matches(*example, k, threshold)
    counts = [span_counts(s, r, k, threshold) for s, r in documents(*example)]
    assert np.isnan(matches.matched).sum() == len(example[0]) - len(counts) >= 2
    np.testing.assert_array_equal(np.stack(matches, 1)[~np.isnan(matches.matched)], counts)
    macro, micro = eraser_averages(counts)
    assert macro_f1(matches) == pytest.approx(macro, abs=1e-12)
    assert micro_f1(matches) == pytest.approx(micro, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12), st.integers(1, 13))
def test_span_matches_of_any_document(tokens, k):
    s, r = np.array([float(score) for score, _ in tokens]), np.array([marked for _, marked in tokens])
    matches = span_matches(s[None], r[None], np.ones((1, len(s)), bool), k)
    expected = span_counts(s, r, k, 0.5) if r.any() else (np.nan,) * 3
    np.testing.assert_array_equal(np.concatenate(matches), expected)


def test_a_worked_example_of_spans():
    # Marked 1-4 and 8; chosen 2-3, 6 and 8-9: 2-3 covers half of its union, 6 nothing, 8-9 half.
    rationale = np.array([[0, 1, 1, 1, 1, 0, 0, 0, 1, 0]], bool)
    scores = np.array([[0, 0, 9, 9, 0, 0, 9, 0, 9, 9]], float)
    mask = np.ones_like(rationale)
    matches = span_matches(scores, rationale, mask, k=5)
    assert [values.item() for values in matches] == [2, 3, 2]
    assert span_matches(scores, rationale, mask, k=5, threshold=0.51).matched == 0
    assert macro_f1(matches) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))


def test_macro_iou_f1_is_not_the_mean_of_the_f1():
    # Document 1: precision 1/2, recall 1; document 2: precision 1, recall 1/2.
    rationale = np.array([[1, 0, 0, 0, 0], [1, 0, 1, 0, 0]], bool)
    scores = np.array([[9, 0, 8, 0, 0], [9, 1, 0, 0, 0]], float)
    matches = span_matches(scores, rationale, np.ones_like(rationale), k=2)
    np.testing.assert_allclose(precision(matches), [0.5, 1.0])
    np.testing.assert_allclose(recall(matches), [1.0, 0.5])
    assert macro_f1(matches) == pytest.approx(0.75)
    assert f1(precision(matches), recall(matches)).mean() == pytest.approx(2 / 3)


def test_neighbouring_rows_are_not_one_span():
    rationale = np.array([[0, 0, 1], [1, 0, 0]], bool)
    matches = span_matches(rationale.astype(float), rationale, np.ones_like(rationale), k=1)
    np.testing.assert_array_equal(matches.predicted, [1, 1])
    np.testing.assert_array_equal(matches.matched, [1, 1])


def test_averages_of_no_document_are_nan():
    scores, mask = np.ones((2, 3)), np.ones((2, 3), bool)
    for matches in (token_matches(scores, ~mask, mask, 1), span_matches(scores, ~mask, mask, 1)):
        assert np.isnan(matches.matched).all()
        assert np.isnan(macro_f1(matches))
        assert np.isnan(micro_f1(matches))


def test_mass_and_top_hit_equal_a_loop():
    example = padded(seed=5, ties=True)
    np.testing.assert_allclose(rationale_mass(*example), by_row(lambda s, r: s[r].sum() / s.sum(), *example), rtol=1e-5)
    np.testing.assert_array_equal(top_1_hit(*example), by_row(lambda s, r: float(r[s.argmax()]), *example))
    assert {0.0, 1.0} <= set(top_1_hit(*example))


def test_mass_of_what_is_no_distribution_is_nan():
    scores, mask = np.array([[0.0, 0.0], [-1.0, 2.0], [0.5, np.inf], [3.0, 1.0]]), np.ones((4, 2), bool)
    rationale = np.array([[True, False]] * 4)
    np.testing.assert_allclose(rationale_mass(scores, rationale, mask), [np.nan, np.nan, np.nan, 0.75])


def test_the_first_of_tied_tokens_is_the_top_one():
    scores, mask = np.array([[0.1, 0.4, 0.4]]), np.ones((1, 3), bool)
    assert top_1_hit(scores, np.array([[False, True, False]]), mask) == 1
    assert top_1_hit(scores, np.array([[False, False, True]]), mask) == 0


def test_a_score_that_is_not_finite_is_undefined():
    scores = np.array([[0.5, np.nan, 0.1], [0.5, np.inf, 0.1], [np.inf, -np.inf, 0.1]])
    rationale, mask = np.array([[True, False, True]] * 3), np.ones((3, 3), bool)
    for measure in PER_EXAMPLE:
        assert np.isnan(measure(scores, rationale, mask)).all()


@pytest.mark.parametrize("measure", PER_EXAMPLE)
def test_padding_and_its_amount_change_nothing(measure):
    scores, rationale, mask = padded(seed=6, ties=True)
    expected, wide = measure(scores, rationale, mask), np.pad(mask, ((0, 0), (0, 7)))
    for junk in (0.0, 1e9, -1e9, np.nan, np.inf):
        other = np.where(wide, np.pad(scores, ((0, 0), (0, 7))), junk), np.pad(rationale, ((0, 0), (0, 7))), wide
        np.testing.assert_allclose(measure(*other), expected, rtol=1e-12)
        marked = other[0], other[1] | ~wide, wide
        np.testing.assert_allclose(measure(*marked), expected, rtol=1e-12)


@pytest.mark.parametrize("measure", PER_EXAMPLE)
def test_order_and_size_of_the_batch_change_nothing(measure):
    example = padded(seed=7, ties=True)
    expected, order = measure(*example), np.random.default_rng(0).permutation(len(example[0]))
    np.testing.assert_array_equal(measure(*(values[order] for values in example)), expected[order])
    alone = [measure(*(values[i : i + 1] for values in example))[0] for i in range(len(expected))]
    np.testing.assert_allclose(alone, expected, rtol=1e-12)
    assert (~np.isnan(expected)).sum() > 50


@pytest.mark.parametrize("measure", PER_EXAMPLE)
def test_values_are_in_range(measure):
    values = measure(*padded(seed=8, ties=True))
    values = values[~np.isnan(values)]
    assert values.min() >= 0
    assert values.max() <= 1


def test_scores_that_know_nothing_give_half_the_roc_area():
    rng = np.random.default_rng(0)
    scores, rationale, mask = rng.random((2000, 20)), rng.random((2000, 20)) < 0.3, np.ones((2000, 20), bool)
    assert np.nanmean(roc_auc(scores, rationale, mask)) == pytest.approx(0.5, abs=0.01)
