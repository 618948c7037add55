"""Examples of any text data as a checkpoint's own vocabulary reads them: evaluation out of domain."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.data.batching import second_lengths, with_second
from attn_lightning.data.buckets import Rows
from attn_lightning.data.candidates import candidates_of
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError, listed
from attn_lightning.evaluation.subject import Examples
from attn_lightning.metrics.per_example import to_array
from attn_lightning.types import UNLABELED, Batch


class Subset:
    """Some rows of a split, numbered anew from 0.

    Args:
        examples: the split.
        rows: those to keep, in the order they get.

    Attributes:
        origin: the split.
    """

    def __init__(self, examples: Examples, rows: NDArray[np.int64]) -> None:
        self.origin = examples
        self.rows = rows
        self.lengths: Rows = np.asarray(examples.lengths)[rows]
        second = second_lengths(examples)
        self.second_lengths: Rows | None = None if second is None else second[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        batch = self.origin[self.rows[np.asarray(rows, np.int64)].tolist()]
        # Places in the subset: by these results are put in order, and not by those of the split.
        return batch._replace(rows=torch.as_tensor(rows, dtype=torch.int64))


def teach_new_words(model: Backbone, examples: Examples) -> None:
    """Let a model know the words of examples that no training had; only one that reads letters can."""
    while isinstance(examples, Subset):
        examples = examples.origin
    if isinstance(examples, Reencoded):
        model.know(examples.tokenizer.vocabulary)


def subset(examples: Examples, size: int | None, seed: int) -> Examples:
    """A random subset of at most `size` examples that depends on the seed alone; all of them if there are no more."""
    if size is None or size >= len(examples):
        return examples
    return Subset(examples, chosen_rows(len(examples), size, seed))


def not_longer(examples: Examples, most: int | None) -> tuple[Examples, list[str]]:
    """The examples of at most so many tokens, and a sentence about those that are left out.

    Raises:
        ConfigurationError: all are longer.
    """
    lengths = np.asarray(examples.lengths)
    kept = np.flatnonzero(lengths <= (lengths.max() if most is None else most))
    if len(kept) == len(lengths):
        return examples, []
    said = f"{len(lengths) - len(kept):,} of {len(lengths):,} texts are longer than {most:,} tokens (`max_tokens`)"
    if not len(kept):
        raise ConfigurationError(f"Expected texts to evaluate, but all {said}; raise it.")
    # Never a subset of a subset: its rows are those of the split, by which the linear control finds the texts.
    left = Subset(*((examples.origin, examples.rows[kept]) if isinstance(examples, Subset) else (examples, kept)))
    return left, [
        f"{said}, the longest has {lengths.max():,}, and left out: what erases every token takes their square"
    ]


def chosen_rows(total: int, size: int, seed: int) -> Rows:
    """The rows of a random subset, in rising order; it depends on the numbers alone, so that it can be found again.

    Args:
        total: rows that there are.
        size: of the subset; not below `total`, it is all of them.
        seed: of the choice.
    """
    if size >= total:
        return np.arange(total)
    # A permutation, so that the rows of a smaller subset are among those of a larger one with the same seed.
    return np.sort(np.random.default_rng(seed).permutation(total)[:size])


class Reencoded:
    """A split of one data set, read with the tokenizer of a model that was trained on another.

    The words are those the model would have made in training: words that the data gives are taken as they are by a
    model that was trained on given words; any other model cuts the text as it cut its own.

    Marks of words (rationales, shortcuts) follow the characters: a token is marked if any character of it was.

    Args:
        data: the data set, prepared and set up.
        split: of it.
        tokenizer: the model's own.
        classes: (C_data,) class of the model for every class of the data.
    """

    def __init__(self, data: TextDataModule, split: str, tokenizer: TextTokenizer, classes: NDArray[np.int64]) -> None:
        self._data, self._split = data, split
        words = data.words(split) if tokenizer.options.words_given else None
        self.tokenizer = tokenizer
        # A model that reads letters can read words that its training never had.
        tokenizer.growing = tokenizer.options.unknown == "keep"
        encoding = tokenizer.encode_batch(data.texts(split)) if words is None else tokenizer.encode_tokens(words)
        questions = data.questions(split)
        self._second = None if questions is None else tokenizer.encode_batch(questions, whole=True).ids
        self.second_lengths: Rows | None = (
            None if self._second is None else np.array([len(ids) for ids in self._second])
        )
        self._ids, self._offsets = encoding.ids, encoding.offsets
        labels = np.asarray(data.rows(split).data.column("label"), np.int64)
        # -1 stays -1; as an index it would be the last class.
        self._labels = np.where(labels == UNLABELED, UNLABELED, classes[labels.clip(0)])
        self.lengths: Rows = np.array([len(ids) for ids in self._ids], np.int64)
        names = data.rows(split).column_names
        self._marks = [name for name in ("rationale", "shortcut") if name in names]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        lengths = self.lengths[np.asarray(rows, np.int64)]
        mask = np.arange(lengths.max()) < lengths[:, None]
        tokens = np.zeros(mask.shape, np.int64)
        tokens[mask] = np.concatenate([self._ids[row] for row in rows])
        original = self._data.examples(self._split)[list(rows)]
        marks = {name: torch.from_numpy(self._moved(getattr(original, name), rows, mask)) for name in self._marks}
        batch = Batch(
            tokens=torch.from_numpy(tokens),
            mask=torch.from_numpy(mask),
            labels=torch.from_numpy(self._labels[np.asarray(rows, np.int64)]),
            rows=torch.as_tensor(rows, dtype=torch.int64),
            has_rationale=original.has_rationale,
            **marks,
        )
        if self._second is None:
            return batch
        chosen = [self._second[row] for row in rows]
        second = np.zeros((len(chosen), max(map(len, chosen))), np.int64)
        for line, ids in zip(second, chosen, strict=True):
            line[: len(ids)] = ids
        return with_second(batch, second, candidates_of([self._ids[row] for row in rows], self.tokenizer))

    def _moved(self, marked: torch.Tensor, rows: Sequence[int], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        moved = np.zeros(mask.shape, np.bool_)
        for line, row, old in zip(moved, rows, marked.numpy(), strict=True):
            characters = np.zeros(len(self._data.text(self._split, row)) + 1, np.int64)
            # Not strict: marks are padded to the longest text of their batch.
            for (start, end), mark in zip(self._data.offsets(self._split, row), old, strict=False):
                characters[start:end] = mark
            # Marked characters before each place: two differences tell whether a word has any.
            counts = np.concatenate([[0], np.cumsum(characters)])
            offsets = np.asarray(self._offsets[row], np.int64)
            line[: len(offsets)] = counts[offsets[:, 1]] > counts[offsets[:, 0]]
        return moved


def examples_for(
    data: Any, split: str, tokenizer: str | None, label_names: Sequence[str]
) -> tuple[Examples, list[str]]:
    """The examples of a split as the model that is evaluated must read them.

    Args:
        data: a data module with `examples(split)`, prepared and set up.
        split: of it.
        tokenizer: state of the model's tokenizer; None for segments.
        label_names: the model's classes.

    Returns:
        The examples, and sentences that a reader of the results must know.

    Raises:
        ConfigurationError: no such split, other classes, or text for a model of segments and the other way round.
    """
    theirs = list(data.label_names)
    # Texts of some of many classes are of the same task, where their names say which.
    if len(theirs) != len(label_names) and not set(theirs) <= set(label_names):
        raise ConfigurationError(
            f"Expected data with the {len(label_names)} classes of the checkpoint ({listed(label_names)}), but got "
            f"{len(theirs)} ({listed(theirs)}); use data of the same task."
        )
    # Asked of the object and not of its class: a user's own data module need not derive from ours.
    has_words = hasattr(data, "tokenizer")
    if has_words != (tokenizer is not None):
        wanted, came = ("text", "segments") if tokenizer is not None else ("segments", "text")
        raise ConfigurationError(f"Expected {wanted} for this checkpoint, but got {came}; use another `--data`.")
    if not has_words:
        return data.examples(split), []
    classes, notes = _matched(theirs, list(label_names))
    assert tokenizer is not None
    # The same vocabulary and classes: what was prepared is mapped, and what is read again lies in memory.
    if data.tokenizer.to_str() == tokenizer and (classes == np.arange(len(theirs))).all():
        return data.examples(split), notes
    notes.append("the texts are read with the vocabulary of the checkpoint")
    return Reencoded(data, split, TextTokenizer.from_str(tokenizer), classes), notes


def _matched(theirs: list[str], ours: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """The class of the model for every class of the data, and a note where these are fewer, or one side has numbers.

    Raises:
        ConfigurationError: neither are the names among the model's nor is one side numbered from 0.
    """
    if set(theirs) <= set(ours):
        fewer = [f"the data has {len(theirs)} of the {len(ours)} classes of the checkpoint"]
        return np.array([ours.index(name) for name in theirs]), fewer if len(theirs) < len(ours) else []
    places = [str(place) for place in range(len(ours))]
    if places not in (theirs, ours):
        raise ConfigurationError(
            f"Expected data with the classes {listed(ours)} of the checkpoint, but got {listed(theirs)}, and "
            "names are not matched by their order; give the data the same names."
        )
    pairs = ", ".join(f"{a} as {b}" for a, b in zip(theirs, ours, strict=True))
    return np.arange(len(ours)), [f"the classes of one side are numbers and stand for places among the others: {pairs}"]


def check_rationales(examples: Examples) -> str | None:
    """Look at every rationale once.

    Returns:
        SHA-256 of all of them, which tells two annotations of the same texts apart; None where there are none.

    Raises:
        DataFormatError: a rationale marks a token that does not exist, naming the row.
    """
    digest = hashlib.sha256()
    for start in range(0, len(examples), 1024):
        rows = list(range(start, min(start + 1024, len(examples))))
        batch = examples[rows]
        if batch.rationale is None:
            return None
        if batch.rationale.shape != batch.mask.shape:
            raise DataFormatError(
                f"Expected rationales of the shape of the tokens {tuple(batch.mask.shape)}, but got "
                f"{tuple(batch.rationale.shape)} in rows {start} to {rows[-1]}; give one mark per token."
            )
        beyond = (batch.rationale & ~batch.mask).any(-1)
        if bool(beyond.any()):
            row = int(batch.rows[beyond][0])
            raise DataFormatError(
                f"Expected a rationale with one mark per token, but that of row {row} is longer than its "
                f"{int(batch.mask[beyond][0].sum())} tokens; mend the row."
            )
        assert batch.has_rationale is not None, "None together with the rationale"
        marks, known = to_array(batch.rationale), to_array(batch.has_rationale)
        for line, real, has in zip(marks, to_array(batch.mask), known, strict=True):
            digest.update(b"%d" % has + np.packbits(line[real]).tobytes())
    return digest.hexdigest()
