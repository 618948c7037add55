"""Semi-supervised data: which training labels are shown, and where texts without labels come from."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress, repeat
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.batching import EncodedTexts
from attn_lightning.data.buckets import Rows
from attn_lightning.data.cache import MANIFEST
from attn_lightning.data.cutting import spread
from attn_lightning.data.encoding import encode_rows, write_rows
from attn_lightning.data.formats import Row
from attn_lightning.data.labels import Labels
from attn_lightning.data.overlap import overlap
from attn_lightning.data.preparation import FORMAT, Description, write_manifest
from attn_lightning.data.prepared import PreparedTexts
from attn_lightning.data.records import Columns, records
from attn_lightning.data.rows import ArrowDataset, MappedRows
from attn_lightning.data.sources import Split
from attn_lightning.data.text import UNKNOWN_ID, TextTokenizer
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import UNLABELED, Batch

EpochOf = Literal["longer", "shorter"]
VocabularyOf = Literal["train", "train_and_pool"]

MAX_UNKNOWN = 0.5
"""Share of unknown words above which texts are taken to be of another language than the task's."""

POOL_FILE = "pool.arrow"

SAMPLE = 1000
"""Texts at which the share of unknown words is measured before a pool is encoded."""


@dataclass(frozen=True)
class LabelOptions:
    """How many training labels are shown.

    Attributes:
        fraction: share of the labels of every class, in (0, 1]; None shows all.
        per_class: number of labels of every class; None shows all.
        seed: of the choice; the same rows whatever the seed of the training is.

    Raises:
        ConfigurationError: an option is out of its range, or both are given.
    """

    fraction: float | None = None
    per_class: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fraction is not None and self.per_class is not None:
            raise ConfigurationError(
                f"Expected `labeled_fraction` or `labels_per_class`, but got both ({self.fraction} and "
                f"{self.per_class}); leave one out."
            )
        check_numbers(above=0, at_most=1, labeled_fraction=self.fraction, advice="0.1 shows a tenth")
        check_numbers(at_least=1, labels_per_class=self.per_class)
        check_numbers(at_least=0, label_seed=self.seed)

    def choose(self, labels: NDArray[Any]) -> Rows:
        """Rows that keep their label, in rising order: stratified, at least one of every class.

        Args:
            labels: (N,) class of every row.

        Raises:
            ConfigurationError: a class has fewer rows than `per_class`.
        """
        if self.fraction is None and self.per_class is None:
            return np.arange(len(labels))
        # One order for all sizes: a larger choice contains the smaller one, and a curve over sizes has no noise of its
        # own.
        order = np.random.default_rng(self.seed).permutation(len(labels))
        chosen = []
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            wanted = self.per_class or max(1, round((self.fraction or 0.0) * int(count)))
            if wanted > count:
                raise ConfigurationError(
                    f"Expected `labels_per_class` to be at most the rows of every class, but got {wanted} and class "
                    f"{label} has {count}; lower it."
                )
            chosen.append(order[labels[order] == label][:wanted])
        return np.sort(np.concatenate(chosen))

    def describe(self, rows: Rows, labels: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
        """What the manifest says of the choice."""
        counts = np.bincount(labels[rows], minlength=len(names)).tolist()
        # Of one byte order and width, so that the same choice has the same name on every machine.
        digest = hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
        classes = dict(zip(names, counts, strict=True))
        return {"rows": len(rows), "classes": classes, "seed": self.seed, "sha256": digest}


class LabeledTexts(EncodedTexts):
    """Some rows of a split; `Batch.rows` are places in the split.

    Args:
        dataset: see `EncodedTexts`.
        rows: (n,) rows to take.
    """

    def __init__(self, dataset: ArrowDataset | MappedRows, rows: Rows) -> None:
        super().__init__(dataset)
        self.rows = rows

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "rows": self.rows}

    @property
    def lengths(self) -> Rows:
        """(n,) tokens of every row taken."""
        return super().lengths[self.rows]

    @property
    def second_lengths(self) -> Rows | None:
        """(n,) tokens of their second texts."""
        every = super().second_lengths
        return None if every is None else every[self.rows]

    def costs(self, of_word: Rows) -> tuple[Rows, Rows | None]:
        """(n,) of every row taken, see `EncodedTexts.costs`."""
        first, second = super().costs(of_word)
        return first[self.rows], None if second is None else second[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The rows as one padded batch."""
        # A single row goes on as it is, to the message that says why there is one.
        return super().__getitem__(rows if isinstance(rows, int) else self.rows[rows].tolist())


class UnlabeledTexts(EncodedTexts):
    """A split whose labels and annotations nobody sees."""

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        """The rows as one padded batch with `UNLABELED` labels."""
        batch = super().__getitem__(rows)
        # Labels are hidden here, in the data: a method cannot use by mistake what it never gets.
        return Batch(batch.tokens, batch.mask, torch.full_like(batch.labels, UNLABELED), batch.rows)


def texts_only(split: Split, columns: Columns, limit: int | None) -> Iterator[Row]:
    """The rows of any source without their labels, which need not even exist.

    Args:
        split: of the source.
        columns: which column is the text.
        limit: at most this number of rows, spread over all of them; None takes all.
    """

    def unlabeled() -> Iterator[tuple[int, Row]]:
        # A source does not say how many rows it has: they are read once more to be counted.
        chosen: Iterable[Any] = repeat(True) if limit is None else spread(sum(1 for _ in split.rows()), limit)
        for number, row in compress(split.rows(), chosen):
            # Any valid label: readers demand one, and nobody looks at it again.
            yield number, {**row, columns.label: "0"}

    hidden = replace(split, rows=unlabeled)
    return records(hidden, replace(columns, annotations=()), Labels(("0", "1")))


@dataclass(frozen=True)
class ForeignPool:
    """The training texts of another data set, as a pool of a task.

    Attributes:
        data: the other data set.
        limit: at most this number of texts, spread over the file; None takes all.
        max_length: texts are cut off after this number of words, or that of the task if it is smaller; 0 is none.
        known: whether its words count for the vocabulary of the task.
    """

    data: Description
    limit: int | None
    max_length: int
    known: bool

    @classmethod
    def of(cls, other: Any, task: Columns, known: bool) -> "ForeignPool":
        """The pool that a data module is for a task.

        Args:
            other: the data module.
            task: the columns of the task; where it has single texts, second ones of the pool are not read.
            known: see `known` of the class.

        Raises:
            ConfigurationError: the task has pairs of texts, and the pool has not.
        """
        data: Description = other.describe()
        if task.question is not None and data.columns.question is None:
            raise ConfigurationError(
                f"Expected pairs of texts as `unlabeled`, as this data has them, but got single ones of {data.name}; "
                "name the column of second texts with `--data.unlabeled.question_column`, or use another pool."
            )
        if task.question is None:
            data = replace(data, columns=replace(data.columns, question=None))
        return cls(data, other.recipe.max_examples, other.recipe.max_length, known)

    def texts(self) -> Iterator[Row]:
        """Its rows."""
        return texts_only(self.data.source.splits["train"], self.data.columns, self.limit)

    def key(self, task: str) -> str:
        """Name of the pool under a task, which reads it with its own vocabulary.

        Args:
            task: name of the task with its options.
        """
        columns = asdict(self.data.columns)
        # Nothing of a pool depends on it, and it should not be encoded again when it changes.
        del columns["rationale_threshold"]
        if columns["question"] is None:
            del columns["question"]  # as before there were pairs
        read_as = self.data.source.read_as.given().items()
        content = [FORMAT, task, self.data.source.revision, columns, self.limit, *read_as]
        content += [self.max_length] * (self.max_length > 0)  # as before it counted
        content += ["spread"] * (self.limit is not None)  # before, it took the first
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def task_key(self, task: str) -> str:
        """Name of the task with this pool: another one where the pool is a part of the vocabulary."""
        return self.key(task) if self.known else task

    def folder(self, task: Path) -> Path:
        """Where it is kept: beside the folder of the task."""
        return task.parent / f"pool-{self.key(task.name)[:20]}"

    def prepare(self, task: PreparedTexts, folder: Path) -> None:
        """Encode its texts as the task reads them.

        Args:
            task: what was prepared of the task.
            folder: an empty one.

        Raises:
            ConfigurationError: the texts are of another language than the task's.
        """
        tokenizer = task.tokenizer
        with tempfile.TemporaryDirectory(dir=folder.parent) as raw:
            rows = write_rows(self.texts(), Path(raw) / "pool.arrow")
            # Before all of it is encoded, which takes minutes where the texts are many.
            share = check_language(rows, tokenizer, self.data.name)
            shortest = min(filter(None, (self.max_length, tokenizer.options.max_length)), default=0)
            cutting = TextTokenizer(tokenizer.vocabulary, replace(tokenizer.options, max_length=shortest))
            encode_rows(rows, cutting, folder / POOL_FILE, labeled=False)
            # Texts that a model was adapted to, though without their labels, it may read better than others.
            shared = overlap(rows, {name: task.split(name) for name in task.splits if name != "train"})
        content = {"name": self.data.name, "source": self.data.origin(), "unknown_share": share, "overlap": shared}
        write_manifest(folder, {**content, "rows": len(MappedRows(folder / POOL_FILE))})

    def open(self, task: Path) -> tuple[MappedRows, dict[str, Any]]:
        """The texts that `prepare` encoded, and what a manifest says of them."""
        folder = self.folder(task)
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        # Their sizes tell whether the folder is whole, and say nothing about the data.
        del content["files"]
        return MappedRows(folder / POOL_FILE), content


def pool_line(name: str, labeled: int, pool: Mapping[str, Any]) -> str:
    """What a run prints of its pool: sizes, and of a foreign one what cannot be read and what other splits have too.

    Args:
        name: of the task.
        labeled: texts with a label.
        pool: what a manifest says of the pool.
    """
    sizes = f"{name}: {labeled:,} labelled texts, {pool['rows']:,} unlabelled ones"
    if "source" not in pool:  # the task's own
        return sizes
    parts = [f"{sizes} of {pool['name']}"]
    if share := pool["unknown_share"]:
        # A tenth of a percent is a word in a thousand: less of it, rounded, would read as none.
        parts[0] += f", of whose words {max(share, 0.001):.1%} are unknown, as training never had them"
        parts.append("`--data.vocabulary_of=train_and_pool` makes them known")
    # What an earlier version prepared does not say it.
    shared = [f"{count:,} in {split}" for split, count in pool.get("overlap", {}).items() if count]
    if shared:
        parts.append(f"unlabelled texts that other splits have too: {', '.join(shared)}")
    return "; ".join(parts)


def check_pool(unlabeled: Any, vocabulary_of: VocabularyOf) -> None:
    """Refuse a pool that is none, and a vocabulary of a pool that there is not.

    Args:
        unlabeled: option of a data module.
        vocabulary_of: option of a data module.

    Raises:
        ConfigurationError: see above.
    """
    check_choice(choices=get_args(VocabularyOf), vocabulary_of=vocabulary_of)
    foreign = hasattr(unlabeled, "describe")
    if unlabeled not in (None, "train") and not foreign:
        raise ConfigurationError(
            f"Expected `unlabeled` to be `train` or a text data module, but got {unlabeled!r}; leave it out for "
            "supervised training."
        )
    if vocabulary_of == "train_and_pool" and not foreign:
        raise ConfigurationError(
            f"Expected another data set as `unlabeled` for `vocabulary_of: train_and_pool`, but got {unlabeled!r}; "
            "name one, or use `vocabulary_of: train`."
        )


def check_language(rows: ArrowDataset, tokenizer: TextTokenizer, name: str) -> float:
    """Share of words of a pool that the task does not know, at `SAMPLE` rows spread over it.

    Args:
        rows: column `tokens` or `text`.
        tokenizer: that of the task.
        name: of the pool, for the message.

    Returns:
        The share in [0, 1].

    Raises:
        ConfigurationError: it is above `MAX_UNKNOWN`.
    """
    # Spread over the file, which may be sorted.
    sample = rows.select(spread(len(rows), SAMPLE).nonzero()[0])
    options = replace(tokenizer.options, unknown="token", default_tokens=0)
    keeping = TextTokenizer(tokenizer.vocabulary, options)
    words = "tokens" in rows.column_names
    encoding = keeping.encode_tokens(sample["tokens"][:]) if words else keeping.encode_batch(sample["text"][:])
    share = float(np.mean(np.concatenate(encoding.ids) == UNKNOWN_ID))
    if share > MAX_UNKNOWN:
        raise ConfigurationError(
            f"Expected unlabelled texts in the language of the task, but {share:.0%} of the words of {name} are not in "
            f"its vocabulary (at most {MAX_UNKNOWN:.0%}); use another pool, or lower `min_count` of the task."
        )
    return share
