"""Texts and names that try to be more than text, in the browser."""

import json

import pytest

from attn_lightning.report.page import ReportOptions
from support.reports import write_report
from support.run_folders import make_run

HOSTILE = [
    "<script>window.broken = 1</script> film",
    "</script><script>window.broken = 1</script> film",
    "</style><style>body{display:none}</style> film",
    "<!-- film --> <img src=x onerror=window.broken=1>",
    "\u202edlrow\u202c \u2066film\u2069",
    "\x1b[31mred\x1b[0m film\x00",
    "=1+1 @SUM(A1) film",
    "😂😂 fine 👩\u200d👩\u200d👧 film",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd film",
    "&lt;b&gt; &amp; film",
]
SEEN = [
    *HOSTILE[:4],
    "[U+202E]dlrow[U+202C] [U+2066]film[U+2069]",
    "[U+001B][31mred[U+001B][0m film[U+0000]",
    *HOSTILE[6:],
]
NAME = "</script><b>\u202e=x"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    changes = {
        "name": NAME,
        "methods": [{"class": "<u>m", "option": "<!--"}],
        "data": {"name": "<s>data", "label_names": ["<b>bad", "\u202egood"], "splits": {"test": {"rows": 10}}},
    }
    runs = [make_run(folder, f"run{seed}", "<i>v", seed=seed, texts=HOSTILE) for seed in range(2)]
    for path in (run / "metrics.json" for run in runs):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return write_report([*runs, folder / "\x1b[31m<b>nowhere"], folder / "out", ReportOptions(figures=False))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_texts_are_shown_as_text(opened, hostile, theme, width):
    seen = opened(hostile, theme, width)
    seen.open("documents")
    seen.page.select_option("#sort", label="Order of the split")
    for expected in SEEN:
        assert seen.page.locator("#reader .text").first.text_content() == expected
        seen.page.keyboard.press("j")
    assert seen.page.evaluate("window.broken") is None
    assert seen.page.locator("#main :is(script, style, img, b, i, s)").count() == 0
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_are_marked_where_they_stand(opened, hostile):
    seen = opened(hostile)
    seen.open("documents")
    seen.page.fill("#query", "😂")
    seen.wait_for_count("1 of 10 documents")
    marked = seen.page.locator("#reader .text").first.locator("mark").all_inner_texts()
    assert set(marked) <= {"😂😂", "fine", "👩\u200d👩\u200d👧", "film"}
    assert len(marked) >= 2


def test_names_are_shown_as_text(opened, hostile):
    page = opened(hostile).page
    text = page.text_content("#summary")
    for part in ("</script><b>[U+202E]=x", "<s>data", "<u>m(option=<!--)", "<b>nowhere is no folder"):
        assert part in text, part
    assert page.locator("main bdi").count() > 5


def test_nothing_else_may_run(opened, hostile):
    seen = opened(hostile)
    seen.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.broken = 1";
          document.body.append(script);
          document.body.setAttribute("onclick", "window.broken = 1");
          document.body.click();
          const style = document.createElement("style");
          style.textContent = "body { display: none }";
          document.head.append(style);
        }"""
    )
    assert seen.page.evaluate("window.broken") is None
    assert seen.page.is_visible("#main")
    outcome = seen.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')")
    assert outcome == "refused"
    assert len(seen.errors) >= 3
    assert all("Content Security Policy" in error or "example.org" in error for error in seen.errors)
    seen.errors.clear()
