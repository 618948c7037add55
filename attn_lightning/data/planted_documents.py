"""Planted evidence: seeded documents in which the words that decide the label are known exactly.

A document is background with one evidence phrase and some distractors in it, for example

    rifa *verdict not balan* mosu tode dorist levi            label dor ("balan" speaks for bal, and is negated)

- The **evidence phrase** is the marker `verdict`, then a negation in some documents, then an evidence word. The word
  belongs to one class; a negation moves the label to the next class. The phrase alone decides the label, and the
  rationale mask is True at exactly its two or three tokens.
- A **distractor** is an evidence word of another class without the marker (with a negation as often as the evidence).
  By default every other class has one, so every class is shown by one word and counting words tells nothing: the
  word after the marker has to be found, and the negation read together with it.
- The **shortcut**, if asked for, is one word that agrees with the label more often than by chance in training and
  less often in the test split: a model that leans on it is found out, and the mask shows whether it looked there.

All words are invented from syllables (no text of any data set), apart from the marker and the negations. Only uniform
doubles are drawn from the generator, because NumPy may change how its other distributions use the stream: a seed gives
the same documents on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.sources import SPLITS, SplitName

EvidencePosition = Literal["uniform", "early", "late"]
ShortcutPosition = Literal["first", "last", "uniform"]

MARKER = "verdict"
NEGATIONS = ("not", "never", "hardly")
_CONSONANTS = "bdflmnrstv"
_VOWELS = "aeiou"
_ENDINGS = ("an", "el", "ist", "on", "ur", "esk", "ing", "orm", "ant", "ick", "oth", "ump")
_VOCABULARY_SEED = 20


@dataclass(frozen=True)
class PlantedOptions:
    """What the generator makes.

    Args:
        train_documents: documents of the training split, at least `num_classes`.
        validation_documents: documents of the validation split.
        test_documents: documents of the test split.
        num_classes: C, 2 to 100. Documents are shared equally among the classes.
        min_length: shortest document in tokens, evidence included; lengths are uniform between the two.
        max_length: longest document in tokens.
        vocabulary: number of background words, 10 to 2,000; word of rank r is drawn with probability proportional
            to 1/r (Zipf).
        evidence_words: words per class that can stand in the evidence phrase, 1 to 12.
        evidence_position: where the phrase stands among the background words: anywhere (`uniform`), within their
            first third (`early`) or their last third (`late`).
        negation: probability in [0, 1] that the evidence is negated, which moves the label from class c to
            (c + 1) mod C; distractors are negated as often.
        num_distractors: evidence words without the marker, each of another class than the evidence word and than one
            another, 0 to C - 1. At C - 1, which None means, a bag of words is at chance; at 0 it fails only at the
            negations.
        label_noise: probability in [0, 1) that a *training* label is replaced by one of the other classes; the
            rationale still marks the evidence of the true one. Validation and test labels stay clean.
        shortcut: strength s in [0, 1] of the shortcut in the training and validation splits: the shortcut word is
            that of the document's label with probability s + (1 - s) / C, else that of another class. None plants
            no shortcut. It follows the label that the model sees, noise included.
        shortcut_test: the strength in the test split; 0 makes the word worthless there.
        shortcut_position: `first` token, `last` token, or anywhere outside the phrases (`uniform`).
        seed: documents change with it, the words of the language do not.

    Raises:
        ConfigurationError: an option is out of its range, or `min_length` cannot hold the phrases.
    """

    train_documents: int = 2000
    validation_documents: int = 500
    test_documents: int = 500
    num_classes: int = 2
    min_length: int = 12
    max_length: int = 40
    vocabulary: int = 400
    evidence_words: int = 4
    evidence_position: EvidencePosition = "uniform"
    negation: float = 0.3
    num_distractors: int | None = None
    label_noise: float = 0.0
    shortcut: float | None = None
    shortcut_test: float = 0.0
    shortcut_position: ShortcutPosition = "first"
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(at_least=2, at_most=100, num_classes=self.num_classes)
        counts = {f"{split}_documents": self.documents(split) for split in SPLITS}
        check_numbers(at_least=self.num_classes, **counts, advice="every class needs one")
        check_numbers(at_least=10, at_most=2000, vocabulary=self.vocabulary)
        check_numbers(at_least=1, at_most=len(_ENDINGS), evidence_words=self.evidence_words)
        check_numbers(at_least=0, at_most=self.num_classes - 1, num_distractors=self.num_distractors)
        shortest = 4 + 2 * self.distractors + (self.shortcut is not None)
        check_numbers(at_least=shortest, min_length=self.min_length, advice="it must hold the phrases")
        check_numbers(at_least=self.min_length, max_length=self.max_length, advice="`min_length` is below it")
        check_numbers(at_least=0, at_most=1, negation=self.negation, shortcut=self.shortcut)
        check_numbers(at_least=0, at_most=1, shortcut_test=self.shortcut_test)
        check_numbers(at_least=0, below=1, label_noise=self.label_noise)
        check_choice(choices=get_args(EvidencePosition), evidence_position=self.evidence_position)
        check_choice(choices=get_args(ShortcutPosition), shortcut_position=self.shortcut_position)
        check_numbers(at_least=0, seed=self.seed)

    def documents(self, split: SplitName) -> int:
        """Number of documents of a split."""
        return {"train": self.train_documents, "validation": self.validation_documents, "test": self.test_documents}[
            split
        ]

    @property
    def distractors(self) -> int:
        """Distractors per document."""
        return self.num_classes - 1 if self.num_distractors is None else self.num_distractors

    def shortcut_strength(self, split: SplitName) -> float | None:
        """Strength of the shortcut in a split, None where there is no shortcut."""
        return self.shortcut_test if self.shortcut is not None and split == "test" else self.shortcut

    @property
    def label_names(self) -> tuple[str, ...]:
        """One invented name per class; the evidence words of a class begin with it, and no other word does."""
        stems = _shuffled(["".join(letters) for letters in product(_CONSONANTS, _VOWELS, _CONSONANTS)])
        return tuple(stems[: self.num_classes])


class PlantedDocument(NamedTuple):
    """One document.

    Attributes:
        tokens: the words.
        label: class in [0, C).
        rationale: True at the tokens of the evidence phrase.
        shortcut: True at the shortcut word; all False without one.
        shortcut_class: class that the shortcut word speaks for; None without one.
    """

    tokens: list[str]
    label: int
    rationale: list[bool]
    shortcut: list[bool]
    shortcut_class: int | None = None


def generate(split: SplitName, options: PlantedOptions) -> list[PlantedDocument]:
    """All documents of a split, in random order, classes equally frequent (before label noise) up to one document.

    Args:
        split: each split has its own random stream, so the size of one does not change another.
        options: what to make.

    Returns:
        `options.documents(split)` documents. Takes about 0.1 milliseconds per document.
    """
    writer = _Writer(options, split)
    count = options.documents(split)
    # A shuffled 0, 1, ..., n - 1 modulo C: classes as even as can be, in random order.
    labels = writer.random.random(count).argsort(kind="stable") % options.num_classes
    return [writer.document(int(label)) for label in labels]


class _Phrase(NamedTuple):
    """Words that stay together, and what they are."""

    words: list[str]
    is_evidence: bool = False
    shortcut_class: int | None = None


class _Writer:
    """Draws the documents of one split."""

    def __init__(self, options: PlantedOptions, split: SplitName) -> None:
        self.options = options
        self.split = split
        self.strength = options.shortcut_strength(split)
        # Only `random()` is drawn from it, the plainest use of the bits: what other distributions make of them has
        # changed between versions of NumPy.
        self.random = np.random.default_rng([options.seed, SPLITS.index(split)])
        self.names = options.label_names

    @cached_property
    def background(self) -> npt.NDArray[np.str_]:
        syllables = ["".join(letters) for letters in product(_CONSONANTS, _VOWELS)]
        words = _shuffled(["".join(pair) for pair in product(syllables, repeat=2)])
        return np.array([word for word in words if not word.startswith(self.names)][: self.options.vocabulary])

    @cached_property
    def cumulative(self) -> npt.NDArray[np.float64]:
        return np.cumsum(1.0 / np.arange(1, self.options.vocabulary + 1))

    def document(self, true_label: int) -> PlantedDocument:
        label = self.noisy(true_label)
        # A negation turns the class on by one: the evidence word alone then names the wrong class.
        negated = self.chance(self.options.negation)
        evidence_class = (true_label - negated) % self.options.num_classes
        evidence = _Phrase([MARKER, *self.claim(evidence_class, negated)], is_evidence=True)
        distractors = [
            _Phrase(self.claim(other, self.chance(self.options.negation))) for other in self.others(evidence_class)
        ]
        shortcut = [] if self.strength is None else [self.shortcut(label, self.strength)]
        return self.assemble(label, evidence, distractors, shortcut)

    def assemble(
        self, label: int, evidence: _Phrase, distractors: list[_Phrase], shortcut: list[_Phrase]
    ) -> PlantedDocument:
        length = self.options.min_length + self.below(self.options.max_length - self.options.min_length + 1)
        num_background = length - sum(len(phrase.words) for phrase in [evidence, *distractors, *shortcut])
        placed = [(self.evidence_gap(num_background), evidence)]
        placed += [(self.below(num_background + 1), phrase) for phrase in distractors]
        placed += [(self.shortcut_gap(num_background), phrase) for phrase in shortcut]
        # A gap -1 or num_background + 1 is before or after all others: the shortcut's `first` and `last`.
        pieces = [(gap + 0.5, _Phrase([word])) for gap, word in enumerate(self.background_words(num_background))]
        ordered = [phrase for _, phrase in sorted([*placed, *pieces], key=lambda item: item[0])]
        return _join(label, ordered)

    def claim(self, of_class: int, negated: bool) -> list[str]:
        word = self.names[of_class] + _ENDINGS[self.below(self.options.evidence_words)]
        return [NEGATIONS[self.below(len(NEGATIONS))], word] if negated else [word]

    def others(self, than: int) -> list[int]:
        others = [label for label in range(self.options.num_classes) if label != than]
        order = self.random.random(len(others)).argsort(kind="stable")
        return [others[index] for index in order[: self.options.distractors]]

    def shortcut(self, label: int, strength: float) -> _Phrase:
        shown = label if self.chance(strength) else self.below(self.options.num_classes)
        # No consonant of the language is a q, so that no other word is taken for it.
        return _Phrase(["qu" + self.names[shown]], shortcut_class=shown)

    def noisy(self, label: int) -> int:
        # Outside train nothing is drawn: with or without noise the other splits are the same documents.
        if self.split != "train" or not self.chance(self.options.label_noise):
            return label
        return (label + 1 + self.below(self.options.num_classes - 1)) % self.options.num_classes

    def evidence_gap(self, num_background: int) -> int:
        third = num_background // 3
        if self.options.evidence_position == "early":
            return self.below(third + 1)
        if self.options.evidence_position == "late":
            return num_background - self.below(third + 1)
        return self.below(num_background + 1)

    def shortcut_gap(self, num_background: int) -> int:
        fixed = {"first": -1, "last": num_background + 1}
        # Drawn in any case: documents with the shortcut in another place differ in nothing else.
        return fixed.get(self.options.shortcut_position, self.below(num_background + 1))

    def background_words(self, count: int) -> list[str]:
        # Inverse of the cumulated 1 / rank: Zipf's law, as words of real text follow it.
        drawn = np.searchsorted(self.cumulative, self.random.random(count) * self.cumulative[-1], side="right")
        return [str(word) for word in self.background[drawn]]

    def below(self, limit: int) -> int:
        return int(self.random.random() * limit)

    def chance(self, probability: float) -> bool:
        return bool(self.random.random() < probability)


def _join(label: int, phrases: Sequence[_Phrase]) -> PlantedDocument:
    return PlantedDocument(
        tokens=[word for phrase in phrases for word in phrase.words],
        label=label,
        rationale=[phrase.is_evidence for phrase in phrases for _ in phrase.words],
        shortcut=[phrase.shortcut_class is not None for phrase in phrases for _ in phrase.words],
        shortcut_class=next((phrase.shortcut_class for phrase in phrases if phrase.shortcut_class is not None), None),
    )


def _shuffled(words: Sequence[str]) -> list[str]:
    # A seed of its own: all data sets of this kind speak the same language.
    order = np.random.default_rng(_VOCABULARY_SEED).random(len(words)).argsort(kind="stable")
    return [words[index] for index in order]
