"""What a person sees of a study."""

import io

import pytest
from rich.console import Console

from attn_lightning.study.display import Display, duration, seconds_left


def test_time_left_by_hand():
    # Two waiting cells of 10 s, one running with 4 of its 10 s left, two at a time: 24 / 2.
    assert seconds_left(["a", "a"], [("a", 6.0)], {"a": [8.0, 12.0]}, 2) == 12.0
    # Data without a finished cell takes the mean of all.
    assert seconds_left(["b"], [], {"a": [10.0]}, 1) == 10.0
    # Nothing waits: the longest running cell decides, and one over its time is about to end.
    assert seconds_left([], [("a", 1.0), ("a", 30.0)], {"a": [10.0]}, 4) == 9.0
    assert seconds_left([], [], {"a": [10.0]}, 4) == 0.0


def test_time_left_is_unknown_at_first():
    assert seconds_left(["a"], [("a", 3.0)], {}, 2) is None
    assert seconds_left(["a"], [], {"a": []}, 2) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (45.2, "45 s"), (600, "10 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_plain_lines_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), width=200)
    with Display(3, 1, console) as display:
        display.tick(["cell"], None)
        display.finished("done cell [a]", 60.0)
        display.finished("done last", 0.0)
    assert console.file.getvalue() == "[2/3] done cell [a]; about 60 s left\n[3/3] done last\n"


def test_a_bar_in_a_terminal():
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with Display(2, 0, console) as display:
        display.tick(["cell"], 60.0)
        display.finished("done cell", None)
    assert "60 s left: cell" in console.file.getvalue()
    assert "done cell" in console.file.getvalue()
