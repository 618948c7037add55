"""The data module that all text data sets share: options, prepared data, batches."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

import pyarrow as pa
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.batching import EVALUATION_TOKENS, TRAINING_TOKENS, EncodedTexts, _SplitLoaders, batch_loader
from attn_lightning.data.buckets import Rows
from attn_lightning.data.cache import build_aside, default_cache, is_whole
from attn_lightning.data.cutting import cut
from attn_lightning.data.embeddings import Embeddings, RandomEmbeddings
from attn_lightning.data.encoding import ANNOTATIONS
from attn_lightning.data.preparation import Description, Recipe, Splits, prepare
from attn_lightning.data.prepared import PreparedTexts, data_line
from attn_lightning.data.records import Columns
from attn_lightning.data.rows import ArrowDataset, MappedRows, to_numpy
from attn_lightning.data.sources import Source
from attn_lightning.data.text import Digits, Splitting, TextTokenizer, Unknown
from attn_lightning.data.unlabeled import (
    EpochOf,
    ForeignPool,
    LabeledTexts,
    LabelOptions,
    UnlabeledTexts,
    VocabularyOf,
    check_pool,
    pool_line,
)
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch, DataSpec

logger = logging.getLogger(__name__)


class TextDataModule(_SplitLoaders):
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
        max_length: texts are cut off after this number of words and counted; 0 cuts none; None: as the protocol says.
        min_count: words that occur less often in the training texts are unknown; None: as the protocol says.
        lowercase: fold case.
        digits: `merge` reads all words with digits as one word; None: as the protocol says.
        tokenizer: how raw text is cut, `words`, `treebank`, `alphanumeric` or `unicode`, which makes every character of
            Han, Kana and Thai a word; None: as the protocol says. Texts that came as words stay as they are.
        unknown: `drop` leaves unknown words out, `token` keeps them as `<unk>`, `keep` gives every word of every split
            an id of its own, for the encoder `Pretrained`, with which the command line sets it.
        embeddings: the initial word vectors; None draws 300 random numbers per word.
        validation_fraction: share of train for a missing validation split; None: as the protocol says.
        split_seed: seed of the splits that are made here; None: as the protocol says.
        token_budget: the most tokens of a batch, padding included, so that one long text costs its own length and not
            that of a batch of such texts; a longer text is a batch of its own. None: 131,072 in training and 300,000
            elsewhere, which bounds no batch of texts of up to 2,300 words. An encoder that reads pieces of words pays
            for those: they count.
        num_workers: processes that make batches; 0 is fast enough, batches are views into mapped memory.
        max_examples: train on a random subset of this size that keeps the shares of the classes; None takes all.
        max_test_examples: test on a random subset of this size that keeps the shares of the classes; None: all.
        labeled_fraction: share of the training labels of every class that is shown, above 0 and at most 1; None: all.
        labels_per_class: shown training labels of every class, instead of a fraction; None shows all.
        label_seed: which labels are shown; independent of the seed of the training.
        unlabeled: where texts without labels come from: `train`, all training texts of this data with their labels
            hidden, or another data set as `--data.unlabeled IMDB`: the training texts of its source, of which
            `max_examples` takes some from all over the file, encoded as this data is and cut off by the `max_length` of
            either; how else it would prepare them means nothing here. None: no pool.
        vocabulary_of: words of `train` alone are known, or of `train_and_pool` of other data, which then count for
            `min_count` and the training of word vectors too. With `unknown: keep` those of the pool always are.
        unlabeled_batch_size: texts of an unlabelled batch, per process; None takes `batch_size`.
        epoch_of: an epoch is one pass over the `longer` of labelled and unlabelled batches, while the other starts
            again as often as needed, or over the `shorter`, which leaves a part of the other out, a new one each time.
        default_tokens: the number of tokens without content that are put before every text, the same for all texts
            and on top of `max_length`; for the backbone `DefaultTokens`. 0 for none.

    Raises:
        ConfigurationError: an option is out of its range, or the data is nowhere to be found.
        DataFormatError: a file or a row is not what was declared.
    """

    corpus: ClassVar[str] = "texts"
    classes: ClassVar[tuple[str, ...] | None] = None

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
        tokenizer: Splitting | None = None,
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
        vocabulary_of: VocabularyOf = "train",
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
        self.embeddings = embeddings or RandomEmbeddings(300)
        self.token_budget = token_budget
        self.num_workers = num_workers
        self.shown_labels = LabelOptions(labeled_fraction, labels_per_class, label_seed)
        self.unlabeled: Literal["train"] | TextDataModule | None = unlabeled
        self.unlabeled_batch_size = batch_size if unlabeled_batch_size is None else unlabeled_batch_size
        self.epoch_of: EpochOf = epoch_of
        self.vocabulary_of: VocabularyOf = vocabulary_of
        overrides = {
            "min_length": min_length,
            "max_length": max_length,
            "min_count": min_count,
            "digits": digits,
            "splitting": tokenizer,
            "validation_fraction": validation_fraction,
            "split_seed": split_seed,
            "lowercase": lowercase,
            "unknown": unknown,
            "default_tokens": default_tokens,
            "max_examples": max_examples,
            "max_test_examples": max_test_examples,
        }
        self.recipe = self.protocol_recipe().replace(**{k: v for k, v in overrides.items() if v is not None})
        self._prepared: PreparedTexts | None = None
        self._vectors: Tensor | None = None
        # The command line clears it for `test` and `validate`: a checkpoint's weights would replace them at once.
        self.makes_word_vectors = True
        check_numbers(at_least=1, batch_size=batch_size, eval_batch_size=eval_batch_size, token_budget=token_budget)
        check_numbers(at_least=1, unlabeled_batch_size=unlabeled_batch_size)
        check_numbers(at_least=0, num_workers=num_workers)
        check_choice(choices=get_args(EpochOf), epoch_of=epoch_of)
        check_pool(unlabeled, vocabulary_of)

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
        return self.classes

    def kept_classes(self) -> tuple[str, ...] | None:
        """The classes to keep, in the order of their index; None keeps all."""
        return None

    def notes(self) -> list[str]:
        """Sentences for the manifest: what a reader of a result must know about the data."""
        return []

    def arrange(self, splits: Splits) -> Splits:
        """Make the splits of the protocol; by default a missing validation split is cut from train."""
        if "validation" in splits:
            return splits
        train, validation = cut(splits["train"], self.recipe.validation_fraction, self.recipe.split_seed)
        return {**splits, "train": train, "validation": validation}

    # Lightning's two steps.

    def prepare_data(self) -> None:
        """Read, encode and cache the data and what the embeddings need, on one process; instant if it is cached."""
        pool = self._foreign
        if not is_whole(self._folder):
            more = pool.texts if pool is not None and pool.known else None
            build_aside(self._folder, partial(prepare, self.describe(), self.recipe, more=more))
        self._open()
        logger.info(data_line(self.manifest))
        if self.makes_word_vectors:
            if pool is not None and not is_whole(folder := pool.folder(self._folder)):
                build_aside(folder, partial(pool.prepare, self._ready()))
            if self.recipe.unknown != "keep":  # an encoder that reads letters takes no vectors
                self._word_vectors()

    def setup(self, stage: str | None = None) -> None:
        """Map the prepared data into memory."""
        if self._prepared is None:  # Lightning calls this for every stage, and after `prepare_data`
            self._open()
        if self.makes_word_vectors and self.unlabeled is not None and "unlabeled" not in self.manifest:
            self._open_pool()

    @cached_property
    def found(self) -> Source:
        """The source, looked for once."""
        return self.source()

    def describe(self) -> Description:
        """All that the data set says of itself, as `prepare` takes it."""
        return Description(
            self.corpus,
            type(self).__name__,
            self.found,
            self.columns(),
            self.declared_labels(),
            self.kept_classes(),
            getattr(self, "protocol", None),
            self.notes(),
            self.arrange,
        )

    @cached_property
    def _foreign(self) -> ForeignPool | None:
        """The pool of another data set; None where it is this one's own, or where there is none."""
        if (other := self.unlabeled) is None or isinstance(other, str):
            return None
        other.root = other.root or self.root  # beside the task's data, unless it has a place of its own
        known = self.vocabulary_of == "train_and_pool" or self.recipe.unknown == "keep"  # letters tell any word
        return ForeignPool.of(other, self.columns(), known)

    @cached_property
    def _folder(self) -> Path:
        key = self.describe().key(self.recipe)
        return self.cache / f"{self.corpus}-{(self._foreign.task_key(key) if self._foreign else key)[:20]}"

    def _open(self) -> None:
        self._prepared, self._vectors = PreparedTexts(self._folder), None
        labels = to_numpy(self.rows("train").data.column("label"))
        self.labeled_rows = self.shown_labels.choose(labels)
        if len(self.labeled_rows) < len(labels):
            self.manifest["labeled"] = self.shown_labels.describe(self.labeled_rows, labels, self.label_names)

    def _open_pool(self) -> None:
        self._pool, content = self.rows("train"), {"name": "train", "rows": len(self.rows("train"))}
        if self._foreign is not None:
            self._pool, content = self._foreign.open(self._folder)
        self.manifest["unlabeled"] = content | {"batch_size": self.unlabeled_batch_size, "epoch_of": self.epoch_of}
        logger.info(pool_line(self.corpus, len(self.labeled_rows), content))

    def _ready(self) -> PreparedTexts:
        if self._prepared is None:
            raise ConfigurationError(
                "Expected prepared data, but got a data module before `setup`; call `prepare_data()` and `setup()`."
            )
        return self._prepared

    def _word_vectors(self) -> Tensor:
        if self._vectors is None:
            seed = int(os.environ.get("PL_GLOBAL_SEED") or 0)
            pool = self._foreign
            more = [pool.open(self._folder)[0]] if pool is not None and pool.known else []
            self._vectors = self._ready().word_vectors(self.embeddings, self.cache / "embeddings", seed, more)
        return self._vectors

    # What the others read after setup.

    @property
    def spec(self) -> DataSpec:
        """What a backbone must know; word vectors only if `makes_word_vectors`."""
        by_letters = self.recipe.unknown == "keep"
        weights = self._word_vectors() if self.makes_word_vectors and not by_letters else None
        return DataSpec(
            num_classes=len(self.label_names),
            vocabulary_size=len(self.tokenizer),
            embedding_size=self.embeddings.dimension,
            label_names=self.label_names,
            embedding_weights=weights,
            num_default_tokens=self.recipe.default_tokens,
            vocabulary=tuple(self.tokenizer.vocabulary) if by_letters else (),
            has_question=self.has_question,
            has_candidates=bool(self.tokenizer.options.candidates),
        )

    @property
    def has_question(self) -> bool:
        """Whether the data is pairs of texts."""
        return "question_ids" in self.rows("train").column_names

    @property
    def digest(self) -> str:
        """A name that no other texts or other preparation of these have."""
        return self._folder.name

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name per class."""
        return tuple(self.manifest["label_names"])

    @property
    def manifest(self) -> dict[str, Any]:
        """Where the data came from and what was made of it; JSON."""
        return self._ready().manifest

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer that encoded the data."""
        return self._ready().tokenizer

    def dataset(self, split: str) -> ArrowDataset:
        """The encoded split, memory-mapped: `text`, `label`, `ids`, `starts`, `ends` and annotations."""
        return self._ready().split(split)

    def rows(self, split: str) -> MappedRows:
        """The same as a table alone, which takes no import of `datasets`."""
        return self._ready().rows(split)

    def annotations(self, split: str) -> frozenset[str]:
        """Which marks of words the batches of a split carry: `rationale`, `shortcut`."""
        return frozenset(ANNOTATIONS) & frozenset(self.rows(split).column_names)

    def examples(self, split: str) -> EncodedTexts:
        """A split in random access, for evaluation; of train all rows with their labels."""
        return EncodedTexts(self.rows(split))

    def texts(self, split: str) -> list[str]:
        """All texts of a split in the order of their rows; reads them into memory."""
        return cast("list[str]", self.rows(split).data.column("text").to_pylist())

    def questions(self, split: str, rows: Sequence[int] | None = None) -> list[str] | None:
        """The second texts of a split, of all rows in their order or of some; None where there are none."""
        if not self.has_question:
            return None
        column = self.rows(split).data.column("question")
        found: list[str] = (column if rows is None else column.take(pa.array(rows))).to_pylist()
        return found

    def whole_texts(self, split: str, rows: Rows | None = None) -> list[str]:
        """Both texts of every row, one after the other: what a model without attention reads."""
        chosen = self.dataset(split) if rows is None else self.dataset(split).select(rows)
        texts: list[str] = chosen["text"][:]
        return [f"{a} {b}" for a, b in zip(texts, chosen["question"][:], strict=True)] if self.has_question else texts

    def text(self, split: str, row: int) -> str:
        """The original text of a row."""
        return str(self.rows(split).data.column("text")[int(row)].as_py())

    def words(self, split: str) -> list[list[str]] | None:
        """The words of every text of a split as the source gave them; None where it gave raw text."""
        return self._ready().words(split)

    def offsets(self, split: str, row: int) -> list[tuple[int, int]]:
        """Start and end of every token of a row in its text, in characters."""
        table = self.rows(split).data
        starts, ends = (table.column(name)[int(row)].as_py() for name in ("starts", "ends"))
        return list(zip(starts, ends, strict=True))

    def training_examples(self) -> tuple[list[str], list[int]]:
        """The training texts (both of a pair) whose labels are shown, and these labels; reads them into memory."""
        rows = self.dataset("train").select(self.labeled_rows)
        return self.whole_texts("train", self.labeled_rows), rows["label"][:]

    def train_dataloader(self) -> DataLoader[Batch] | CombinedLoader:
        """Batches of similar length in an order that changes every epoch; pairs of them with an unlabelled pool."""
        options: dict[str, Any] = {"shuffle": True, "token_budget": self.token_budget or TRAINING_TOKENS}
        labeled = self._loader_of(LabeledTexts(self.rows("train"), self.labeled_rows), self.batch_size, **options)
        if self.unlabeled is None:
            return labeled
        # Another seed, or both would deal out the same rows where all labels are shown.
        pool = self._loader_of(UnlabeledTexts(self._pool), self.unlabeled_batch_size, seed=1, **options)
        mode = "max_size_cycle" if self.epoch_of == "longer" else "min_size"
        return CombinedLoader({"labeled": labeled, "unlabeled": pool}, mode)  # type: ignore[arg-type]

    def _loader(self, split: str, batch_size: int) -> DataLoader[Batch]:
        return self._loader_of(self.examples(split), batch_size, token_budget=self.token_budget or EVALUATION_TOKENS)

    def _loader_of(self, data: EncodedTexts, batch_size: int, seed: int = 0, **options: Any) -> DataLoader[Batch]:
        return batch_loader(data, batch_size, trainer=self.trainer, num_workers=self.num_workers, seed=seed, **options)
