"""The page as a file: nothing in its data can become markup, and its policy allows its own parts alone."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from attn_lightning.report.template import embedded, policy, render, script

HOSTILE = ("</script><script>alert(1)</script>", "<!--", "</style>", "<img src=x onerror=alert(1)>", "&lt;", "\u2028")


class Reader(HTMLParser):
    """The elements of a page, and the contents of scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append((self.tags[-1][0] if self.tags else "", data))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_ends_the_data(text):
    assert json.loads(embedded({"a": text})) == {"a": text}
    assert not re.search(r"[<>&]", embedded({"a": text, text: 1}))
    page = read(render({"title": text, "runs": [text]}))
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    data = next(data for tag, data in page.texts if data.startswith('{"title"'))
    assert json.loads(data)["runs"] == [text]


def test_the_policy_is_that_of_the_contents():
    page = render({"title": "a"})
    reader = read(page)
    (allowed,) = [a["content"] for tag, a in reader.tags if tag == "meta" and "http-equiv" in a]
    assert allowed.startswith("default-src 'none'; ")
    assert "unsafe" not in allowed
    for kind, tag in (("script-src", "<script>"), ("style-src", "<style>")):
        contents = page.split(tag)[1].split(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(contents.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in allowed


def test_the_page_asks_for_nothing():
    reader = read(render({"title": "a"}))
    assert not [a for _, a in reader.tags if "src" in a or (a.get("href") or "#")[0] != "#"]
    assert not [a for _, a in reader.tags if any(name.startswith("on") or name == "style" for name in a)]


def test_the_script_never_makes_markup_of_text():
    code = script()
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "XMLHttp",
    ):
        assert way not in code
    assert "</script" not in code.lower()


def test_a_title_is_one_line_of_text():
    page = render({"title": "a\x1b[31m\u202eb\n<b>"})
    assert "<title>a [31m b &lt;b&gt; · report</title>" in page


def test_the_same_content_gives_the_same_page():
    assert render({"title": "a"}) == render({"title": "a"})
    assert policy("a", "b") != policy("a", "c")


def test_templates_are_part_of_the_package():
    names = {path.name for path in resources.files("attn_lightning.report").joinpath("templates").iterdir()}
    assert {"report.html.j2", "report.css", "dom.js", "main.js"} <= names
