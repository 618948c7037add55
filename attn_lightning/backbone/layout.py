"""Where the pieces of every word stand in the passes of a pretrained encoder."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Pooling = Literal["first", "mean"]
"""How the states of a word's pieces become its own."""


@dataclass(frozen=True)
class Layout:
    """Places of n pieces in N passes of at most L places, prefix, separator and suffix included.

    Attributes:
        rows: (N,) the text of every pass.
        lengths: (N,) places of it that are used.
        passes: (n,) the pass of every piece, texts and words in their order.
        places: (n,) its place there.
        words: (n,) its word, as a place in the flattened (B, T).
        first: (W,) which of the n pieces are the first of their word.
        first_length: (N,) places of the first text in it.
        second: (n,) bool, whether it belongs to the second text.
        is_second: (N, L) bool, whether the place is behind the separator.
        cut: words that found no place, those of second texts not among them.
        cut_second: words of second texts that found none in their half of a pass.
    """

    rows: Tensor
    lengths: Tensor
    passes: Tensor
    places: Tensor
    words: Tensor
    first: Tensor
    first_length: Tensor
    second: Tensor
    is_second: Tensor
    cut: int
    cut_second: int

    def numbers(self) -> Tensor:
        """(n,) which piece of its word each piece is, from 0; pieces of a word stand together."""
        new = torch.ones_like(self.words, dtype=torch.bool)
        new[1:] = self.words[1:] != self.words[:-1]
        each = torch.arange(len(self.words), device=self.words.device)
        return each - torch.where(new, each, 0).cummax(0).values

    def word_states(self, hidden: Tensor, shape: tuple[int, ...], pooling: Pooling) -> Tensor:
        """(N, L, D) states of places to (B, T, D) states of words; 0 for a word without pieces.

        Args:
            hidden: (N, L, D).
            shape: (B, T).
            pooling: a word has the state of its first piece or the mean over all of them.
        """
        of_pieces = hidden[self.passes, self.places]
        flat = of_pieces.new_zeros(shape[0] * shape[1], hidden.shape[-1])
        if pooling == "first":
            found = flat.index_copy(0, self.words[self.first], of_pieces[self.first])
        else:
            sums = flat.index_add(0, self.words, of_pieces)
            found = sums / torch.bincount(self.words, minlength=len(flat)).clamp_min(1).unsqueeze(-1)
        return found.view(*shape, -1)


def windows_of(counts: Tensor, room: Tensor) -> Tensor:
    """Runs of whole words that fit into one pass each, as many words as possible in every run.

    Args:
        counts: (B, T) pieces of every word.
        room: (B,) the most pieces of a pass of each text, at least the pieces of any word.

    Returns:
        (B, T) number of the run, from 0.
    """
    # The usual case, without the loop over words.
    if bool((counts.sum(1) <= room).all()):
        return torch.zeros_like(counts)
    found = np.zeros(tuple(counts.shape), np.int64)
    for line, sizes, most in zip(found, counts.tolist(), room.tolist(), strict=True):
        used = run = 0
        for place, size in enumerate(sizes):
            if used + size > most:
                run, used = run + 1, 0
            used += size
            line[place] = run
    # Greedy and in Python: where a run ends depends on all before it, which no tensor operation says.
    return torch.from_numpy(found).to(counts.device)


def layout(
    counts: Tensor,
    second: Tensor | None,
    prefix: int,
    separator: int,
    suffix: int,
    max_length: int,
    windows: bool,
    multiple: int = 1,
) -> Layout:
    """Where each piece goes.

    Args:
        counts: (B, T) pieces of every word, 0 where there is none.
        second: (B, T) bool, the words of the second text, which stand behind those of the first; None for one text.
        prefix: places before the text.
        separator: places between two texts.
        suffix: places after the text.
        max_length: the most places of a pass, all included.
        windows: read what does not fit in further passes, the second text in each of them; otherwise it is cut off.
        multiple: L is one of this number, unless that is beyond `max_length`.
    """
    device = counts.device
    behind = torch.zeros_like(counts, dtype=torch.bool) if second is None else second
    between = separator if second is not None else 0
    of_second = torch.where(behind, counts, 0)
    room = max_length - prefix - suffix - between
    # The second text may take half of a pass, so that something of the first is read.
    fits = of_second.cumsum(1) <= room // 2 if second is not None else torch.ones_like(behind)
    of_second = torch.where(fits, of_second, 0)
    of_first = torch.where(behind, 0, counts)
    runs = windows_of(of_first, room - of_second.sum(1))
    dropped = (counts > 0) & behind & ~fits
    cut = 0
    if not windows:
        cut = int(((counts > 0) & ~behind & (runs > 0)).sum())
        runs, of_first = torch.zeros_like(runs), torch.where(runs > 0, 0, of_first)
    per_row = runs.masked_fill(behind, 0).amax(1) + 1
    starts = per_row.cumsum(0) - per_row
    rows = torch.arange(len(counts), device=device).repeat_interleave(per_row)
    # Pieces of the first text in its passes, then those of the second once for every pass of the text.
    passes, words, first = _spread(of_first, starts.unsqueeze(1) + runs)
    size = torch.bincount(passes, minlength=len(rows))
    places = _within(passes) + prefix
    if second is not None:
        repeated = of_second[rows]
        own = torch.arange(len(rows), device=device).unsqueeze(1).expand_as(repeated)
        again, columns, begins = _spread(repeated, own)
        words_again = rows[columns // counts.shape[1]] * counts.shape[1] + columns % counts.shape[1]
        places_again = _within(again) + (prefix + size + between)[again]
        of_other = torch.arange(len(words) + len(words_again), device=device) >= len(words)
        first = torch.cat([first, begins + len(words)])
        passes, places = torch.cat([passes, again]), torch.cat([places, places_again])
        words = torch.cat([words, words_again])
    else:
        of_other = torch.zeros_like(words, dtype=torch.bool)
    lengths = torch.bincount(passes, minlength=len(rows)) + prefix + between + suffix
    longest = int(lengths.max())
    width = torch.arange(max(longest, min(-(-longest // multiple) * multiple, max_length)), device=device)
    is_second = width >= (prefix + size + between).unsqueeze(1)
    is_second = is_second & (width < lengths.unsqueeze(1)) if second is not None else torch.zeros_like(is_second)
    return Layout(rows, lengths, passes, places, words, first, size, of_other, is_second, cut, int(dropped.sum()))


def _spread(counts: Tensor, passes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) pass and word of every piece, words as often as they have pieces; (W,) the first piece of each."""
    flat = counts.flatten()
    words = torch.arange(len(flat), device=flat.device).repeat_interleave(flat)
    first = (flat.cumsum(0) - flat)[flat > 0]
    return passes.flatten()[words], words, first


def _within(passes: Tensor) -> Tensor:
    """(n,) how many pieces of the same pass stand before each one; the passes are in rising order."""
    sizes = torch.bincount(passes)
    starts = sizes.cumsum(0) - sizes
    return torch.arange(len(passes), device=passes.device) - starts[passes]
