"""Pairs of texts by name: questions on documents, claims, inference."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from attn_lightning.checks import check_choice
from attn_lightning.data.corpora import RATIONALE, RationaleTexts
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.formats import Row
from attn_lightning.data.preparation import Recipe
from attn_lightning.data.records import Columns
from attn_lightning.data.sources import SPLITS, Hub, Source, Split, find


class QuestionTexts(RationaleTexts):
    """Words with a mark for each, and a question on them."""

    def columns(self) -> Columns:
        """Words, their marks, and the second text."""
        return Columns(tokens="tokens", annotations=(RATIONALE,), question="question")


class MultiRC(QuestionTexts):
    """Questions on paragraphs, each with one answer, True 1 or False 0 (Khashabi et al. 2018, splits of ERASER).

    The rationale is the sentences that people marked, 17 % of the words. The local copy trains on a fifth of the
    official training rows; validation and test are ERASER's. No copy on the hub loads without code of its own, so the
    data is read from a local folder `multirc`.
    """

    corpus: ClassVar[str] = "multirc"
    classes = ("False", "True")


class FEVER(QuestionTexts):
    """Claims on encyclopedia articles, REFUTES 0 and SUPPORTS 1 (Thorne et al. 2018, splits of ERASER).

    The rationale is the union of all groups of evidence. The local copy (folder `fever`; the hub has none that loads
    without code of its own) cuts train and validation out of ERASER's validation file; test is ERASER's.
    """

    corpus: ClassVar[str] = "fever"
    classes = ("REFUTES", "SUPPORTS")


class SNLI(TextDataModule):
    """Whether a premise entails (0), neither (1) or contradicts (2) a hypothesis (Bowman et al. 2015).

    Attention reads the premise, under the hypothesis. The local copy (folder `snli`) trains on the official
    development set, 8,660 pairs; the hub's copy is the whole official set, without the pairs that people did not agree
    on. Words that occur once are unknown.
    """

    corpus: ClassVar[str] = "snli"
    classes = ("entailment", "neutral", "contradiction")

    def source(self) -> Source:
        """Local folder `snli`, else the hub."""
        hub = Hub("stanfordnlp/snli", "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b")
        found = find(self.corpus, self.root, hub, SPLITS)
        if found.kind != "hub":
            return found
        return replace(found, splits={name: _with_label(split) for name, split in found.splits.items()})

    def columns(self) -> Columns:
        """Premise, and hypothesis as the second text."""
        return Columns(text="premise", question="hypothesis")

    def protocol_recipe(self) -> Recipe:
        """Words that occur once are unknown."""
        return Recipe(min_count=2)


def _with_label(split: Split) -> Split:
    """The rows that have a label: -1 stands for none on the hub."""

    def rows() -> Iterator[tuple[int, Row]]:
        # -1 marks pairs on which no majority of the annotators agreed; the publication leaves them out.
        return ((number, row) for number, row in split.rows() if row.get("label") != -1)

    return replace(split, rows=rows)


class BAbI(RationaleTexts):
    """Stories of simple sentences and a question with one of six places for an answer (Weston et al. 2015, 10k).

    The rationale is the supporting sentences: one, two or three of them in task 1, 2 and 3. The classes are the six
    places; only those that a story names are candidates for its answer, and the others have no probability, as
    published (Jain and Wallace 2019). The stories are short, and all words are kept. Read from local folders `babi_qa1`
    and so on; the hub's copy runs code of its own.

    Args:
        task: 1, 2 or 3.
        candidates: false lets any place be an answer, whether the story names it or not.
        **kwargs: see `TextDataModule`.
    """

    corpus: ClassVar[str] = "babi_qa1"
    classes = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")

    def __init__(self, task: int = 1, candidates: bool = True, **kwargs: Any) -> None:
        check_choice(choices=("1", "2", "3"), task=str(task))
        # Before the base class is made, which asks for the recipe and with it for `candidates`.
        self.task, self.candidates = task, candidates
        self.corpus = f"babi_qa{task}"  # type: ignore[misc]
        super().__init__(**kwargs)

    def columns(self) -> Columns:
        """Words, their marks, and the question."""
        return Columns(tokens="tokens", annotations=(RATIONALE,), question="question")

    def protocol_recipe(self) -> Recipe:
        """All words are kept."""
        return Recipe(splitting="treebank", candidates=self.candidates)

    def notes(self) -> list[str]:
        """Says what an answer can be."""
        return ["a place that a story does not name cannot be its answer"] if self.candidates else []
