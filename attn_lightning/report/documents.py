"""The test examples of a run as flat arrays: texts, offsets, explanations and rationales, in the order of the split."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attn_lightning.data.buckets import Rows
from attn_lightning.errors import DataFormatError, one_line
from attn_lightning.evaluation.explainers.available import explainers
from attn_lightning.evaluation.out_of_domain import chosen_rows
from attn_lightning.report.run_data import EVALUATION, Run

PREDICTIONS = "predictions.parquet"
FIRST = ("attention", "gradient", "hidden")
"""Explanations that every run stores, in the order in which they are offered."""

_PLACES = ("start", "end")
_KNOWN = ("row", "label", "prediction", "probabilities", "text", "question", "rationale", "candidates", *_PLACES)
_BEYOND_BASIC_PLANE = "\uffff"
_OPTIONS_DIGEST = re.compile(r"-[0-9a-f]{8}$")
"""At the end of the file name of an explainer that has options."""


@dataclass(frozen=True)
class Documents:
    """N test examples with T tokens in all.

    Attributes:
        rows: (N,) place in the split.
        labels: (N,) class, -1 where there is none.
        predictions: (N,) class.
        probabilities: (N, C).
        texts: N texts, the first ones of pairs; for data that is not text, the numbers of the segments.
        lengths: (N,) tokens of every example.
        starts: (T,) where a token begins in its text, in UTF-16 units, which browsers count in.
        ends: (T,) where it ends.
        explanations: by name (T,) a number per token, NaN where it was not computed.
        rationale: (T,) marks, or None if the run stored none.
        has_rationale: (N,) whether an example has a rationale.
        segments: whether the examples are not text.
        questions: N second texts, or None where the examples are no pairs.
        candidates: (N, C) whether a class can be the answer, or None where every class can.
        left_out: number of examples beyond the most that were asked for.
    """

    rows: Rows
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    texts: list[str]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    explanations: Mapping[str, NDArray[np.float32]]
    rationale: NDArray[np.bool_] | None
    has_rationale: NDArray[np.bool_]
    segments: bool = False
    questions: list[str] | None = None
    candidates: NDArray[np.bool_] | None = None
    left_out: int = 0


def read_documents(run: Run, most: int) -> Documents:
    """Read `predictions.parquet`, and what `evaluate` has stored of further explainers on the same examples.

    Args:
        run: whose folder it is in.
        most: examples at the most; of more, a random subset that depends on their number alone.

    Raises:
        DataFormatError: the file is missing, damaged, or not a table of predictions.
    """
    path = run.folder / PREDICTIONS
    if not path.is_file():
        raise DataFormatError(f"Expected {path}, but there is none; `fit` writes it where the data has a test split.")
    try:
        table = pq.read_table(path)
        # Written in the order of batches, and by several processes; pages and comparisons count rows of the split.
        table = table.take(pa.array(np.argsort(table.column("row").to_numpy(), kind="stable")))
        return _documents(table, chosen_rows(len(table), most, 0), run)
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError) as error:
        message = one_line(error).rstrip(".")
        raise DataFormatError(
            f"Expected a table of predictions in {path}, but got: {message}; test the run again."
        ) from error


def _documents(whole: pa.Table, kept: Rows, run: Run) -> Documents:
    extra = _evaluated(run, _list(whole, "attention").value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
    table = whole.take(pa.array(kept)) if len(kept) < len(whole) else whole
    lengths, attention = _ragged(table, "attention", None)
    names = [name for name in table.column_names if name not in _KNOWN and name != "attention"]
    # Known ones first and in one order, so that two runs side by side offer the same choice.
    names.sort(key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    explanations = {"attention": attention.astype(np.float32)}
    for name in names:
        if pa.types.is_list(table.schema.field(name).type):
            explanations[name] = _ragged(table, name, lengths)[1].astype(np.float32)
    for name, (values, starts) in extra.items():
        parts = [values[starts[row] : starts[row + 1]] for row in kept.tolist()]
        explanations.setdefault(name, np.concatenate([*parts, np.zeros(0, np.float32)]))
    probabilities = np.array(table.column("probabilities").to_pylist(), np.float32)
    if probabilities.ndim != 2:
        raise ValueError("probabilities are not one number per class")
    rationale, has_rationale = _rationale(table, lengths)
    segments = "text" not in table.column_names
    texts, starts, ends = _segments(lengths) if segments else _text(table, lengths)
    return Documents(
        rows=table.column("row").to_numpy().astype(np.int64),
        labels=table.column("label").fill_null(-1).to_numpy().astype(np.int64),
        predictions=table.column("prediction").to_numpy().astype(np.int64),
        probabilities=probabilities,
        texts=texts,
        lengths=lengths,
        starts=starts,
        ends=ends,
        explanations=explanations,
        rationale=rationale,
        has_rationale=has_rationale,
        segments=segments,
        questions=table.column("question").to_pylist() if "question" in table.column_names else None,
        candidates=_candidates(table, probabilities),
        left_out=len(whole) - len(kept),
    )


def _evaluated(run: Run, lengths: NDArray[np.int64]) -> dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """What evaluations of the test split kept of explainers: values (T,), NaN where not explained, and row starts."""
    known = explainers()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    found: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}
    for folder, summary in run.suites.items():
        size, seed = summary.get("examples"), summary.get("seed")
        # A run folder may hold evaluations on other data, whose tokens are not those of these documents.
        own = summary.get("split") == "test" and summary.get("sha256") == run.test_digest
        if not (own and isinstance(size, int) and isinstance(seed, int)):
            continue
        explained = np.repeat(np.isin(np.arange(len(lengths)), chosen_rows(len(lengths), size, seed)), lengths)
        for path in sorted((run.folder / EVALUATION / folder / "explanations").glob("*.npy")):
            name = _OPTIONS_DIGEST.sub("", path.stem)
            # Random and uniform weights explain nothing; as a choice on the page they would look as if they did.
            if name not in known or known[name].is_control or name in (*FIRST, "rationale", *found):
                continue
            scores = np.load(path, mmap_mode="r", allow_pickle=False)
            # Of other lengths, it was made by a model that cuts texts in another way.
            if scores.shape == (int(explained.sum()),):
                values = np.full(int(starts[-1]), np.nan, np.float32)
                values[explained] = scores
                found[name] = (values, starts)
    return found


def _list(table: pa.Table, name: str) -> pa.ListArray:
    column = table.column(name)
    if not pa.types.is_list(column.type):
        raise ValueError(f"`{name}` is no list per example")
    # Usually one chunk, which is then not copied.
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _ragged(table: pa.Table, name: str, expected: NDArray[np.int64] | None) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Lengths (N,) and values (T,) of a column of lists."""
    lists = _list(table, name)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    if expected is not None and not np.array_equal(lengths, expected):
        raise ValueError(f"`{name}` has other lengths than `attention`")
    return lengths, lists.flatten().to_numpy(zero_copy_only=False)


