"""The data sets by name: where each one is, which classes it has and what its protocols do."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.cutting import cut
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.formats import FileOptions
from attn_lightning.data.preparation import Recipe, Splits
from attn_lightning.data.records import Columns
from attn_lightning.data.sources import (
    SPLITS,
    Hub,
    Source,
    find,
    first_row,
    from_files,
)
from attn_lightning.errors import ConfigurationError

Protocol = Literal["official", "jain_wallace"]
RATIONALE = ("rationale", "rationale")


class ProtocolTexts(TextDataModule, ABC):
    """Data with an official split and the published protocol of Jain & Wallace (2019).

    Args:
        protocol: `official` or `jain_wallace`.
        **kwargs: see `TextDataModule`.
    """

    def __init__(self, protocol: Protocol = "official", **kwargs: Any) -> None:
        # Before the base class is made, which asks for the recipe of this protocol.
        check_choice(choices=get_args(Protocol), protocol=protocol)
        self.protocol = protocol
        super().__init__(**kwargs)

    @abstractmethod
    def source(self) -> Source:
        """Where the rows come from."""


class SST(ProtocolTexts):
    """Stanford Sentiment Treebank, whole sentences, negative 0 and positive 1, neutral ones dropped.

    `official`: 6,920 / 872 / 1,821 sentences, words as the treebank cut them. `jain_wallace` (Jain & Wallace 2019):
    runs of letters and digits only, numbers merged, sentences of at most 5 words and the longest of every split left
    out, which leaves 6,355 / 821 / 1,725.
    """

    corpus: ClassVar[str] = "sst2"
    classes = ("negative", "positive")

    def source(self) -> Source:
        """Local folder `sst2`, else the hub."""
        return find(self.corpus, self.root, Hub("SetFit/sst2", "00ea8ccb7a54b4e3780a3e51aa3f80361ff849c0"), SPLITS)

    def columns(self) -> Columns:
        """The treebank's words are joined by spaces."""
        # From the raw text: the treebank's words keep what the protocol drops, and no mark would fit the new ones.
        if self.protocol == "jain_wallace":
            return Columns()
        return Columns(split_at_spaces=True, annotations=(("token_sentiment", "token_sentiment"),))

    def protocol_recipe(self) -> Recipe:
        """See the class."""
        if self.protocol == "jain_wallace":
            return Recipe(min_length=6, drop_longest=True, digits="merge", splitting="alphanumeric")
        return Recipe(splitting="treebank")


