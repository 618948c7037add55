"""Attention on the words of a text as HTML, for notebooks."""

from collections.abc import Sequence
from html import escape

COLOUR = "46, 134, 193"
"""Red, green and blue of a word with the largest weight; blue is told from white by every kind of colour blindness."""

STRONGEST = 0.6
"""Opacity of the largest weight, low enough that black and white text on it both keep a contrast of 4.5 to 1."""


def heat_map(text: str, start: Sequence[int], end: Sequence[int], weights: Sequence[float]) -> str:
    """The text, with every word on a background as strong as its weight.

    The largest weight of the text has the full colour, so that two texts do not compare by colour; the number is shown
    when the mouse rests on a word. The text is data: whatever stands in it is shown and nothing of it is run.

    Args:
        text: as it came.
        start: offset of every word in characters.
        end: the offset after its last character.
        weights: one per word, 0 or more.

    Returns:
        One `<p>` element.
    """
    largest = max(weights, default=0.0) or 1.0
    parts, place = [], 0
    for first, last, weight in sorted(zip(start, end, weights, strict=True)):
        if last <= first:
            continue  # a token that stands for no characters, such as one put before every text
        parts.append(escape(text[place:first]))
        opacity = STRONGEST * weight / largest
        parts.append(
            f'<span style="background: rgba({COLOUR}, {opacity:.3f})" title="{weight:.4f}">'
            f"{escape(text[first:last])}</span>"
        )
        place = last
    parts.append(escape(text[place:]))
    # `bdi` keeps characters that turn the direction of writing inside of the text.
    return f'<p style="line-height: 1.7; white-space: pre-wrap"><bdi>{"".join(parts)}</bdi></p>'
