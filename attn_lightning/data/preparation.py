"""From a source and a recipe to a folder: texts are read, checked, split and encoded once, and mapped from there."""

import hashlib
import json
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attn_lightning.checks import check_numbers
from attn_lightning.data.batching import RaggedColumn
from attn_lightning.data.cache import MANIFEST
from attn_lightning.data.cutting import cut
from attn_lightning.data.encoding import column_batches, encode_rows, joined_texts, vocabulary_texts, write_rows
from attn_lightning.data.formats import Row
from attn_lightning.data.labels import Labels
from attn_lightning.data.records import RATIONALE, Columns, records
from attn_lightning.data.rows import ArrowDataset, open_rows
from attn_lightning.data.sources import SPLITS, Source
from attn_lightning.data.text import (
    PADDING,
    UNKNOWN,
    Digits,
    Splitting,
    TextOptions,
    TextTokenizer,
    Unknown,
    uncut_words_per_clause,
)
from attn_lightning.errors import DataFormatError, listed
from attn_lightning.files import write_json, write_text

logger = logging.getLogger(__name__)

FORMAT = 1
"""Part of the cache key: raised whenever the same options would prepare other data."""

TOKENIZER = "tokenizer.json"

Splits = dict[str, ArrowDataset]


@dataclass(frozen=True)
class Recipe:
    """How texts are prepared: what the data set's protocol says, then what only the user says.

    Attributes:
        min_length: shorter texts, in words, are left out of every split.
        max_length: longer texts are cut off after this number of words; 0 cuts none.
        length_limit: texts of this number of words or more are left out of every split; 0 leaves none out.
        drop_longest: leave the longest texts of every split out, as a strict "<" against the maximum does.
        min_count: words that occur less often in train are unknown.
        digits: see `TextOptions`.
        splitting: see `TextOptions`.
        validation_fraction: share of train that is cut off where there is no validation split.
        split_seed: of every split that is made here.
        lowercase: see `TextOptions`.
        unknown: see `TextOptions`.
        default_tokens: see `TextOptions`.
        max_examples: the most texts of train; None keeps all.
        max_test_examples: the most texts of test; None keeps all.
        candidates: only a class that a text names can be its answer.

    Raises:
        ConfigurationError: a number is out of its range.
    """

    min_length: int = 0
    max_length: int = 0
    length_limit: int = 0
    drop_longest: bool = False
    min_count: int = 1
    digits: Digits = "keep"
    splitting: Splitting = "words"
    validation_fraction: float = 0.1
    split_seed: int = 0
    lowercase: bool = True
    unknown: Unknown = "token"
    default_tokens: int = 0
    max_examples: int | None = None
    max_test_examples: int | None = None
    candidates: bool = False

    def __post_init__(self) -> None:
        check_numbers(
            at_least=0, min_length=self.min_length, max_length=self.max_length, length_limit=self.length_limit
        )
        # What scikit-learn takes for a seed.
        check_numbers(at_least=0, at_most=2**32 - 1, split_seed=self.split_seed, default_tokens=self.default_tokens)
        check_numbers(at_least=1, at_most=2**31 - 1, min_count=self.min_count)
        check_numbers(at_least=1, max_examples=self.max_examples, max_test_examples=self.max_test_examples)
        check_numbers(above=0, below=1, validation_fraction=self.validation_fraction, advice="0.1 is usual")

    def replace(self, **options: Any) -> "Recipe":
        """The recipe with other options."""
        return replace(self, **options)

    @property
    def text_options(self) -> TextOptions:
        """The part that decides how a text becomes words."""
        kept = (self.digits, self.unknown, self.splitting, self.max_length, self.default_tokens)
        return TextOptions(self.lowercase, *kept)


@dataclass(frozen=True)
class Description:
    """What a data set says of itself.

    Attributes:
        name: short name.
        kind: name of the class, which stands for its `arrange` in the key of the cache.
        source: where the rows are.
        columns: which of them are read.
        label_names: the classes by index; None takes those that occur in train.
        kept_classes: the classes to keep, in the order of their index; None keeps all.
        protocol: name of the published protocol, if there are several.
        notes: sentences for the manifest.
        arrange: makes the splits of the protocol from those of the source.
    """

    name: str
    kind: str
    source: Source
    columns: Columns
    label_names: tuple[str, ...] | None
    kept_classes: tuple[str, ...] | None
    protocol: str | None
    notes: list[str]
    arrange: Callable[[Splits], Splits]

    def key(self, recipe: Recipe) -> str:
        """Name for what `prepare` makes of this data with this recipe: other content or options, another key."""
        protocol, user, columns = {}, asdict(recipe), asdict(self.columns)
        threshold = columns.pop("rationale_threshold")
        if columns["question"] is None:
            del columns["question"]  # as before there were pairs
        for name in list(user)[: list(user).index("lowercase")]:
            protocol[name] = user.pop(name)
        content = {
            "format": FORMAT,
            "source": [self.source.kind, self.source.revision],
            "recipe": protocol,
            "columns": columns,
            "labels": [self.label_names, self.kept_classes],
            "arrange": [self.kind, self.protocol],
            "text": [user.pop("lowercase"), user.pop("unknown")],
            "max_examples": user.pop("max_examples"),
        }
        # Newer options count only where they are used, so that what was prepared before stays valid.
        user |= self.source.read_as.given()
        user["words"] = self.columns.gives_words and 2  # 1 did not keep the words themselves
        user["classes"] = self.source.kind == "files" and "by value"
        user["rationale_threshold"] = threshold != 0.5 and threshold
        content |= {name: value for name, value in user.items() if value}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def origin(self) -> dict[str, str]:
        """Where the rows came from, for a manifest."""
        return {key: getattr(self.source, key) for key in ("kind", "location", "revision")}


