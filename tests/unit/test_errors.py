"""The part of a message that names what was probably meant."""

import pytest

from attn_lightning.errors import did_you_mean


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
