"""A table in a terminal and in Markdown."""

import io

from rich.console import Console

from attn_lightning.sheet import Sheet

SHEET = Sheet("Title \x1b[31m", ("metric", "model", "better"), [("a|b \x1b[31m", "0.5000†", "higher")], note="† why")


def shown(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(SHEET.terminal())
    return console.file.getvalue().splitlines()


def test_markdown_has_a_heading_sides_and_the_note():
    assert SHEET.markdown() == (
        "## Title  [31m\n\n| metric | model | better |\n|---|---:|---|\n| a\\|b  [31m | 0.5000† | higher |\n\n† why"
    )


def test_no_control_character_reaches_a_terminal():
    assert not any("\x1b" in line for line in shown(80))
    assert any("a|b" in line and "0.5000†" in line for line in shown(80))


def test_a_row_is_one_line_however_narrow_the_terminal():
    assert len(shown(24)) == len(shown(80))