def prepare(data: Description, recipe: Recipe, folder: Path, more: Callable[[], Iterator[Row]] | None = None) -> None:
    """Read, check, split and encode the texts; a thousand are in memory at a time.

    Args:
        data: where they are and what they are.
        recipe: what is done to them.
        folder: an empty one; it gets an Arrow file per split, the tokenizer and a manifest.
        more: other rows whose words count for the vocabulary as those of the training texts do.

    Raises:
        DataFormatError: a row is not what was declared, or a split is left without texts or classes.
    """
    # The classes first: every row is checked against them while it is read.
    labels, replaced = _labels(data), Counter[str]()
    # Beside the target, since the system's folder for temporary files is often in memory and too small.
    with tempfile.TemporaryDirectory(dir=folder.parent) as raw:
        splits: Splits = {}
        seen: set[int] | None = None
        for name in sorted(data.source.splits, key=SPLITS.index):  # train first: it says which classes there are
            read = records(data.source.splits[name], data.columns, labels, seen)
            counted = _counting(read, replaced, name)
            splits[name] = write_rows(counted, Path(raw) / f"{name}.arrow")
            seen = seen or set(np.unique(splits[name].data.column("label").to_numpy()).tolist())
        # After the splits are made: what `max_examples` leaves out of train must not turn up in another split.
        splits, filtered = _select(data.arrange(splits), recipe)
        notes = data.notes + ([] if data.columns.gives_words else _warn_of_uncut_words(splits["train"], recipe))
        # Never on validation or test texts: a vocabulary that knows their words would leak which ones occur there.
        options = replace(recipe.text_options, candidates=labels.kept if recipe.candidates else ())
        texts = vocabulary_texts(splits["train"], options, more)
        tokenizer = TextTokenizer.train(texts, recipe.min_count, options)
        if len(tokenizer) == 2 + recipe.default_tokens:  # padding and unknown, which every vocabulary has
            raise DataFormatError(
                "Expected words in the training texts, but got none; check the text column, or lower `min_count`."
            )
        for name, rows in splits.items():
            encode_rows(rows, tokenizer, folder / f"{name}.arrow")
    write_text(folder / TOKENIZER, tokenizer.to_str())
    encoded = {name: open_rows(folder / f"{name}.arrow") for name in splits}
    column = dict(data.columns.annotations).get(RATIONALE)
    # A misspelled column would train without rationales and say nothing.
    if column and not any(np.any(rows.data.column("has_rationale").to_numpy()) for rows in encoded.values()):
        raise DataFormatError(
            f"Expected column {column!r} to hold the rationale of some text, but got none in any split; correct the "
            "name of the column, or leave it out."
        )
    write_manifest(
        folder,
        {
            "name": data.name,
            "source": data.origin(),
            "protocol": data.protocol,
            "recipe": asdict(recipe),
            "tokenizer": asdict(tokenizer.options),
            "label_names": labels.kept,
            "vocabulary_size": len(tokenizer),
            "notes": notes,
            "splits": _describe(data.name, encoded, filtered, labels.kept),
            "replaced": dict(replaced),
        },
    )


def _labels(data: Description) -> Labels:
    """The classes: as declared, else as `datasets` names them in the training file, else those that occur there."""
    train = data.source.splits["train"]
    named = train.class_names.get(data.columns.label)
    declared = data.label_names or named
    if declared is None:
        return Labels(Labels.scan(train, data.columns.label).names, data.kept_classes, numbered=False)
    # The file's own order of names may be another one than the declared: matched by name, never by place.
    if named is None or set(named) <= set(declared):
        return Labels(declared, data.kept_classes)
    if len(named) != len(declared):
        raise DataFormatError(
            f"Expected the classes {listed(declared)}, but got {listed(named)} in {train.name}; declare those of "
            "the file in `label_names`."
        )
    return Labels(declared, data.kept_classes, aliases=named)


def _counting(rows: Iterator[Row], replaced: Counter[str], split: str) -> Iterator[Row]:
    """The rows; those in which a character was replaced are counted and then logged."""
    for row in rows:
        replaced[split] += row["replaced"]
        yield row
    if replaced[split]:
        logger.warning("%s: characters that are no Unicode were replaced in %d texts", split, replaced[split])


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """The last file of a prepared folder; it lists the others, by which `is_whole` knows that nothing is missing."""
    write_json(folder / MANIFEST, {**content, "files": {path.name: path.stat().st_size for path in folder.iterdir()}})


