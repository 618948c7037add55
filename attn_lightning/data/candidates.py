"""Answers out of a list: the classes that a text names are the candidates for its answer, and no other class is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attn_lightning.data.text import PADDING_ID, UNKNOWN_ID, IntArray, TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError


def candidates_of(ids: Sequence[IntArray], tokenizer: TextTokenizer) -> NDArray[np.int64] | None:
    """The classes that texts name.

    A text that names none of them, as a user may ask about, leaves all of them.

    Args:
        ids: (T,) words of every text, as they are read: a word that was cut off names nothing.
        tokenizer: that of the data, whose `candidates` are the words of the classes.

    Returns:
        (B, C) the id of the word of a class that is a candidate, 0 where it is none, so that they can stand in a row of
        tokens; None where any class can be the answer.
    """
    words = tokenizer.candidates
    if not len(words):
        return None
    # By the ids that the model reads, so that training, prediction and other data agree on what a text names.
    named = np.stack([np.isin(words, row) for row in ids])
    # All of them where it names none: a probability over no class would be 0 / 0.
    named |= ~named.any(1, keepdims=True)
    return np.where(named, words, PADDING_ID)


def check_known(tokenizer: TextTokenizer) -> None:
    """Refuse a class that no training text names, for it could be the answer of none.

    Raises:
        ConfigurationError: naming the classes.
    """
    names = zip(tokenizer.options.candidates, tokenizer.candidates.tolist(), strict=True)
    if absent := [name for name, word in names if word == UNKNOWN_ID]:
        raise ConfigurationError(
            f"Expected the training texts to name every class that is a candidate for an answer, but got none that "
            f"names {', '.join(absent)}; lower `min_count`, or use `--data.candidates=false`."
        )


def check_answers(candidates: NDArray[np.int64], labels: ArrayLike, lines: Sequence[int], names: Sequence[str]) -> None:
    """Refuse a text whose answer is not among its candidates: its loss would be beyond all others.

    Args:
        candidates: (B, C), see `candidates_of`.
        labels: (B,) the answers.
        lines: (B,) where the texts stand in their file.
        names: of the classes.

    Raises:
        DataFormatError: naming the first line.
    """
    answers = np.asarray(labels)
    wrong = np.flatnonzero(candidates[np.arange(len(answers)), answers] == PADDING_ID)
    if len(wrong):
        line, name = lines[wrong[0]], names[answers[wrong[0]]]
        raise DataFormatError(
            f"Expected every text to name its answer, but that of line {line} does not name {name!r} among the words "
            "that are read; mend the row, raise `--data.max_length`, or use `--data.candidates=false`."
        )
