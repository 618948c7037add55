"""Two runs document by document, against scipy, plain loops and counts by hand."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from attn_lightning.errors import ConfigurationError
from attn_lightning.report.comparison import compare_runs, comparison_content, difference_of_shares, lines, mcnemar
from attn_lightning.report.run_data import read_run

TEXTS = ["a dull film", "what a fine film", "fine", "bad film", "a good one", "not so good"]


def predictions(chances, attention, texts=TEXTS, labels=(0, 1, 1, 0, 1, 0)):
    rows = []
    for row, (text, chance, weights) in enumerate(zip(texts, chances, attention, strict=True)):
        words = text.split()
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        rows.append(
            {
                "row": row,
                "label": labels[row],
                "prediction": int(chance > 0.5),
                "probabilities": [1 - chance, chance],
                "attention": weights,
                "text": text,
                "start": [int(end) - len(word) for end, word in zip(ends, words, strict=True)],
                "end": ends.tolist(),
            }
        )
    table = pa.Table.from_pylist(rows)
    # Without any label the column would have no type, which no run writes.
    return table.set_column(1, "label", table.column("label").cast(pa.int64()))


def weights(seed):
    generator = np.random.default_rng(seed)
    return [generator.dirichlet(np.ones(len(text.split()))).tolist() for text in TEXTS]


CHANCES = ([0.2, 0.9, 0.6, 0.7, 0.4, 0.1], [0.6, 0.8, 0.9, 0.3, 0.9, 0.7])


@pytest.fixture
def pair(make_run):
    folders = [make_run(f"{name}_mine", texts=None) for name in ("vanilla", "ivat")]
    for folder, chances, seed in zip(folders, CHANCES, (1, 2), strict=True):
        pq.write_table(predictions(chances, weights(seed)), folder / "predictions.parquet")
    return folders


def compared(folders):
    return compare_runs(*map(read_run, folders))


@pytest.mark.parametrize(("b", "c"), [(3, 9), (0, 5), (7, 7), (1, 0), (40, 61)])
def test_mcnemar_counts_the_binomial_tail(b, c):
    n = b + c
    tail = sum(math.comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= abs(b - n / 2)) / 2**n
    assert mcnemar(b, c) == pytest.approx(tail)


def test_runs_that_are_right_together_do_not_differ():
    assert mcnemar(0, 0) == 1.0


def test_outcomes_and_tests_by_hand(pair):
    found = compared(pair)
    # A is right on 0, 1, 2, 5; B on 1, 2, 3, 4.
    assert found.outcomes == (2, 2, 2, 0)
    accuracy, probability, loss = found.paired
    assert (accuracy.first, accuracy.second, accuracy.p) == (pytest.approx(4 / 6), pytest.approx(4 / 6), 1.0)
    own = np.array([[1 - p, p][label] for label, p in zip((0, 1, 1, 0, 1, 0), np.array(CHANCES).T, strict=True)])
    theirs = stats.permutation_test(
        (own[:, 1], own[:, 0]), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert probability.p == pytest.approx(theirs.pvalue)
    assert probability.difference == pytest.approx(np.mean(own[:, 1] - own[:, 0]), abs=1e-6)
    assert loss.first == pytest.approx(-np.log(own[:, 0]).mean(), abs=1e-6)
    assert "both right 2, only A 2, only B 2, neither 0" in lines(found)[0]


def test_flipped_documents_come_with_the_largest_change_first(pair):
    found = compared(pair)
    assert [flip.row for flip in found.flips] == [5, 4, 0, 3]
    first = found.flips[0]
    assert (first.text, first.label, first.first, first.second) == ("not so good", 0, 0, 1)
    assert first.change == pytest.approx(0.6)
    assert (found.class_name(1), found.class_name(7)) == ("good", "7")


def test_agreement_of_attention_is_that_of_scipy(pair):
    tau, divergence, overlap = compared(pair).alike
    pairs = [(a, b) for a, b in zip(weights(1), weights(2), strict=True) if len(a) > 1]
    assert tau.mean == pytest.approx(np.mean([stats.kendalltau(a, b).statistic for a, b in pairs]))
    assert divergence.mean == pytest.approx(np.mean([jensenshannon(a, b) ** 2 for a, b in pairs]), abs=1e-6)
    # Of texts with at most k tokens all are among the top k, which says nothing.
    assert overlap.n == 0
    assert math.isnan(overlap.mean)
    assert tau.n == len(pairs) == 5


def test_documents_cut_into_other_tokens_are_counted_and_left_out(pair):
    table = pq.read_table(pair[1] / "predictions.parquet").to_pylist()
    table[1].update(start=[0], end=[4], attention=[1.0])
    pq.write_table(pa.Table.from_pylist(table), pair[1] / "predictions.parquet")
    found = compared(pair)
    assert found.other_tokens == 1
    assert found.alike[0].n == 4
    assert "1 documents are cut into other tokens" in lines(found)[-1]


def test_without_labels_there_is_no_test_but_flips(pair):
    for folder, chances in zip(pair, CHANCES, strict=True):
        pq.write_table(predictions(chances, weights(1), labels=[None] * 6), folder / "predictions.parquet")
    found = compared(pair)
    assert found.paired == ()
    assert found.outcomes == (0, 0, 0, 0)
    assert len(found.flips) == 4


def test_of_one_document_there_is_neither_an_interval_nor_a_p_value(pair):
    for folder, chances, seed in zip(pair, CHANCES, (1, 2), strict=True):
        pq.write_table(predictions(chances[:1], weights(seed)[:1], TEXTS[:1]), folder / "predictions.parquet")
    rows = comparison_content(compared(pair))["paired"]
    assert [(row["low"], row["high"]) for row in rows] == [(None, None)] * 3
    assert [row["p"] for row in rows] == [1.0, None, None]


def test_content_for_the_page_is_finite(pair):
    content = comparison_content(compared(pair))
    assert content["labels"] == ["vanilla_mine/v", "ivat_mine/v"]
    assert [row["name"] for row in content["paired"]] == ["accuracy", "probability of the label", "log loss"]


def test_runs_of_other_data_and_runs_without_predictions_are_refused_in_a_line(pair, make_run):
    with pytest.raises(ConfigurationError, match=r"on mine and ivat_other/v on other; compare runs of one data set"):
        compared([pair[0], make_run("ivat_other", data="other")])
    with pytest.raises(ConfigurationError, match=r"predictions\.parquet, but there is none"):
        compared([pair[0], make_run("none_mine", texts=None)])
    damaged = make_run("damaged_mine")
    (damaged / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigurationError, match="Expected a table of predictions") as caught:
        compared([pair[0], damaged])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="Expected predictions of the same documents"):
        compared([pair[0], make_run("shorter_mine")])


def test_of_many_documents_some_are_explained_and_it_is_said(pair, monkeypatch):
    monkeypatch.setattr("attn_lightning.report.comparison._MOST_EXPLAINED", 4)
    found = compared(pair)
    assert found.explained == 4
    assert lines(found)[-1] == "Agreement of explanations: of 4 documents, a random choice."


def test_pairs_are_told_apart_by_their_second_text(pair):
    asked = ["who?", "where?", "when?", "why?", "how?", "what?"]
    paths = [folder / "predictions.parquet" for folder in pair]
    first, second = map(pq.read_table, paths)
    pq.write_table(first.append_column("question", pa.array(asked)), paths[0])
    pq.write_table(second.append_column("question", pa.array(asked[::-1])), paths[1])
    with pytest.raises(ConfigurationError, match="predictions of the same documents"):
        compared(pair)
    pq.write_table(second.append_column("question", pa.array(asked)), paths[1])
    assert compared(pair).flips[0].text == "[what?] not so good"


@pytest.mark.parametrize(("first", "second", "count"), [(0, 2, 300), (3, 9, 50), (0, 0, 20), (10, 10, 40)])
def test_interval_of_a_difference_of_accuracies_is_walds_with_half_a_document_in_each_cell(first, second, count):
    table = np.array([[count - first - second, first], [second, 0.0]]) + np.full((2, 2), 0.5)
    n = table.sum()
    p10, p01 = table[0, 1] / n, table[1, 0] / n
    deviation = np.sqrt((p10 + p01 - (p01 - p10) ** 2) / n)
    expected = stats.norm.interval(0.95, p01 - p10, deviation)
    assert difference_of_shares(first, second, count) == pytest.approx(expected, rel=1e-5)


def test_two_documents_of_three_hundred_are_no_difference():
    low, high = difference_of_shares(0, 2, 300)
    assert low < 0 < high
    assert mcnemar(0, 2) == 0.5
    assert np.isnan(difference_of_shares(0, 1, 1)).all()
    assert difference_of_shares(0, 5, 5)[1] == 1.0


@pytest.mark.parametrize("probabilities", [(0.01, 0.02, 0.97), (0.1, 0.1, 0.8), (0.0, 0.05, 0.95), (0.3, 0.1, 0.6)])
@pytest.mark.parametrize("count", [30, 300])
def test_that_interval_holds_its_level(probabilities, count):
    drawn = np.random.default_rng(0).multinomial(count, probabilities, 2000)
    difference = probabilities[1] - probabilities[0]
    intervals = [difference_of_shares(int(first), int(second), count) for first, second, _ in drawn]
    covered = np.mean([low <= difference <= high for low, high in intervals])
    assert covered > 0.93
