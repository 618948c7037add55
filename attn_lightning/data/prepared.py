"""A folder of prepared texts, mapped into memory: its splits, its tokenizer, its words."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from attn_lightning.data.cache import MANIFEST, is_whole
from attn_lightning.data.embeddings import Embeddings, with_random_rows
from attn_lightning.data.preparation import TOKENIZER
from attn_lightning.data.rows import ArrowDataset, MappedRows, to_numpy
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError


class PreparedTexts:
    """What `prepare` left in a folder; nothing but the manifest and the tokenizer is read at once.

    Args:
        folder: the folder.

    Attributes:
        manifest: where the data came from and what was made of it; JSON.
        tokenizer: the one that encoded the data.
        splits: the rows, memory-mapped: `text`, `label`, `ids`, `starts`, `ends` and annotations.

    Raises:
        ConfigurationError: there is no prepared data, or not all of it.
    """

    def __init__(self, folder: Path) -> None:
        if not is_whole(folder):
            raise ConfigurationError(
                f"Expected prepared data in {folder}, but got none; call `prepare_data()` first (the Trainer does)."
            )
        self._folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        self.tokenizer = TextTokenizer.from_str((folder / TOKENIZER).read_text("utf-8"))
        # Mapped, not read: several processes of a job share the pages of one file.
        self.splits = {split: MappedRows(folder / f"{split}.arrow") for split in self.manifest["splits"]}
        self._datasets: dict[str, ArrowDataset] = {}

    def rows(self, name: str) -> MappedRows:
        """The rows of a split.

        Raises:
            ConfigurationError: the data has no such split.
        """
        if name not in self.splits:
            raise ConfigurationError(
                f"Expected a split out of {', '.join(self.splits)}, but got {name!r}; the data has no such split."
            )
        return self.splits[name]

    def split(self, name: str) -> ArrowDataset:
        """The rows of a split with all that `datasets` can do; see `rows` for errors."""
        if name not in self._datasets:
            self._datasets[name] = self.rows(name).dataset()
        return self._datasets[name]

    def words(self, name: str) -> list[list[str]] | None:
        """The words of every text of a split as the source gave them; None where it gave raw text."""
        rows = self.rows(name)
        if "words" not in rows.column_names:
            return None
        texts, ends = (rows.data.column(column).to_pylist() for column in ("text", "words"))
        # A space joins two words, so the next one begins after it.
        pairs = zip(texts, ends, strict=True)
        return [[text[before + 1 : end] for before, end in pairwise([-1, *places])] for text, places in pairs]

    def word_vectors(self, embeddings: Embeddings, cache: Path, seed: int, more: Sequence[MappedRows] = ()) -> Tensor:
        """(V, E) the initial vectors of the vocabulary, those of default tokens drawn at random.

        Args:
            embeddings: what makes them.
            cache: folder for what takes long.
            seed: of what is drawn.
            more: encoded texts on which vectors are trained beside those of train.
        """
        vocabulary, before = self.tokenizer.vocabulary, self.tokenizer.options.default_tokens
        # The folder's name stands for the options (a pool among them), the digest for the texts.
        name = f"{self._folder.name} {self.manifest['splits']['train']['sha256']}"
        if "question_ids" in self.splits["train"].column_names:
            name += " both texts"  # before, vectors were trained on the first one alone
        sentences = _Sentences(partial(self._sentences, [self.splits["train"], *more]), name)
        # Without the default tokens at the end, which are no words that a file of vectors could have.
        vectors = embeddings.build(vocabulary[: len(vocabulary) - before], sentences, cache, seed)
        # In memory only: the folder is shared with runs that have other vectors.
        if (origin := embeddings.origin()) is not None:
            self.manifest["embeddings"] = {"source": origin}
        return with_random_rows(vectors, before, seed) if before else vectors

    def _sentences(self, parts: Sequence[MappedRows]) -> Iterator[list[str]]:
        """The words of every text, both of a pair, as they were encoded, without the default tokens."""
        # As an array, so that a chunk of ids becomes words in one step.
        words = np.array(self.tokenizer.vocabulary, object)
        # Default tokens stand before first texts only.
        columns = {"ids": self.tokenizer.options.default_tokens, "question_ids": 0}
        for part, (column, before) in product(parts, columns.items()):
            for chunk in part.data.column(column).chunks if column in part.column_names else ():
                values, bounds = words[to_numpy(chunk.values)], to_numpy(chunk.offsets)
                for start, end in pairwise(bounds):
                    yield values[start + before : end].tolist()


def data_line(manifest: dict[str, Any]) -> str:
    """What a run prints of its data: sizes, the longest text, and what was done to the texts."""

    def of_splits(key: str) -> str:
        return " / ".join(f"{content.get(key, 0):,}" for content in splits.values())

    splits = manifest["splits"]
    longest = max(content["longest"] for content in splits.values())
    parts = [
        f"{manifest['name']}: {of_splits('rows')} texts ({' / '.join(splits)})",
        _classes(manifest),
        f"the longest text has {longest:,} words (`--data.max_length` cuts longer ones off)",
    ]
    done = {"truncated": "cut off", "filtered": "left out by length", "unknown": "without a known word"}
    done["empty_question"] = "with an empty second text, which is read as one unknown word"
    changed = [key for key in done if any(content.get(key) for content in splits.values())]
    return "; ".join([*parts, *(f"{of_splits(key)} {done[key]}" for key in changed), *manifest["notes"]])


def _classes(manifest: dict[str, Any]) -> str:
    """How many classes there are; of a user's own files which ones, since a wrong column shows there first."""
    names = manifest["label_names"]
    own = manifest["source"]["kind"] == "files" and len(names) <= 10
    return f"{len(names)} classes" + (f" ({', '.join(f'{name:.30}' for name in names)})" if own else "")


@dataclass(frozen=True)
class _Sentences:
    """The words of every training text, with a name that no other texts have: who knows it need not read them."""

    words: Callable[[], Iterator[list[str]]]
    name: str

    def __call__(self) -> Iterator[list[str]]:
        return self.words()