def _rationale(table: pa.Table, lengths: NDArray[np.int64]) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
    if "rationale" not in table.column_names or pa.types.is_null(table.schema.field("rationale").type):
        return None, np.zeros(len(lengths), np.bool_)
    lists = _list(table, "rationale")
    known: NDArray[np.bool_] = lists.is_valid().to_numpy(zero_copy_only=False)
    marks = np.zeros(int(lengths.sum()), np.bool_)
    # A null list has no values, so that those of the others are not where the lengths say.
    marks[np.repeat(known, lengths)] = lists.flatten().to_numpy(zero_copy_only=False)
    return marks, known


def _candidates(table: pa.Table, probabilities: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    if "candidates" not in table.column_names:
        return None
    found = np.array(table.column("candidates").to_pylist(), np.bool_)
    if found.shape != probabilities.shape:
        raise ValueError("candidates are not one per class")
    return found


def _text(table: pa.Table, lengths: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    texts = ["" if text is None else str(text) for text in table.column("text").to_pylist()]
    starts, ends = (_ragged(table, name, lengths)[1].astype(np.int64) for name in _PLACES)
    return texts, *browser_offsets(texts, starts, ends, lengths)


def browser_offsets(
    texts: Sequence[str], starts: NDArray[np.int64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets of tokens in the units of browsers, cut to the texts they are in.

    Args:
        texts: N texts.
        starts: (T,) first character of every token.
        ends: (T,) the character after its last.
        lengths: (N,) tokens of every text.

    Returns:
        Starts and ends in UTF-16 units, in which an emoji counts twice, both (T,).
    """
    limit = np.repeat(np.array([len(text) for text in texts], np.int64), lengths)
    # A damaged file may have offsets beyond its texts, and slicing would show other words without an error.
    starts = np.clip(starts, 0, limit)
    ends = np.clip(ends, starts, limit)
    first = np.concatenate([[0], np.cumsum(lengths)])
    for place, text in enumerate(texts):
        # Python counts characters, browsers UTF-16 units: an emoji is two of these.
        if not text.isascii() and max(text) > _BEYOND_BASIC_PLANE:
            units = np.concatenate([[0], np.cumsum([2 if c > _BEYOND_BASIC_PLANE else 1 for c in text])])
            tokens = slice(first[place], first[place + 1])
            starts[tokens], ends[tokens] = units[starts[tokens]], units[ends[tokens]]
    return starts, ends


def _segments(lengths: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the segments stand where texts have words."""
    longest = int(lengths.max(initial=0))
    names = [str(number + 1) for number in range(longest)]
    widths = np.array([len(name) + 1 for name in names], np.int64)
    begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(widths)[:-1]]) if longest else widths
    texts = [" ".join(names[:length]) for length in lengths.tolist()]
    starts = np.concatenate([begins[:length] for length in lengths.tolist()] or [begins])
    ends = np.concatenate([(begins + widths - 1)[:length] for length in lengths.tolist()] or [begins])
    return texts, starts, ends
