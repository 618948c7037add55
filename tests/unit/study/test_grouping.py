"""What failed alike is one line."""

from attn_lightning.study.grouping import by_error, error_lines, first_and_number

ERRORS = {"a": "no data", "b": "no memory", "c": "no data", "d": "no data"}


def test_names_with_the_same_error_stand_together_in_the_order_of_the_first():
    assert by_error(ERRORS) == [(["a", "c", "d"], "no data"), (["b"], "no memory")]
    assert by_error({}) == []
    assert error_lines(ERRORS) == "  a and 2 more: no data\n  b: no memory"


def test_one_name_stands_alone():
    assert first_and_number(["a"]) == "a"
    assert first_and_number(["a", "b"]) == "a and 1 more"
