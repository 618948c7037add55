"""What is declared of a metric."""

import pytest

from attn_lightning.metrics.measure import Measure, by_name


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (Measure("a", "..."), ("0..1", "higher")),
        (Measure("a", "...", 0.0, float("inf"), higher_is_better=False, unit="bits"), ("0.., bits", "lower")),
        (Measure("a", "...", -float("inf"), 1.0, higher_is_better=None), ("..1", "-")),
    ],
)
def test_range_and_direction_in_words(measure, expected):
    assert (measure.span, measure.better) == expected
    better = "" if expected[1] == "-" else f"; {expected[1]} is better"
    assert measure.line == f"a: ... ({expected[0]}{better})"


def test_a_mean_over_examples_is_declared_with_its_spread_and_count():
    mean, deviation, count = Measure("a", "how much", -1.0, unit="nats", uninformative=0.0).over_examples()
    assert mean == Measure("a_mean", "how much", -1.0, unit="nats", uninformative=0.0)
    assert (deviation.name, deviation.span, deviation.better) == ("a_std", "0..1, nats", "-")
    assert (count.name, count.span, count.better) == ("a_n_valid", "0.., examples", "-")
    assert "how much" in deviation.meaning
    assert "how much" in count.meaning


def test_the_same_quantity_under_another_name():
    measure = Measure("a", "how much", higher_is_better=False, unit="nats")
    assert measure.called("b") == Measure("b", "how much", higher_is_better=False, unit="nats")
    assert measure.called("b", "how little").meaning == "how little"


def test_two_declarations_of_one_name_are_refused():
    first, second = Measure("a", "one"), Measure("a", "two")
    with pytest.raises(ValueError, match=r"one declaration per metric.*'a'"):
        by_name([first, second])
    assert list(by_name([second, Measure("b", "")])) == ["a", "b"]
