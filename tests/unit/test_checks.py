"""Every refusal of an option reads the same: whose it is, the range, the value and what to do."""

import math

import pytest

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.errors import ConfigurationError


class Thing:
    pass


@pytest.mark.parametrize("options", [{"above": 0}, {"at_least": 0}, {"below": 3}, {"at_most": 3}, {}])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_by_every_range(options, value):
    with pytest.raises(ConfigurationError, match="a finite number"):
        check_numbers(**options, rate=value)


@pytest.mark.parametrize(
    ("options", "inside", "outside"),
    [
        ({"above": 0}, [0.1], [0, -1]),
        ({"at_least": 0}, [0, 1], [-0.1]),
        ({"below": 1}, [0.9], [1, 2]),
        ({"at_most": 1}, [1, 0], [1.1]),
        ({"above": 0, "at_most": 1}, [0.5, 1], [0, 1.5]),
    ],
)
def test_ends_belong_to_the_range_or_do_not(options, inside, outside):
    for value in inside:
        check_numbers(**options, rate=value)
    for value in outside:
        with pytest.raises(ConfigurationError, match="rate"):
            check_numbers(**options, rate=value)


def test_the_message_says_whose_option_it_is_and_what_to_do():
    with pytest.raises(ConfigurationError) as refused:
        check_numbers(Thing(), above=0, at_most=1, advice="0.5 is usual", rate=2)
    assert str(refused.value) == (
        "Expected `rate` of Thing to be a finite number above 0 and at most 1, but got 2; 0.5 is usual."
    )
    with pytest.raises(ConfigurationError, match=r"^Expected `rate` of the study to be"):
        check_numbers("the study", above=0, rate=0)


def test_options_that_were_not_given_pass():
    check_numbers(above=0, rate=None, weight=1)


def test_a_choice_is_one_of_them_and_the_nearest_is_named():
    check_choice(choices=["softmax", "uniform"], kind="softmax")
    with pytest.raises(ConfigurationError, match=r"`kind` of Thing to be one of softmax, uniform, but got 'sotfmax'"):
        check_choice(Thing(), choices=["softmax", "uniform"], kind="sotfmax")
    with pytest.raises(ConfigurationError, match="softmax"):
        check_choice(choices=iter(["softmax", "uniform"]), kind="sofmax")


@pytest.mark.parametrize("value", [10**400, -(10**400), 1 << 100_000], ids=["large", "small", "huge"])
def test_whole_numbers_beyond_all_arithmetic_are_refused_too(value):
    with pytest.raises(ConfigurationError, match=r"a finite number at least 1, but got a number of [\d,]+ bits"):
        check_numbers(at_least=1, batch_size=value)
