"""`compare` on the terminal and as a page; what it refuses, in one line."""

import pytest

from attn_lightning.commands.compare import compare_command
from attn_lightning.errors import ConfigurationError
from support.run_folders import make_run

HOSTILE = ("a dull film", "what a \x1b[31m[bold]fine\u202e film", "fine")


@pytest.fixture
def pair(tmp_path):
    return [str(make_run(tmp_path, f"{name}_mine", seed=k, texts=HOSTILE)) for k, name in enumerate(("one", "two"))]


def test_tests_agreement_and_flips_are_printed(pair, capsys):
    assert compare_command(pair) == 0
    printed = capsys.readouterr().out
    assert "McNemar, exact" in printed
    assert "paired permutation over documents" in printed
    assert "jensen_shannon (0..0.6931, nats)" in printed
    assert "Documents that flipped" in printed
    assert not set("\x1b\u202e") & set(printed)


def test_no_flip_is_printed_where_none_is_asked_for(pair, capsys):
    compare_command([*pair, "--flips=0"])
    assert "Documents that flipped" not in capsys.readouterr().out


def test_the_page_has_both_runs_and_the_comparison(pair, tmp_path, capsys):
    compare_command([*pair, "--output", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert "McNemar, exact" in page
    assert "one_mine/v" in page
    assert "two_mine/v" in page


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "c"], ["a", "b", "--flips=-1"], ["a", "b"]])
def test_what_is_no_pair_of_runs_is_refused(arguments):
    with pytest.raises(ConfigurationError) as caught:
        compare_command(arguments)
    assert "\n" not in str(caught.value)
