"""Rows on disk: checked rows as they were read, then the ids, offsets and marks of their words; mapped, not loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attn_lightning.data.candidates import candidates_of, check_answers, check_known
from attn_lightning.data.formats import Row
from attn_lightning.data.rows import ArrowDataset, open_rows
from attn_lightning.data.text import PADDING, UNKNOWN, TextOptions, TextTokenizer
from attn_lightning.errors import DataFormatError

ANNOTATIONS = {"rationale": "bool", "shortcut": "int8", "token_sentiment": "int8"}
"""Columns with one number per word, and how it is stored."""

BETWEEN = "\x1f"
"""The unit separator occurs in no text: "ab" + "c" and "a" + "bc" are two pairs."""


def write_rows(rows: Iterator[Row], path: Path) -> ArrowDataset:
    """Rows to an Arrow file, a thousand in memory at a time.

    Raises:
        DataFormatError: there are none.
    """
    chunk = list(islice(rows, 1000))
    if not chunk:
        raise DataFormatError(f"Expected examples in the {path.stem} split, but got none; check its file and classes.")
    types = {"line": pa.int64(), "label": pa.int64(), "text": pa.string(), "tokens": pa.list_(pa.string())}
    types |= dict.fromkeys(ANNOTATIONS, pa.list_(pa.int8())) | {"question": pa.string()}
    schema = pa.schema({name: kind for name, kind in types.items() if name in chunk[0]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while chunk:
            writer.write_table(pa.Table.from_pylist(chunk, schema))
            chunk = list(islice(rows, 1000))
    return open_rows(path)


def column_batches(rows: ArrowDataset, column: str) -> Iterator[list[Any]]:
    """The values of a column, a thousand rows at a time."""
    for batch in rows.select_columns([column]).iter(batch_size=1000):
        yield batch[column]


def joined_texts(rows: ArrowDataset) -> Iterator[str]:
    """The text of every row, of a pair both with `BETWEEN` between them; a thousand in memory at a time."""
    texts: Iterator[str] = chain.from_iterable(column_batches(rows, "text"))
    if "question" not in rows.column_names:
        return texts
    return map(BETWEEN.join, zip(texts, chain.from_iterable(column_batches(rows, "question")), strict=True))


def vocabulary_texts(
    rows: ArrowDataset, options: TextOptions, more: Callable[[], Iterator[Row]] | None = None
) -> Iterator[Any]:
    """The texts that make the vocabulary, those of questions too; all as words where the rows have words.

    Args:
        rows: the training texts, as `write_rows` made them.
        options: how raw text becomes words.
        more: other rows whose words count as well.
    """
    given = "tokens" in rows.column_names
    yield from chain.from_iterable(column_batches(rows, "tokens" if given else "text"))
    # It only cuts. No word is known to it, so that `drop` would leave none.
    cutter = TextTokenizer([PADDING, UNKNOWN], replace(options, default_tokens=0, unknown="token"))

    def cut(texts: list[str]) -> Iterator[list[str]]:
        return map(cutter.words, texts, cutter.encode_batch(texts, whole=True).offsets)

    if "question" in rows.column_names:
        for texts in column_batches(rows, "question"):
            yield from (cut(texts) if given else texts)
    for row in more() if more else ():
        yield (row.get("tokens") or next(cut([row["text"]]))) if given else row["text"]
        if (question := row.get("question")) is not None:
            yield next(cut([question])) if given else question


def encode_rows(rows: ArrowDataset, tokenizer: TextTokenizer, path: Path, labeled: bool = True) -> None:
    """Rows as `write_rows` made them, with the ids and offsets of their words in place of the words.

    Args:
        rows: as `write_rows` made them.
        tokenizer: that of the data.
        path: the new file.
        labeled: whether their labels mean anything.
    """
    import datasets

    annotations = [name for name in ANNOTATIONS if name in rows.column_names]
    features = {"line": "int64", "label": "int64", "text": "string", "truncated": "bool", "unknown": "bool"}
    lists = dict.fromkeys(("ids", "starts", "ends"), "int32") | {name: ANNOTATIONS[name] for name in annotations}
    if "rationale" in annotations:
        features["has_rationale"] = "bool"
    if "tokens" in rows.column_names:
        lists["words"] = "int32"
    if "question" in rows.column_names:
        features |= {"question": "string", "empty_question": "bool"}
        lists["question_ids"] = "int32"
        if tokenizer.options.candidates:
            check_known(tokenizer)
            lists["candidates"] = "int32"
    schema = {name: datasets.Value(kind) for name, kind in features.items()}
    schema |= {name: datasets.Sequence(datasets.Value(kind)) for name, kind in lists.items()}
    schema = datasets.Features(schema)

    def encode(table: pa.Table) -> pa.Table:
        words = table.column("tokens").to_pylist() if "tokens" in table.column_names else None
        encoding = (
            tokenizer.encode_batch(table.column("text").to_pylist())
            if words is None
            else tokenizer.encode_tokens(words)
        )
        columns: dict[str, Any] = {name: table.column(name) for name in ("line", "label", "text")}
        columns |= {"truncated": encoding.truncated, "unknown": encoding.unknown, "ids": _lists(encoding.ids)}
        columns["starts"] = _lists([offsets[:, 0] for offsets in encoding.offsets])
        columns["ends"] = _lists([offsets[:, 1] for offsets in encoding.offsets])
        if words is not None:
            # Where each word of the text ends, those included that were cut off or dropped: others may read them all.
            columns["words"] = _lists([np.cumsum([len(word) + 1 for word in row], dtype=int) - 1 for row in words])
        if "question" in table.column_names:
            second = tokenizer.encode_batch(table.column("question").to_pylist(), whole=True)
            columns |= {"question": table.column("question"), "question_ids": _lists(second.ids)}
            columns["empty_question"] = [bool(places[0] < 0) for places in second.positions]
            if (candidates := candidates_of(encoding.ids, tokenizer)) is not None:
                lines = table.column("line").to_pylist()
                if labeled:
                    check_answers(candidates, table.column("label").to_numpy(), lines, tokenizer.options.candidates)
                columns["candidates"] = _lists(list(candidates))
        for name in annotations:
            marks = table.column(name).to_pylist()
            columns[name] = _lists(
                [_pick(*pair) for pair in zip(marks, encoding.positions, strict=True)], ANNOTATIONS[name]
            )
            if name == "rationale":
                columns["has_rationale"] = [row is not None for row in marks]
        return pa.table({name: columns[name] for name in schema}).cast(schema.arrow_schema)

    rows.with_format("arrow").map(
        encode,
        batched=True,
        features=schema,
        remove_columns=[name for name in rows.column_names if name not in schema],
        cache_file_name=str(path),
        load_from_cache_file=False,
        # Named here, or `datasets` would pickle the tokenizer with the function to find a name.
        new_fingerprint=path.parent.name + path.stem,
        desc=f"encoding {path.stem}",
    )


def _lists(rows: Sequence[NDArray[Any]], kind: str = "int32") -> pa.ListArray:
    """A list column straight from arrays; going through Python lists would take most of the preparation."""
    # Arrow's own layout: all values in a row, and where each list begins.
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(np.concatenate(rows).astype(kind)))


def _pick(marks: list[int] | None, positions: NDArray[np.int32]) -> NDArray[np.int8]:
    """The annotation of the tokens that were kept; 0 where there is none."""
    # One 0 more at the end, where the position -1 of default tokens and stand-ins points.
    values = np.array([*(marks or [0] * (int(positions.max()) + 1)), 0], np.int8)
    return values[positions]
