"""The data module that all text data sets share: preparation, cache, manifest, batches."""

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import datasets
import numpy as np
import pyarrow as pa
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader

from attn_lightning.data.batching import EncodedTexts, RaggedColumn, batch_loader
from attn_lightning.data.cache import MANIFEST, build_aside, default_cache, is_whole
from attn_lightning.data.embeddings import Embeddings, RandomEmbeddings, with_random_rows
from attn_lightning.data.sources import SPLITS, Columns, Labels, Row, Source, records
from attn_lightning.data.text import PADDING, UNKNOWN, Digits, Splitting, TextOptions, TextTokenizer, Unknown
from attn_lightning.data.unlabeled import (
    EpochOf,
    LabeledTexts,
    LabelOptions,
    UnlabeledTexts,
    check_language,
    texts_only,
)
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.types import Batch, DataSpec

logger = logging.getLogger(__name__)

FORMAT = 1
"""Part of the cache key: raised whenever the same options would prepare other data."""

ANNOTATIONS = {"rationale": "bool", "shortcut": "int8", "token_sentiment": "int8"}
TOKENIZER, POOL_FILE = "tokenizer.json", "pool.arrow"


@dataclass(frozen=True)
class Recipe:
    """The options of the preparation that depend on the data set and its protocol; None in the constructor means these.

    Attributes:
        min_length: shorter texts, in words, are left out of every split.
        max_length: longer texts are cut off after so many words; 0 cuts none.
        length_limit: texts of so many words or more are left out of every split; 0 leaves none out.
        drop_longest: leave the longest texts of every split out, as a strict "<" against the maximum does.
        min_count: words that occur less often in train are unknown.
        digits: see `TextOptions`.
        splitting: see `TextOptions`.
        validation_fraction: share of train that is cut off where there is no validation split.
        split_seed: of every split that is made here.
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

    def replace(self, **options: Any) -> "Recipe":
        """The recipe with other options."""
        return replace(self, **options)


class TextDataModule(LightningDataModule):
    """Text data from source to padded batches.

    `prepare_data` reads, checks, splits and encodes once, into a cache keyed by the content of the source and the
    options; a second start maps that cache into memory. A text without words, or without known words, is kept as
    `<unk>` and counted in the manifest and the log.

    Args:
        root: folder of data sets; None takes the environment variable ATTN_LIGHTNING_DATA, and without it the hub.
        cache: folder of the prepared data; None takes ATTN_LIGHTNING_CACHE, else the user's cache folder.
        batch_size: examples of a training batch, per process.
        eval_batch_size: examples of a validation, test or prediction batch, per process.
        min_length: texts of fewer words are left out and counted; None: as the data set's protocol says.
        max_length: texts are cut off after so many words and counted; 0 cuts none; None: as the protocol says.
        min_count: words that occur less often in the training texts are unknown; None: as the protocol says.
        lowercase: fold case.
        digits: `merge` reads all words with digits as one word; None: as the protocol says.
        unknown: `drop` leaves unknown words out, `token` keeps them as `<unk>`.
        embeddings: the initial word vectors; None draws 300 random numbers per word.
        validation_fraction: share of train for a missing validation split; None: as the protocol says.
        split_seed: seed of the splits that are made here; None: as the protocol says.
        token_budget: the most tokens of a training batch, padding included; None: no limit beside `batch_size`.
        num_workers: processes that make batches; 0 is fast enough, batches are views into mapped memory.
        max_examples: train on a random subset of so many examples that keeps the shares of the classes; None takes all.
        max_test_examples: test on a random subset of so many examples that keeps the shares of the classes; None: all.
        labeled_fraction: share of the training labels of every class that is shown, above 0 and at most 1; None: all.
        labels_per_class: shown training labels of every class, instead of a fraction; None shows all.
        label_seed: which labels are shown; independent of the seed of the training.
        unlabeled: where texts without labels come from: `train`, all training texts of this data with their labels
            hidden, or another data set as `--data.unlabeled IMDB`: the training texts of its source, the first
            `max_examples` of them, cut and encoded as this data is; its other options mean nothing here. None: no pool.
        unlabeled_batch_size: texts of an unlabelled batch, per process; None takes `batch_size`.
        epoch_of: an epoch is one pass over the `longer` of labelled and unlabelled batches, while the other starts
            again as often as needed, or over the `shorter`, which leaves a part of the other out, a new one each time.
        default_tokens: so many tokens without content are put before every text, the same for all texts and on top of
            `max_length`; for the backbone `DefaultTokens`. 0 for none.

    Raises:
        ConfigurationError: an option is out of its range, or the data is nowhere to be found.
        DataFormatError: a file or a row is not what was declared.
    """

    corpus: ClassVar[str] = "texts"

    def __init__(
        self,
        root: Path | None = None,
        cache: Path | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        min_length: int | None = None,
        max_length: int | None = None,
        min_count: int | None = None,
        lowercase: bool = True,
        digits: Digits | None = None,
        unknown: Unknown = "token",
        embeddings: Embeddings | None = None,
        validation_fraction: float | None = None,
        split_seed: int | None = None,
        token_budget: int | None = None,
        num_workers: int = 0,
        max_examples: int | None = None,
        max_test_examples: int | None = None,
        labeled_fraction: float | None = None,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        unlabeled: "Literal['train'] | TextDataModule | None" = None,
        unlabeled_batch_size: int | None = None,
        epoch_of: EpochOf = "longer",
        default_tokens: int = 0,
    ) -> None:
        super().__init__()
        environment = os.environ.get("ATTN_LIGHTNING_DATA")
        self.root = root or (Path(environment) if environment else None)
        self.cache = cache or default_cache()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.lowercase = lowercase
        self.unknown: Unknown = unknown
        self.embeddings = embeddings or RandomEmbeddings(300)
        self.token_budget = token_budget
        self.num_workers = num_workers
        self.max_examples = max_examples
        self.max_test_examples = max_test_examples
        self.shown_labels = LabelOptions(labeled_fraction, labels_per_class, label_seed)
        self.unlabeled: Literal["train"] | TextDataModule | None = unlabeled
        self.unlabeled_batch_size = batch_size if unlabeled_batch_size is None else unlabeled_batch_size
        self.epoch_of: EpochOf = epoch_of
        self.default_tokens = default_tokens
        self._overrides: dict[str, Any] = {
            "min_length": min_length,
            "max_length": max_length,
            "min_count": min_count,
            "digits": digits,
            "validation_fraction": validation_fraction,
            "split_seed": split_seed,
        }
        self._folder: Path | None = None
        self._vectors: Tensor | None = None
        # The command line clears it for `test` and `validate`: a checkpoint's weights would replace them at once.
        self.makes_word_vectors = True
        _check_options(self)

    # What a data set says of itself.

    def source(self) -> Source:
        """Where the rows come from; downloads nothing."""
        raise NotImplementedError

    def columns(self) -> Columns:
        """Which columns of the source are read."""
        return Columns()

    def protocol_recipe(self) -> Recipe:
        """The options of the protocol, before the user's own."""
        return Recipe()

    def declared_labels(self) -> tuple[str, ...] | None:
        """The classes by index; None takes those that occur in train."""
        return None

    def kept_classes(self) -> tuple[str, ...] | None:
        """The classes to keep, in the order of their index; None keeps all."""
        return None

    def notes(self) -> list[str]:
        """Sentences for the manifest: what a reader of a result must know about the data."""
        return []

    def arrange(self, splits: dict[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
        """Make the splits of the protocol; by default a missing validation split is cut from train."""
        if "validation" in splits:
            return splits
        train, validation = cut(splits["train"], self.recipe.validation_fraction, self.recipe.split_seed)
        return {**splits, "train": train, "validation": validation}

    # Lightning's two steps.

    def prepare_data(self) -> None:
        """Read, encode and cache the data and what the embeddings need, on one process; instant if it is cached."""
        folder = self._locate()
        if not is_whole(folder):
            build_aside(folder, self._build)
        self._load(folder)
        if self.makes_word_vectors:
            self._word_vectors()
            self._prepare_pool()

    def setup(self, stage: str | None = None) -> None:
        """Map the prepared data into memory."""
        if self._folder is None:
            self._load(self._locate())
        if self.makes_word_vectors and self.unlabeled is not None and "unlabeled" not in self.manifest:
            self._open_pool(self.unlabeled)

    @cached_property
    def recipe(self) -> Recipe:
        """The protocol's options with the user's in their place."""
        return self.protocol_recipe().replace(**{k: v for k, v in self._overrides.items() if v is not None})

    # What the others read after setup.

    @property
    def spec(self) -> DataSpec:
        """What a backbone must know; word vectors only if `makes_word_vectors`."""
        weights = self._word_vectors() if self.makes_word_vectors else None
        return DataSpec(
            num_classes=len(self.label_names),
            vocabulary_size=len(self.tokenizer),
            embedding_size=self.embeddings.dimension,
            label_names=self.label_names,
            embedding_weights=weights,
            num_default_tokens=self.default_tokens,
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name per class."""
        return tuple(self.manifest["label_names"])

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Where the data came from and what was made of it; JSON."""
        content: dict[str, Any] = json.loads((self._ready() / MANIFEST).read_text("utf-8"))
        return content

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that encoded the data."""
        return TextTokenizer.from_str((self._ready() / TOKENIZER).read_text("utf-8"))

    def dataset(self, split: str) -> datasets.Dataset:
        """The encoded split, memory-mapped: `text`, `label`, `ids`, `starts`, `ends` and annotations."""
        if split not in self._splits:
            raise ConfigurationError(
                f"Expected a split out of {', '.join(self._splits)}, but got {split!r}; the data has no such split."
            )
        return self._splits[split]

    def examples(self, split: str) -> EncodedTexts:
        """A split in random access, for whoever evaluates a model on it; of train all rows, labels shown."""
        return EncodedTexts(self.dataset(split))

    def texts(self, split: str) -> list[str]:
        """All texts of a split in the order of their rows; reads them into memory."""
        texts: list[str] = self.dataset(split).data.column("text").to_pylist()
        return texts

    def text(self, split: str, row: int) -> str:
        """The original text of a row."""
        text: str = self.dataset(split).data.column("text")[int(row)].as_py()
        return text

    def offsets(self, split: str, row: int) -> list[tuple[int, int]]:
        """Start and end of every token of a row in its text, in characters."""
        table = self.dataset(split).data
        starts, ends = (table.column(name)[int(row)].as_py() for name in ("starts", "ends"))
        return list(zip(starts, ends, strict=True))

    def training_examples(self) -> tuple[list[str], list[int]]:
        """The training texts whose labels are shown, and these labels; reads them into memory."""
        rows = self.dataset("train").select(self.labeled_rows)
        return rows["text"][:], rows["label"][:]

    def train_dataloader(self) -> DataLoader[Batch] | CombinedLoader:
        """Batches of similar length in an order that changes every epoch; pairs of them with an unlabelled pool."""
        options: dict[str, Any] = {"shuffle": True, "token_budget": self.token_budget}
        labeled = self._loader_of(LabeledTexts(self.dataset("train"), self.labeled_rows), self.batch_size, **options)
        if self.unlabeled is None:
            return labeled
        # Another seed, or both would deal out the same rows where all labels are shown.
        pool = self._loader_of(UnlabeledTexts(self._pool), self.unlabeled_batch_size, seed=1, **options)
        mode = "max_size_cycle" if self.epoch_of == "longer" else "min_size"
        return CombinedLoader({"labeled": labeled, "unlabeled": pool}, mode)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every validation row once, sorted by length."""
        return self._loader("validation", self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test row once, sorted by length; `Batch.rows` puts results back in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test rows."""
        return self.test_dataloader()

    def _loader(self, split: str, batch_size: int, **options: Any) -> DataLoader[Batch]:
        return self._loader_of(EncodedTexts(self.dataset(split)), batch_size, **options)

    def _loader_of(self, data: EncodedTexts, batch_size: int, seed: int = 0, **options: Any) -> DataLoader[Batch]:
        return batch_loader(data, batch_size, trainer=self.trainer, num_workers=self.num_workers, seed=seed, **options)

    def _word_vectors(self) -> Tensor:
        if self._vectors is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED") or 0)
            vocabulary = self.tokenizer.vocabulary
            words = vocabulary[: len(vocabulary) - self.default_tokens]
            vectors = self.embeddings.build(words, self._sentences, self.cache / "embeddings", seed)
            self._vectors = with_random_rows(vectors, self.default_tokens, seed) if self.default_tokens else vectors
        return self._vectors

    def _sentences(self) -> Iterator[list[str]]:
        words = np.array(self.tokenizer.vocabulary, object)
        for chunk in self._splits["train"].data.column("ids").chunks:
            values, bounds = words[chunk.values.to_numpy()], chunk.offsets.to_numpy()
            for start, end in pairwise(bounds):
                yield values[start + self.default_tokens : end].tolist()

    # Preparation.

    def _ready(self) -> Path:
        if self._folder is None:
            raise ConfigurationError(
                "Expected prepared data, but got a data module before `setup`; call `prepare_data()` and `setup()`."
            )
        return self._folder

    def _locate(self) -> Path:
        return self.cache / f"{self.corpus}-{self._key[:20]}"

    @cached_property
    def found(self) -> Source:
        """The source, looked for once."""
        return self.source()

    @cached_property
    def _key(self) -> str:
        content = {
            "format": FORMAT,
            "source": [self.found.kind, self.found.revision],
            "recipe": asdict(self.recipe),
            "columns": asdict(self.columns()),
            "labels": [self.declared_labels(), self.kept_classes()],
            "arrange": [type(self).__name__, getattr(self, "protocol", None)],
            "text": [self.lowercase, self.unknown],
            "max_examples": self.max_examples,
        }
        # Newer options count only where they are used, so that what was prepared before stays valid.
        newer = {"default_tokens": self.default_tokens, "max_test_examples": self.max_test_examples}
        content |= {name: value for name, value in newer.items() if value}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _load(self, folder: Path) -> None:
        if not is_whole(folder):
            raise ConfigurationError(
                f"Expected prepared data in {folder}, but got none; call `prepare_data()` first (the Trainer does)."
            )
        self._folder, self._vectors = folder, None
        for name in ("manifest", "tokenizer"):
            self.__dict__.pop(name, None)
        self._splits = {split: _open(folder / f"{split}.arrow") for split in self.manifest["splits"]}
        labels = self._splits["train"].data.column("label").to_numpy()
        self.labeled_rows = self.shown_labels.choose(labels)
        if len(self.labeled_rows) < len(labels):
            self.manifest["labeled"] = self.shown_labels.describe(self.labeled_rows, labels, self.label_names)

    # The unlabelled pool.

    def _pool_folder(self, other: "TextDataModule") -> Path:
        other.root = other.root or self.root
        content = [FORMAT, self._key, other.found.revision, asdict(other.columns()), other.max_examples]
        return self.cache / f"pool-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]}"

    def _prepare_pool(self) -> None:
        if isinstance(self.unlabeled, TextDataModule):
            folder = self._pool_folder(self.unlabeled)
            if not is_whole(folder):
                build_aside(folder, partial(self._build_pool, self.unlabeled))

    def _build_pool(self, other: "TextDataModule", folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as raw:
            texts = texts_only(other.found.splits["train"], other.columns(), other.max_examples)
            rows = _write(texts, Path(raw) / "pool.arrow")
            share = check_language(rows, self.tokenizer, other.corpus)
            _encode(rows, self.tokenizer, folder / POOL_FILE)
        encoded = _open(folder / POOL_FILE)
        manifest = {
            "name": other.corpus,
            "source": {key: getattr(other.found, key) for key in ("kind", "location", "revision")},
            "rows": len(encoded),
            "unknown_share": share,
            "files": {POOL_FILE: (folder / POOL_FILE).stat().st_size},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), "utf-8")

    def _open_pool(self, pool: "Literal['train'] | TextDataModule") -> None:
        content: dict[str, Any] = {"name": "train", "rows": len(self.dataset("train"))}
        self._pool = self.dataset("train")
        if isinstance(pool, TextDataModule):
            folder = self._pool_folder(pool)
            self._pool, content = _open(folder / POOL_FILE), json.loads((folder / MANIFEST).read_text("utf-8"))
            del content["files"]
        self.manifest["unlabeled"] = content | {"batch_size": self.unlabeled_batch_size, "epoch_of": self.epoch_of}
        logger.info("%s: %d labelled texts, %d unlabelled ones", self.corpus, len(self.labeled_rows), len(self._pool))

    def _labels(self) -> Labels:
        declared = self.declared_labels()
        if declared is None:
            declared = Labels.scan(self.found.splits["train"], self.columns().label).names
        return Labels(declared, self.kept_classes())

    def _build(self, folder: Path) -> None:
        labels = self._labels()
        with tempfile.TemporaryDirectory(dir=folder.parent) as raw:
            splits = {
                name: _write(records(split, self.columns(), labels), Path(raw) / f"{name}.arrow")
                for name, split in self.found.splits.items()
            }
            splits, filtered = self._select(self.arrange(splits))
            tokenizer = TextTokenizer.train(_training_texts(splits["train"]), self.recipe.min_count, self._text_options)
            for name, rows in splits.items():
                _encode(rows, tokenizer, folder / f"{name}.arrow")
        (folder / TOKENIZER).write_text(tokenizer.to_str(), "utf-8")
        encoded = {name: _open(folder / f"{name}.arrow") for name in splits}
        manifest = self._describe(encoded, filtered, labels.kept, len(tokenizer))
        manifest["files"] = {path.name: path.stat().st_size for path in folder.iterdir()}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), "utf-8")

    @property
    def _text_options(self) -> TextOptions:
        recipe = self.recipe
        kept = (recipe.digits, self.unknown, recipe.splitting, recipe.max_length)
        return TextOptions(self.lowercase, *kept, self.default_tokens)

    def _select(self, splits: dict[str, datasets.Dataset]) -> tuple[dict[str, datasets.Dataset], dict[str, int]]:
        kept: dict[str, datasets.Dataset] = {
            name: _within(splits[name], self.recipe, self._text_options) for name in SPLITS if name in splits
        }
        filtered = {name: len(splits[name]) - len(rows) for name, rows in kept.items()}
        for name, most in (("train", self.max_examples), ("test", self.max_test_examples)):
            if most is not None and most < len(kept[name]):
                kept[name] = cut(kept[name], 1 - most / len(kept[name]), self.recipe.split_seed)[0]
        return kept, filtered

    def _describe(
        self, splits: dict[str, datasets.Dataset], filtered: dict[str, int], names: tuple[str, ...], num_words: int
    ) -> dict[str, Any]:
        contents = {}
        digests = {name: _digests(rows) for name, rows in splits.items()}
        for name, rows in splits.items():
            contents[name] = _statistics(rows, names) | {"filtered": filtered[name], "sha256": digests[name][0]}
            if name != "train":
                contents[name]["overlap"] = int(np.isin(digests[name][1], digests["train"][1]).sum())
            _report(self.corpus, name, contents[name])
        return {
            "name": self.corpus,
            "source": {key: getattr(self.found, key) for key in ("kind", "location", "revision")},
            "protocol": getattr(self, "protocol", None),
            "recipe": asdict(self.recipe),
            "tokenizer": asdict(self._text_options),
            "label_names": names,
            "vocabulary_size": num_words,
            "notes": self.notes(),
            "splits": contents,
        }


def cut(rows: datasets.Dataset, fraction: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Two stratified parts, the second with `fraction` of the rows, as scikit-learn's `train_test_split` makes them.

    Raises:
        DataFormatError: there are too few rows of some class.
    """
    labels = rows.select_columns(["label"]).with_format("numpy")[:]["label"]
    try:
        first, second = train_test_split(
            np.arange(len(rows)), test_size=fraction, random_state=seed, stratify=labels, shuffle=True
        )
    except ValueError as error:
        raise DataFormatError(
            f"Expected enough examples of every class to cut {fraction:.0%} off, but got {len(rows)} ({error}); give "
            "a validation split of your own or change `validation_fraction`."
        ) from error
    return rows.select(np.sort(first)), rows.select(np.sort(second))


def _check_options(module: "TextDataModule") -> None:
    recipe = module.recipe
    counts = {"batch_size": module.batch_size, "eval_batch_size": module.eval_batch_size, "min_count": recipe.min_count}
    counts["unlabeled_batch_size"] = module.unlabeled_batch_size
    optional = {name: getattr(module, name) for name in ("token_budget", "max_examples", "max_test_examples")}
    counts |= {name: value for name, value in optional.items() if value is not None}
    lowest = {"min_length": recipe.min_length, "max_length": recipe.max_length, "num_workers": module.num_workers}
    lowest["default_tokens"] = module.default_tokens
    for names, least in ((counts, 1), (lowest, 0), ({"split_seed": recipe.split_seed}, 0)):
        for name, value in names.items():
            if value < least:
                raise ConfigurationError(f"Expected `{name}` to be {least} or more, but got {value}; raise it.")
    if module.epoch_of not in get_args(EpochOf):
        raise ConfigurationError(f"Expected `epoch_of` to be longer or shorter, but got {module.epoch_of!r}; pick one.")
    if module.unlabeled not in (None, "train") and not isinstance(module.unlabeled, TextDataModule):
        raise ConfigurationError(
            f"Expected `unlabeled` to be `train` or a text data module, but got {module.unlabeled!r}; leave it out for "
            "supervised training."
        )
    if not 0 < recipe.validation_fraction < 1:
        raise ConfigurationError(
            f"Expected `validation_fraction` to be between 0 and 1, but got {recipe.validation_fraction}; 0.1 is usual."
        )


def _open(path: Path) -> datasets.Dataset:
    return datasets.Dataset.from_file(str(path))


def _write(rows: Iterator[Row], path: Path) -> datasets.Dataset:
    """Rows to an Arrow file, a thousand in memory at a time.

    Raises:
        DataFormatError: there are none.
    """
    chunk = list(islice(rows, 1000))
    if not chunk:
        raise DataFormatError(f"Expected examples in the {path.stem} split, but got none; check its file and classes.")
    types = {"line": pa.int64(), "label": pa.int64(), "text": pa.string(), "tokens": pa.list_(pa.string())}
    types |= dict.fromkeys(ANNOTATIONS, pa.list_(pa.int8()))
    schema = pa.schema({name: kind for name, kind in types.items() if name in chunk[0]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while chunk:
            writer.write_table(pa.Table.from_pylist(chunk, schema))
            chunk = list(islice(rows, 1000))
    return _open(path)


def _batches(rows: datasets.Dataset, column: str) -> Iterator[list[Any]]:
    for batch in rows.select_columns([column]).iter(batch_size=1000):
        yield batch[column]


def _training_texts(rows: datasets.Dataset) -> Iterator[Any]:
    column = "tokens" if "tokens" in rows.column_names else "text"
    return chain.from_iterable(_batches(rows, column))


def _within(rows: datasets.Dataset, recipe: Recipe, options: TextOptions) -> datasets.Dataset:
    """The rows whose length in words the recipe admits."""
    if not (recipe.min_length or recipe.length_limit or recipe.drop_longest):
        return rows
    if "tokens" in rows.column_names:
        lengths = np.array([len(words) for batch in _batches(rows, "tokens") for words in batch])
    else:
        counter = TextTokenizer([PADDING, UNKNOWN], replace(options, default_tokens=0))
        lengths = np.array([count for batch in _batches(rows, "text") for count in counter.count_words(batch)])
    limit = min(recipe.length_limit or math.inf, lengths.max() if recipe.drop_longest else math.inf)
    kept = rows.select(np.flatnonzero((lengths >= recipe.min_length) & (lengths < limit)))
    if not len(kept):
        raise DataFormatError(
            f"Expected texts of {recipe.min_length} words or more and fewer than {limit}, but got lengths of "
            f"{lengths.min()} to {lengths.max()}; change `min_length`."
        )
    return kept


def _encode(rows: datasets.Dataset, tokenizer: TextTokenizer, path: Path) -> None:
    annotations = [name for name in ANNOTATIONS if name in rows.column_names]
    features = {"line": "int64", "label": "int64", "text": "string", "truncated": "bool", "unknown": "bool"}
    lists = dict.fromkeys(("ids", "starts", "ends"), "int32") | {name: ANNOTATIONS[name] for name in annotations}
    if "rationale" in annotations:
        features["has_rationale"] = "bool"
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
        new_fingerprint=path.parent.name + path.stem,
        desc=f"encoding {path.stem}",
    )


def _lists(rows: Sequence[NDArray[Any]], kind: str = "int32") -> pa.ListArray:
    """A list column straight from arrays; going through Python lists would take most of the preparation."""
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(np.concatenate(rows).astype(kind)))


def _pick(marks: list[int] | None, positions: NDArray[np.int32]) -> NDArray[np.int8]:
    """The annotation of the tokens that were kept; 0 where there is none."""
    values = np.array([*(marks or [0] * (int(positions.max()) + 1)), 0], np.int8)
    return values[positions]


def _statistics(rows: datasets.Dataset, names: tuple[str, ...]) -> dict[str, Any]:
    """Counts per class, and of what happened to the texts."""
    lengths = RaggedColumn(rows, "ids").lengths
    counts = np.bincount(rows.data.column("label").to_numpy(), minlength=len(names))
    flags = {name: int(rows.data.column(name).to_numpy().sum()) for name in ("truncated", "unknown")}
    classes = dict(zip(names, counts.tolist(), strict=True))
    return {"rows": len(rows), "classes": classes, "tokens": int(lengths.sum()), "longest": int(lengths.max()), **flags}


def _report(name: str, split: str, content: dict[str, Any]) -> None:
    """Log what was done to a split.

    Raises:
        DataFormatError: all rows are of one class.
    """
    classes = [label for label, count in content["classes"].items() if count]
    if len(classes) < 2:
        raise DataFormatError(
            f"Expected at least two classes in the {split} split of {name}, but got {classes} only; check the file."
        )
    logger.info(
        "%s, %s: %d texts, %d cut off, %d left out by length, %d without a known word, %s",
        name, split, content["rows"], content["truncated"], content["filtered"], content["unknown"],
        content["classes"],
    )  # fmt: skip


def _digests(rows: datasets.Dataset) -> tuple[str, NDArray[np.uint64]]:
    """SHA-256 of labels and texts in their order, and a short digest of each text."""
    whole, texts = hashlib.sha256(), np.empty(len(rows), np.uint64)
    labels = rows.data.column("label").to_numpy()
    for row, text in enumerate(chain.from_iterable(_batches(rows, "text"))):
        digest = hashlib.sha256(text.encode()).digest()
        whole.update(b"%d" % labels[row] + digest)
        texts[row] = int.from_bytes(digest[:8], "little")
    return whole.hexdigest(), texts
