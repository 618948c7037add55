"""Blocks: what goes in comes out again, as a browser would read it."""

import base64
import json
import zlib

import numpy as np
import pytest

from attn_lightning.report.blocks import LEVELS, Blocks, gaps_and_widths


def read(blocks, reference):
    raw = zlib.decompress(base64.b64decode(blocks.contents[reference["block"]]))
    return json.loads(raw) if reference["type"] == "json" else np.frombuffer(raw, f"<{reference['type']}")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u1"),
        ([-1, 127], "i1"),
        ([0, 256], "u2"),
        ([-300, 3], "i2"),
        ([0, 70000], "u4"),
        ([-70000], "i4"),
        ([], "u1"),
    ],
)
def test_integers_come_back_in_the_smallest_type(values, kind):
    blocks = Blocks()
    reference = blocks.integers(np.array(values, np.int64))
    assert reference["type"] == kind
    assert read(blocks, reference).tolist() == values


def test_a_number_beyond_32_bits_is_refused():
    with pytest.raises(ValueError, match="32 bits"):
        Blocks().integers(np.array([2**40]))


def test_equal_contents_are_stored_once():
    blocks = Blocks()
    first, second = (blocks.json(["a", "a text"]) for _ in range(2))
    assert first == second
    assert len(blocks.contents) == 1
    assert read(blocks, first) == ["a", "a text"]


def test_weights_are_within_half_a_step():
    generator = np.random.default_rng(0)
    lengths = np.array([3, 1, 6])
    values = generator.normal(size=10).astype(np.float32)
    blocks = Blocks()
    packed = blocks.weights(values, lengths)
    steps, scales = (read(blocks, packed[part]) for part in ("steps", "scales"))
    first = 0
    for length, scale in zip(lengths, scales, strict=True):
        mine = values[first : first + length]
        assert scale == pytest.approx(np.abs(mine).max())
        assert np.abs(steps[first : first + length] * scale / LEVELS - mine).max() <= scale / LEVELS / 2 + 1e-6
        first += length


def test_what_was_not_explained_has_no_scale():
    blocks = Blocks()
    packed = blocks.weights(np.array([np.nan, np.nan, 0.0, 0.0, np.inf], np.float32), np.array([2, 2, 1]))
    scales = read(blocks, packed["scales"])
    assert np.isnan(scales[[0, 2]]).all()
    assert scales[1] == 0
    assert read(blocks, packed["steps"]).tolist() == [0, 0, 0, 0, 0]


def test_gaps_and_widths_give_the_places_back():
    lengths = np.array([2, 0, 3])
    starts, ends = np.array([1, 4, 0, 0, 7]), np.array([3, 9, 0, 5, 8])
    gaps, widths = gaps_and_widths(starts, ends, lengths)
    found, first = [], 0
    for length in lengths:
        at = 0
        for token in range(first, first + length):
            start = at + gaps[token]
            at = start + widths[token]
            found.append((start, at))
        first += length
    assert found == list(zip(starts, ends, strict=True))
