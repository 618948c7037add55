"""Where pieces stand in the passes of an encoder, against a plain loop over words."""

import pytest
import torch
from torch import Tensor

from attn_lightning.backbone.layout import Pooling, layout, windows_of

COUNTS = torch.tensor([[1, 3, 2, 0, 0], [2, 2, 2, 2, 1]])


def by_hand(counts: Tensor, room: int, windows: bool) -> list[list[tuple[int, int]]]:
    """Per pass the (word, piece) that stand in it."""
    passes: list[list[tuple[int, int]]] = []
    for row, sizes in enumerate(counts.tolist()):
        passes.append([])
        begins = len(passes)
        for word, size in enumerate(sizes):
            if len(passes[-1]) + size > room:
                passes.append([])
            passes[-1] += [(row * counts.shape[1] + word, piece) for piece in range(size)]
        if not windows:
            del passes[begins:]
    return passes


@pytest.mark.parametrize("windows", [True, False])
@pytest.mark.parametrize("max_length", [20, 6])
def test_one_text_in_a_plain_loop(windows: bool, max_length: int) -> None:
    placed = layout(COUNTS, None, prefix=1, separator=1, suffix=1, max_length=max_length, windows=windows)
    expected = by_hand(COUNTS, max_length - 2, windows)
    found: list[list[int]] = [[] for _ in expected]
    for number, place, word in zip(placed.passes.tolist(), placed.places.tolist(), placed.words.tolist(), strict=True):
        assert place == len(found[number]) + 1
        found[number].append(word)
    assert found == [[word for word, _ in each] for each in expected]
    assert placed.lengths.tolist() == [len(each) + 2 for each in expected]
    assert placed.cut == (
        0 if windows or max_length == 20 else int((COUNTS > 0).sum()) - len({w for e in expected for w, _ in e})
    )
    assert not placed.is_second.any()


def test_the_second_text_stands_behind_the_separator_of_every_pass() -> None:
    counts = torch.tensor([[2, 2, 2, 1, 1]])
    second = torch.tensor([[False, False, False, True, True]])
    placed = layout(counts, second, prefix=1, separator=1, suffix=1, max_length=8, windows=True)
    assert placed.rows.tolist() == [0, 0, 0]
    assert placed.lengths.tolist() == [7, 7, 7]
    assert placed.words.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 3, 4, 3, 4]
    assert placed.places[6:].tolist() == [4, 5] * 3
    assert placed.is_second[0].tolist() == [False] * 4 + [True] * 3


def test_windows_hold_whole_words() -> None:
    assert windows_of(COUNTS, torch.tensor([4, 4])).tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 2]]


def test_passes_are_as_wide_as_a_multiple_and_never_wider_than_the_encoder_reads() -> None:
    widths = []
    for multiple, max_length in ((1, 40), (16, 40), (16, 12)):
        placed = layout(COUNTS, None, 1, 1, 1, max_length, windows=False, multiple=multiple)
        assert placed.lengths.tolist() == [8, 11]
        widths.append(placed.is_second.shape[1])
    assert widths == [11, 16, 12]


@pytest.mark.parametrize("windows", [True, False])
def test_the_second_text_has_half_of_a_pass_and_each_text_counts_what_it_loses(windows: bool) -> None:
    counts = torch.tensor([[2, 2, 2, 2, 2, 2, 1]])
    second = torch.arange(7)[None] >= 3
    # 11 places less three special ones: the second text may take four, two words of its four; the first has the rest.
    placed = layout(counts, second, prefix=1, separator=1, suffix=1, max_length=11, windows=windows)
    read = sorted(set(placed.words.tolist()))
    assert read == ([0, 1, 2, 3, 4] if windows else [0, 1, 3, 4])
    assert (placed.cut, placed.cut_second) == ((0, 2) if windows else (1, 2))


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_states_of_words_in_a_plain_loop(pooling: Pooling) -> None:
    counts, second = torch.tensor([[2, 2, 2, 1, 3]]), torch.tensor([[False, False, False, True, True]])
    placed = layout(counts, second, prefix=1, separator=1, suffix=1, max_length=11, windows=True)
    assert placed.numbers().tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1, 2, 0, 0, 1, 2]
    hidden = torch.arange(float(placed.is_second.numel())).view(*placed.is_second.shape, 1)
    found = placed.word_states(hidden, (1, 5), pooling)
    for word in range(5):
        # A word of the second text has pieces in every pass; the last of them is that of "first".
        places = [(placed.passes[k], placed.places[k]) for k in range(len(placed.words)) if placed.words[k] == word]
        values = [float(hidden[place]) for place in places]
        firsts = values[:: int(counts[0, word])]
        assert found[0, word].item() == pytest.approx(firsts[-1] if pooling == "first" else sum(values) / len(values))
