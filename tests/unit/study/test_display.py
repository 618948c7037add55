"""What a person sees of a study."""

import io

from rich.console import Console

from attn_lightning.study.display import Display


def test_time_left_is_that_of_the_cells_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("attn_lightning.study.display.time.monotonic", lambda: now[0])
    display = Display(10, 4, Console(file=io.StringIO(), width=200))
    assert display.left == ""
    now[0] += 60.0
    display.finished("one")
    display.finished("two")
    # Two in a minute, four to go; what was finished before cost nothing.
    assert display.left == "about 2 min left"


def test_plain_lines_where_there_is_no_terminal():
    console = Console(file=io.StringIO(), width=200)
    with Display(3, 1, console) as display:
        display.tick(["cell"])
        display.finished("done cell [a]")
        display.finished("done last")
    assert console.file.getvalue() == "[2/3] done cell [a]; about 0 s left\n[3/3] done last\n"


def test_a_bar_in_a_terminal():
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with Display(2, 0, console) as display:
        display.finished("done cell")
        display.tick(["other"])
    assert "about 0 s left: other" in console.file.getvalue()
    assert "done cell" in console.file.getvalue()