def _select(splits: Splits, recipe: Recipe) -> tuple[Splits, dict[str, int]]:
    """The texts that the recipe keeps, and how many of each split were left out by their length."""
    kept: Splits = {name: _within(splits[name], recipe) for name in SPLITS if name in splits}
    filtered = {name: len(splits[name]) - len(rows) for name, rows in kept.items()}
    for name, option in (("train", "max_examples"), ("test", "max_test_examples")):
        most = getattr(recipe, option)
        if most is not None and name in kept and most < len(kept[name]):
            # Stratified, so that a small sample keeps the shares of the classes. Half a row less is cut off, as it is
            # rounded up: of the exact share, which has no exact number, it would be one too many every fifth time.
            share = 1 - (most + 0.5) / len(kept[name])
            kept[name] = cut(kept[name], share, recipe.split_seed, f"raise `{option}`", learned=name == "train")[0]
    return kept, filtered


def _describe(name: str, splits: Splits, filtered: dict[str, int], classes: tuple[str, ...]) -> dict[str, Any]:
    digests = {split: _digests(rows) for split, rows in splits.items()}
    contents = {}
    for split, rows in splits.items():
        contents[split] = _statistics(rows, classes) | {"filtered": filtered[split], "sha256": digests[split][0]}
        if split != "train":
            # Texts that occur in train too: a test split with many of them measures memory.
            contents[split]["overlap"] = int(np.isin(digests[split][1], digests["train"][1]).sum())
        _check_classes(name, split, contents[split])
    return contents


def _warn_of_uncut_words(rows: ArrowDataset, recipe: Recipe) -> list[str]:
    """The sentence, for log and manifest, that a language without spaces was not cut into words; none for others."""
    sample = rows.select(range(min(len(rows), 1000)))
    found = None if recipe.splitting == "unicode" else uncut_words_per_clause(sample["text"][:])
    if found is None:
        return []
    sentence = (
        f"the texts have hardly more words than sentences ({found:.1f} between two punctuation marks), as in languages "
        "without spaces: cut them by character with `--data.tokenizer=unicode`, or give their words in a column and "
        "name it with `--data.tokens_column`"
    )
    logger.warning(sentence)
    return [sentence]


def _within(rows: ArrowDataset, recipe: Recipe) -> ArrowDataset:
    """The rows whose length in words the recipe admits."""
    if not (recipe.min_length or recipe.length_limit or recipe.drop_longest):
        return rows
    if "tokens" in rows.column_names:
        lengths = np.array([len(words) for batch in column_batches(rows, "tokens") for words in batch])
    else:
        counter = TextTokenizer([PADDING, UNKNOWN], replace(recipe.text_options, default_tokens=0))
        lengths = np.array([count for batch in column_batches(rows, "text") for count in counter.count_words(batch)])
    # The strict "<" against the maximum is what the published preprocessing does: it loses the longest texts.
    limit = min(recipe.length_limit or math.inf, lengths.max() if recipe.drop_longest else math.inf)
    kept = rows.select(np.flatnonzero((lengths >= recipe.min_length) & (lengths < limit)))
    if not len(kept):
        raise DataFormatError(
            f"Expected texts of {recipe.min_length} words or more and fewer than {limit}, but got lengths of "
            f"{lengths.min()} to {lengths.max()}; change `min_length`."
        )
    return kept


def _statistics(rows: ArrowDataset, names: tuple[str, ...]) -> dict[str, Any]:
    """Counts per class, and of what happened to the texts."""
    lengths = RaggedColumn(rows, "ids").lengths
    counts = np.bincount(rows.data.column("label").to_numpy(), minlength=len(names))
    counted = [name for name in ("truncated", "unknown", "empty_question") if name in rows.column_names]
    flags = {name: int(rows.data.column(name).to_numpy().sum()) for name in counted}
    classes = dict(zip(names, counts.tolist(), strict=True))
    return {"rows": len(rows), "classes": classes, "tokens": int(lengths.sum()), "longest": int(lengths.max()), **flags}


def _check_classes(name: str, split: str, content: dict[str, Any]) -> None:
    classes = [label for label, count in content["classes"].items() if count]
    if len(classes) < 2:
        raise DataFormatError(
            f"Expected at least two classes in the {split} split of {name}, but got {classes} only; check the file."
        )


def _digests(rows: ArrowDataset) -> tuple[str, NDArray[np.uint64]]:
    """SHA-256 of labels and texts in their order, and a short digest of each text."""
    whole, texts = hashlib.sha256(), np.empty(len(rows), np.uint64)
    labels = rows.data.column("label").to_numpy()
    for row, text in enumerate(joined_texts(rows)):
        digest = hashlib.sha256(text.encode()).digest()
        whole.update(b"%d" % labels[row] + digest)
        # Eight bytes are enough to count equal texts, and a million of them are 8 MB.
        texts[row] = int.from_bytes(digest[:8], "little")
    return whole.hexdigest(), texts
