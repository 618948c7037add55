"""Heat maps of attention: every word once, the text as it is, nothing of it as markup."""

import re
from html.parser import HTMLParser

import pytest

from attn_lightning.evaluation.heat_map import COLOUR, STRONGEST, heat_map

HOSTILE = "<script>alert(1)</script> & \u202eevil\u202c </p>"


class Reader(HTMLParser):
    """What a browser takes as tags and as text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.styles += [value for name, value in attrs if tag == "span" and name == "style"]

    def handle_data(self, data):
        self.text += data


def words(text):
    found = [(match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    return [start for start, _ in found], [end for _, end in found]


@pytest.mark.parametrize("text", ["one two three", HOSTILE, "", "  spaces   kept  "])
def test_the_text_is_shown_as_it_is(text):
    start, end = words(text)
    page = Reader(heat_map(text, start, end, [1.0] * len(start)))
    assert page.text == text
    assert page.tags == ["p", "bdi", *["span"] * len(start)]


def test_colours_are_shares_of_the_largest_weight():
    page = Reader(heat_map("a b c", [0, 2, 4], [1, 3, 5], [0.5, 0.25, 0.0]))
    shares = [float(style.split(",")[-1].rstrip(")")) for style in page.styles]
    assert shares == [STRONGEST, STRONGEST / 2, 0.0]
    assert all(COLOUR in style for style in page.styles)


def test_tokens_without_characters_and_weights_of_zero_are_left_blank():
    page = Reader(heat_map("word", [0, 0], [0, 4], [0.0, 0.0]))
    assert page.text == "word"
    assert page.styles == [f"background: rgba({COLOUR}, 0.000)"]


@pytest.mark.parametrize("ink", [0.0, 1.0])
def test_the_strongest_colour_can_be_read(ink):
    """Contrast by the formula of WCAG 2, on white paper with black ink and on black paper with white ink."""
    paper = 1 - ink
    mixed = [STRONGEST * int(part) / 255 + (1 - STRONGEST) * paper for part in COLOUR.split(",")]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in mixed]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    light, dark = max(luminance, ink), min(luminance, ink)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
