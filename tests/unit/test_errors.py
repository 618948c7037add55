"""What messages say of what was probably meant, and of errors around errors."""

import pytest

from attn_lightning.errors import ConfigurationError, did_you_mean, listed, own_cause


@pytest.mark.parametrize(
    ("unknown", "known", "most", "said"),
    [
        ("vanila", ["sst", "vanilla"], 3, " Did you mean vanilla?"),
        ("abcd", ["abcdxx", "abcdx"], 3, " Did you mean abcdx or abcdxx?"),
        ("abcd", ["abcdxx", "abcdx", "abcdxxx"], 3, " Did you mean abcdx, abcdxx or abcdxxx?"),
        ("abcd", ["abcdxx", "abcdx", "abcdxxx"], 1, " Did you mean abcdx?"),
        ("abcd", ["zzz"], 3, ""),
        ("abcd", [], 3, ""),
    ],
)
def test_the_nearest_come_first_or_nothing_is_said(unknown, known, most, said):
    assert did_you_mean(unknown, known, most) == said


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_our_own_message_is_found_within_those_of_others(depth):
    error: Exception = ConfigurationError("Expected a dimension")
    for level in range(depth):
        outer = ValueError(f"does not validate at level {level}")
        outer.__cause__ = error
        error = outer
    assert str(own_cause(error)) == "Expected a dimension"
    assert own_cause(ValueError("of nobody")) is None


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(3)), most=3) == "0, 1, 2"
    assert listed(map(str, range(1503)), most=2) == "0, 1 and 1,501 more"
