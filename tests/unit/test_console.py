"""What the terminal and spreadsheets are spared."""

import pytest

from attn_lightning.console import printable, spreadsheet_text


def test_control_characters_become_spaces():
    assert printable("a\x1b[31mb\u202ec\n") == "a [31mb c "


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r@x"])
def test_a_cell_that_would_be_a_formula_gets_a_quote(text):
    assert spreadsheet_text(text).startswith("'")


def test_other_cells_stay():
    assert spreadsheet_text("ivat, epsilon=1") == "ivat, epsilon=1"