class IMDB(ProtocolTexts):
    """IMDB movie reviews (Maas et al. 2011), negative 0 and positive 1; validation is 20 % of train.

    `official`: 20,000 / 5,000 / 25,000 reviews, cut off after 400 words. `jain_wallace`: reviews of 7 to 399 words
    (longer ones are left out), punctuation dropped. Words with fewer than 10 occurrences are unknown in both. 123 texts
    stand in both official splits; `overlap` in the manifest counts those that the training part still holds.
    """

    corpus: ClassVar[str] = "imdb"
    classes = ("negative", "positive")

    def source(self) -> Source:
        """Local folder `imdb`, else the hub."""
        hub = Hub("stanfordnlp/imdb", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31")
        return find(self.corpus, self.root, hub, ("train", "test"))

    def protocol_recipe(self) -> Recipe:
        """See the class."""
        # This seed and those of the other two corpora are the published preprocessing's.
        shared = Recipe(min_count=10, validation_fraction=0.2, split_seed=1378)
        if self.protocol == "jain_wallace":
            return shared.replace(min_length=7, length_limit=400, splitting="alphanumeric")
        return shared.replace(max_length=400)


class News(ProtocolTexts):
    """Two of the 20 newsgroups, rec.sport.baseball 0 and rec.sport.hockey 1, without headers, footers and quotes.

    `official`: split by date, 20 % of train for validation, cut off after 500 words. `jain_wallace`: all posts pooled
    and split 64 / 16 / 20, posts of 7 to 499 words, numbers merged. Words that occur once are unknown in both.
    """

    corpus: ClassVar[str] = "20news_sports"

    def source(self) -> Source:
        """Local folder `20news_sports`, else all groups from the hub."""
        hub = Hub("SetFit/20_newsgroups", "f1b91292074e7cfb69be58b642d583ec262f30ed")
        return find(self.corpus, self.root, hub, ("train", "test"))

    def columns(self) -> Columns:
        """The hub has all 20 groups, by number and by name."""
        # By name there, since numbers of twenty groups are not those of two.
        return Columns(label="label_text") if self.found.kind == "hub" else Columns()

    def declared_labels(self) -> tuple[str, ...] | None:
        """Baseball and hockey; all groups on the hub."""
        return None if self.found.kind == "hub" else self.kept_classes()

    def kept_classes(self) -> tuple[str, ...]:
        """Baseball and hockey."""
        return ("rec.sport.baseball", "rec.sport.hockey")

    def protocol_recipe(self) -> Recipe:
        """See the class."""
        shared = Recipe(min_count=2, validation_fraction=0.2, split_seed=13478)
        if self.protocol == "jain_wallace":
            return shared.replace(min_length=7, length_limit=500, digits="merge")
        return shared.replace(max_length=500)

    def arrange(self, splits: Splits) -> Splits:
        """Pool and split anew under `jain_wallace`: a fifth for test, then a fifth of the rest for validation."""
        if self.protocol == "jain_wallace":
            import datasets

            # The published code pools both files and cuts a test split of its own.
            pooled = datasets.concatenate_datasets([splits["train"], splits["test"]])
            train, test = cut(pooled, 0.2, self.recipe.split_seed)
            splits = {"train": train, "test": test}
        return super().arrange(splits)


class AG(ProtocolTexts):
    """AG's news, World 0 and Business 1 (classes 0 and 2 of four); validation is 15 % of train.

    `official`: title and description. `jain_wallace`: the description only, numbers merged; where the copy has no
    `description` column (the hub's has none) the whole text is used, and the manifest and the log say so. Words with
    fewer than 5 occurrences are unknown.

    Args:
        num_classes: 2, or 4 for all of them.
        **kwargs: see `ProtocolTexts`.
    """

    corpus: ClassVar[str] = "ag_news"
    classes = ("World", "Sports", "Business", "Sci/Tech")

    def __init__(self, num_classes: Literal[2, 4] = 2, **kwargs: Any) -> None:
        if num_classes not in (2, 4):
            raise ConfigurationError(f"Expected `num_classes` to be 2 or 4, but got {num_classes}; choose one.")
        self.num_classes = num_classes
        super().__init__(**kwargs)

    def source(self) -> Source:
        """Local folder `ag_news`, else the hub."""
        hub = Hub("fancyzhx/ag_news", "eb185aade064a813bc0b7f42de02595523103ca4")
        return find(self.corpus, self.root, hub, ("train", "test"))

    @cached_property
    def _has_descriptions(self) -> bool:
        if self.found.kind == "hub":
            return False
        # In all splits or none: a text with its title in train and without in test would be two tasks.
        return all("description" in first_row(split) for split in self.found.splits.values())

    def columns(self) -> Columns:
        """See the class."""
        return Columns("description" if self.protocol == "jain_wallace" and self._has_descriptions else "text")

    def notes(self) -> list[str]:
        """Says so where the protocol's column is missing."""
        if self.protocol == "official" or self._has_descriptions:
            return []
        return ["The protocol reads the description only; this copy has none in some split, so the whole text is used."]

    def kept_classes(self) -> tuple[str, ...]:
        """World and business, or all."""
        return ("World", "Business") if self.num_classes == 2 else self.classes

    def protocol_recipe(self) -> Recipe:
        """See the class."""
        return Recipe(
            min_count=5,
            validation_fraction=0.15,
            split_seed=16377,
            digits="merge" if self.protocol == "jain_wallace" else "keep",
        )


class MR(TextDataModule):
    """Sentences of movie reviews (Pang & Lee 2005), negative 0 and positive 1, in a local folder."""

    corpus: ClassVar[str] = "mr"
    classes = ("negative", "positive")

    def source(self) -> Source:
        """The local folder: the splits are not official, so no copy of the hub is the same data."""
        return find(self.corpus, self.root, None, SPLITS)

    def columns(self) -> Columns:
        """Words joined by spaces, as the corpus cut them."""
        return Columns(split_at_spaces=True)

    def protocol_recipe(self) -> Recipe:
        """New texts are cut as the treebank's."""
        return Recipe(splitting="treebank")


class Subj(MR):
    """Sentences of reviews and of plots (Pang & Lee 2004), subjective 0 and objective 1, in a local folder."""

    corpus: ClassVar[str] = "subj"
    classes = ("subjective", "objective")


class RationaleTexts(TextDataModule, ABC):
    """Words and a mark for each, in a local folder; words that occur once are unknown."""

    def source(self) -> Source:
        """The local folder."""
        return find(self.corpus, self.root, None, SPLITS)

    def columns(self) -> Columns:
        """Words and a mark for each."""
        return Columns(tokens="tokens", annotations=(RATIONALE,))

    def protocol_recipe(self) -> Recipe:
        """Words that occur once are unknown."""
        return Recipe(min_count=2, splitting="treebank")


class Movies(RationaleTexts):
    """Movie reviews with rationales (Zaidan et al. 2007, splits of ERASER), negative 0 and positive 1.

    Train and validation rationales are not exhaustive (9 % and 7 % of the tokens), those of test are (31 %).
    """

    corpus: ClassVar[str] = "movies"
    classes = ("negative", "positive")


class HateXplain(RationaleTexts):
    """Posts with rationales (Mathew et al. 2021): hatespeech 0, normal 1, offensive 2. The content is offensive.

    Posts without a rationale have `Batch.has_rationale` False.
    """

    corpus: ClassVar[str] = "hatexplain"
    classes = ("hatespeech", "normal", "offensive")


class TextFiles(TextDataModule):
    """Your own files, one per split, by the end of their names; `.gz` after any but Parquet.

    - `.csv`, `.tsv`: fields between `,`, `;`, TAB or `|`; a column without a name is left out.
    - `.jsonl`, `.json`: an object per line, a list of objects, or the posts of HateXplain's `dataset.json`, whose
      columns are `tokens`, `label` (of most annotators) and `rationale` (the share of them that marked a word).
    - `.parquet`: classes that `datasets` numbered (`ClassLabel`) go by their names in each file.
    - `.txt`, `.label`, `.train`, `.valid`, `.test`: lines `LABEL text`, as TREC's and fastText's, in the columns
      `label` and `text`; with `columns` or `delimiter` a table as `.csv`.

    Args:
        train: training examples.
        validation: validation examples; None cuts `validation_fraction` off `train`, stratified.
        test: test examples; None if there are none, `test` and `predict` are refused then.
        text_column: name of the text column.
        label_column: name of the label column: class numbers or names.
        tokens_column: name of a column with the text cut into words (a list, or in CSV words with spaces between
            them); replaces `text_column`, and the words stay as they are.
        question_column: name of a column with a second text, which conditions where the model looks in the first one.
        pair: names of the columns of the first and of the second text, instead of `text_column` and `question_column`:
            `[premise, hypothesis]`.
        rationale_column: name of a column with a number from 0 to 1 for each of these words; empty (null) where there
            is none.
        rationale_threshold: a word belongs to the rationale if its number is this or more, above 0 and at most 1. With
            0.67 for two of three annotators the default keeps what most of them marked.
        label_names: the classes by number; None takes those that a Parquet file of `datasets` names, else those that
            occur in `train`, numbers by value and names in alphabetical order. Classes are matched by what they say (1,
            1.0 and "1" are one class), and a class that does not occur in `train` is refused.
        delimiter: between the fields of a line; None finds it.
        encoding: of text files, latin-1 for example; None reads UTF-8, or what the byte order mark says.
        columns: names of the columns of files without a header; None reads them from the first line.
        **kwargs: see `TextDataModule`.
    """

    corpus: ClassVar[str] = "files"

    def __init__(
        self,
        train: Path,
        validation: Path | None = None,
        test: Path | None = None,
        text_column: str = "text",
        label_column: str = "label",
        tokens_column: str | None = None,
        rationale_column: str | None = None,
        rationale_threshold: float = 0.5,
        label_names: list[str] | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        columns: list[str] | None = None,
        question_column: str | None = None,
        pair: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_numbers(above=0, at_most=1, rationale_threshold=rationale_threshold)
        if rationale_column and not tokens_column:
            raise ConfigurationError(
                "Expected `tokens_column` beside `rationale_column`, but got None; a rationale marks words, so the "
                "data must say what the words are."
            )
        if pair is not None:
            text_column, question_column = _pair(pair, text_column, question_column)
        _check_apart(
            text_column=None if tokens_column else text_column,
            tokens_column=tokens_column,
            question_column=question_column,
            label_column=label_column,
            rationale_column=rationale_column,
        )
        paths = {"train": train, "validation": validation, "test": test}
        self.paths = {split: Path(path) for split, path in paths.items() if path is not None}
        annotations = (("rationale", rationale_column),) if rationale_column else ()
        self._columns = Columns(
            text_column,
            label_column,
            tokens_column,
            annotations,
            rationale_threshold=rationale_threshold,
            question=question_column,
        )
        self._label_names = tuple(name.strip() for name in label_names) if label_names else None
        self._read_as = FileOptions(delimiter, encoding, tuple(columns) if columns else None)
        super().__init__(**kwargs)

    def source(self) -> Source:
        """The files."""
        return from_files(self.paths, read_as=self._read_as)

    def columns(self) -> Columns:
        """As configured."""
        return self._columns

    def declared_labels(self) -> tuple[str, ...] | None:
        """As configured."""
        return self._label_names


def _pair(pair: list[str], text_column: str, question_column: str | None) -> tuple[str, str]:
    """The two columns of `pair`, which stands for two other options."""
    if len(pair) != 2 or text_column != "text" or question_column is not None:
        raise ConfigurationError(
            "Expected `pair` to be two columns, in the place of `text_column` and `question_column`, but got "
            f"{pair} with {text_column!r} and {question_column!r}; use for example `[premise, hypothesis]`."
        )
    return pair[0], pair[1]


def _check_apart(**columns: str | None) -> None:
    """Refuse one column for two things: a text beside itself is no pair, and one that is its label gives that away."""
    options: dict[str, str] = {}
    for option, column in columns.items():
        if column is not None and (other := options.setdefault(column, option)) != option:
            raise ConfigurationError(
                f"Expected a column of its own for each option, but got {column!r} for both `{other}` and `{option}`; "
                "correct one of them."
            )
