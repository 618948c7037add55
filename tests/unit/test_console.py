"""What the terminal and spreadsheets are spared."""

import io
import logging
import warnings
from contextlib import redirect_stdout

import pytest

from attn_lightning.console import (
    duration,
    harmless_messages,
    harmless_warnings,
    printable,
    say,
    show_messages,
    spreadsheet_text,
)

HOSTILE = "a\x1b[31mred\x07\u202e"


def test_control_characters_become_spaces():
    assert printable("a\x1b[31mb\u202ec\n") == "a [31mb c "


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r@x"])
def test_a_cell_that_would_be_a_formula_gets_a_quote(text):
    assert spreadsheet_text(text).startswith("'")


def test_other_cells_stay():
    assert spreadsheet_text("ivat, epsilon=1") == "ivat, epsilon=1"


@pytest.mark.parametrize("error", [False, True])
def test_what_is_said_keeps_its_lines_only(capsys, error):
    say(f"one {HOSTILE}\ntwo", error=error)
    said = capsys.readouterr()
    assert (said.err if error else said.out) == "one a [31mred  \ntwo\n"
    assert (said.out if error else said.err) == ""


def test_warnings_and_messages_of_other_packages_are_harmless(caplog):
    with harmless_warnings(), harmless_messages():
        shown = warnings.formatwarning(f"Checkpoint directory {HOSTILE} exists", UserWarning, "x.py", 1, "")
        logging.getLogger("lightning.pytorch").warning("saved in %s", HOSTILE)
    assert not set("\x1b\x07\u202e") & set(shown + caplog.text)
    assert "\x1b" in warnings.formatwarning(HOSTILE, UserWarning, "x.py", 1, "")


@pytest.mark.parametrize(("seconds", "text"), [(45.2, "45 s"), (600, "10 min"), (12_000, "3 h 20 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_messages_go_to_the_output_of_the_command_that_runs():
    package = logging.getLogger("attn_lightning")
    before, package.handlers, propagated = package.handlers, [], package.propagate
    printed = []
    try:
        for number in range(2):
            # Closed behind the command, as that of a captured one is: the next must not touch it.
            with io.StringIO() as output, redirect_stdout(output):
                show_messages()
                logging.getLogger("attn_lightning.data").info("message %d", number)
                printed.append(output.getvalue())
        assert len(package.handlers) == 1
    finally:
        package.handlers, package.propagate = before, propagated
    assert printed == ["message 0\n", "message 1\n"]
