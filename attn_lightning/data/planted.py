"""Planted evidence as a data module: generated texts in which the words that decide the label are known."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings import Embeddings
from attn_lightning.data.formats import Row
from attn_lightning.data.planted_documents import (
    EvidencePosition,
    PlantedDocument,
    PlantedOptions,
    ShortcutPosition,
    generate,
)
from attn_lightning.data.records import Columns
from attn_lightning.data.sources import GENERATED, SPLITS, Source, Split, SplitName
from attn_lightning.data.text import Unknown
from attn_lightning.data.unlabeled import EpochOf, VocabularyOf

_VERSION = 1
"""Raised whenever the same options would give other documents: prepared copies are then made again."""


class Planted(TextDataModule):
    """Documents with planted evidence, made on the spot: no download, no files, exact rationales.

    The default is learned by a BiLSTM with attention in three epochs (accuracy above .9), while logistic regression
    on TF-IDF word counts stays at chance. The rationale is the evidence phrase: a marker, a negation in some
    documents, and the evidence word; the module's docstring shows one.

    Args:
        train_documents: documents of the training split, at least `num_classes`.
        validation_documents: documents of the validation split.
        test_documents: documents of the test split.
        num_classes: C, 2 to 100. Documents are shared equally among the classes.
        min_length: shortest document in tokens, evidence included; lengths are uniform between the two.
        max_length: longest document in tokens.
        vocabulary: number of background words, 10 to 2,000, Zipf distributed.
        evidence_words: words per class that can stand in the evidence phrase, 1 to 12.
        evidence_position: where the phrase stands among the background words: anywhere (`uniform`), within their
            first third (`early`) or their last third (`late`).
        negation: probability in [0, 1] that the evidence is negated, which moves the label to the next class.
        num_distractors: evidence words of other classes without the marker, 0 to C - 1; None plants C - 1, at which
            a bag of words is at chance.
        label_noise: probability in [0, 1) that a training label is replaced by another; the rationale still marks
            the evidence of the true one, and validation and test labels stay clean.
        shortcut: strength in [0, 1] of a shortcut word in training and validation: it is that of the label with
            probability s + (1 - s) / C. None plants none.
        shortcut_test: the strength in the test split.
        shortcut_position: `first` token, `last` token, or anywhere outside the phrases (`uniform`).
        seed: documents change with it, the words of the language do not; independent of the seed of the training.
        cache: folder of the prepared data; None takes ATTN_LIGHTNING_CACHE, else the user's cache folder.
        batch_size: examples of a training batch, per process.
        eval_batch_size: examples of a validation, test or prediction batch, per process.
        embeddings: the initial word vectors; None draws 300 random numbers per word.
        token_budget: the most tokens of a batch, padding included; None: 131,072 in training and 300,000 elsewhere.
        num_workers: processes that make batches.
        labeled_fraction: share of the training labels of every class that is shown, above 0 and at most 1; None: all.
        labels_per_class: shown training labels of every class, instead of a fraction; None shows all.
        label_seed: which labels are shown; independent of the seed of the training.
        unlabeled: where texts without labels come from: `train`, all training texts of this data with their labels
            hidden, or another data set as `--data.unlabeled IMDB`: the training texts of its source, of which
            `max_examples` takes some from all over the file, encoded as this data is and cut off by the `max_length` of
            either; how else it would prepare them means nothing here. None: no pool.
        vocabulary_of: see `TextDataModule`.
        unlabeled_batch_size: texts of an unlabelled batch, per process; None takes `batch_size`.
        epoch_of: an epoch is one pass over the `longer` of labelled and unlabelled batches, while the other starts
            again as often as needed, or over the `shorter`, which leaves a part of the other out, a new one each time.
        default_tokens: the number of tokens without content that are put before every text, the same for all texts
            and on top of `max_length`; for the backbone `DefaultTokens`. 0 for none.
        unknown: see `TextDataModule`.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    corpus: ClassVar[str] = "planted"

    def __init__(
        self,
        train_documents: int = 2000,
        validation_documents: int = 500,
        test_documents: int = 500,
        num_classes: int = 2,
        min_length: int = 12,
        max_length: int = 40,
        vocabulary: int = 400,
        evidence_words: int = 4,
        evidence_position: EvidencePosition = "uniform",
        negation: float = 0.3,
        num_distractors: int | None = None,
        label_noise: float = 0.0,
        shortcut: float | None = None,
        shortcut_test: float = 0.0,
        shortcut_position: ShortcutPosition = "first",
        seed: int = 0,
        cache: Path | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 128,
        embeddings: Embeddings | None = None,
        token_budget: int | None = None,
        num_workers: int = 0,
        labeled_fraction: float | None = None,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        unlabeled: Literal["train"] | TextDataModule | None = None,
        vocabulary_of: VocabularyOf = "train",
        unlabeled_batch_size: int | None = None,
        epoch_of: EpochOf = "longer",
        default_tokens: int = 0,
        unknown: Unknown = "token",
    ) -> None:
        # What is an option of the generator, and what is passed on, follows from the two signatures.
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.options = PlantedOptions(**{field.name: given.pop(field.name) for field in fields(PlantedOptions)})
        super().__init__(**given)

    def source(self) -> Source:
        """The three splits, generated when they are read; the revision stands for the options and the generator."""
        content = json.dumps([_VERSION, asdict(self.options)], sort_keys=True)
        splits: dict[str, Split] = {
            split: Split(f"planted {split}", "document", partial(_rows, split, self.options)) for split in SPLITS
        }
        return Source(GENERATED, "planted", hashlib.sha256(content.encode()).hexdigest(), splits)

    def columns(self) -> Columns:
        """Words, label and the masks; the shortcut's only where one is planted."""
        shortcut = () if self.options.shortcut is None else (("shortcut", "shortcut_marks"),)
        return Columns(tokens="tokens", annotations=(("rationale", "rationale"), *shortcut))

    def declared_labels(self) -> tuple[str, ...]:
        """The invented names of the classes."""
        return self.options.label_names


def _rows(split: SplitName, options: PlantedOptions) -> Iterator[tuple[int, Row]]:
    return enumerate((_row(document) for document in generate(split, options)), start=1)


def _row(document: PlantedDocument) -> Row:
    """The document as a source gives it, with the class + 1 at the shortcut word and 0 at all others."""
    mark = 0 if document.shortcut_class is None else document.shortcut_class + 1
    return {**document._asdict(), "shortcut_marks": [mark * is_shortcut for is_shortcut in document.shortcut]}
