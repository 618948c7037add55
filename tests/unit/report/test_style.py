"""Names are text; files are the same twice and never overwritten."""

import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from attn_lightning.errors import ConfigurationError
from attn_lightning.report.study_drawings import Strip, strips
from attn_lightning.report.style import plain, render, write


def test_names_are_text_and_never_formulas():
    assert plain("a\x1b[31m$x_1$\n") == "a [31mx_1 "
    assert plain("_hidden") == " _hidden"
    assert len(plain("x" * 500)) == 60
    figure = strips({"$\\frac{": [Strip("$\\oops{", {0: 1.0})]}, "$m", "$\\frac")
    render(figure, "svg")


def test_files_are_the_same_twice_and_nothing_is_overwritten(tmp_path):
    def made(value: float) -> dict[str, Figure]:
        return {"s": strips({"d": [Strip("m", {0: value, 1: 0.5})]}, "x", "t")}

    first = write(made(0.25), tmp_path / "new")
    assert {path.name for path in first} == {"s.png", "s.svg"}
    before = {path: path.read_bytes() for path in first}
    assert before[tmp_path / "new" / "s.png"].startswith(b"\x89PNG")
    svg = before[tmp_path / "new" / "s.svg"]
    ElementTree.fromstring(svg)
    assert b"<dc:date>" not in svg
    assert write(made(0.25), tmp_path / "new") == first
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write({**made(0.75), "later": made(0.1)["s"]}, tmp_path / "new")
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--output"):
        write(made(0.25), tmp_path / "file")
