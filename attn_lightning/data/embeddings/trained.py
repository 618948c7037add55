"""Initial word vectors that fastText trains on the training text itself."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from attn_lightning.checks import check_choice, check_numbers
from attn_lightning.data.embeddings.base import (
    UNKNOWN_ROW,
    Embeddings,
    Sentences,
    Vector,
    cached,
    complete,
    digest,
    without_surrogates,
)
from attn_lightning.data.embeddings.fasttext_model import read_binary
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.files import write_json

logger = logging.getLogger(__name__)

FASTTEXT_PACKAGE = "fasttext-wheel" if sys.version_info < (3, 13) else "fasttext-numpy2"
"""Which package the module `fasttext` comes from, as `pyproject.toml` has it."""

_TRAINER = """
import json, sys
import fasttext
fasttext.train_unsupervised(**json.loads(sys.argv[1])).save_model(sys.argv[2])
"""


class FastTextEmbeddings(Embeddings):
    """Vectors trained with fastText on the training text, cached by the content of the text and the options.

    Words outside the vocabulary are trained as the unknown word, so its row is a real vector too. One thread gives
    the same vectors every time; with more the threads race. `seed` has no part in the training: all seeds of a study
    share one set of vectors. fastText itself starts only the first tenth of its rows at random when it has one
    thread, and the others at zero; here all words start at random. The training runs in a process of its own, so that
    Ctrl-C works, and logs its progress.

    Cost: linear in words, epochs and dimension. On one thread character n-grams about double it; cbow is a fraction of
    skipgram, whose vectors are the better ones on small corpora. The time of a training is logged.

    Args:
        dimension: E, numbers per word.
        model: `skipgram` or `cbow`.
        epochs: passes over the text; None chooses as many as see about 5 million words, at least 1 and at most 30.
        minn: shortest character n-gram, 0 for whole words only.
        maxn: longest character n-gram, 0 for whole words only.
        buckets: rows for hashed n-grams; not used without them.
        learning_rate: at the start; it falls linearly to 0.
        window: words to each side that count as context.
        negatives: negative samples per word.
        threads: more than 1 is faster and not reproducible.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        dimension: int = 300,
        model: Literal["skipgram", "cbow"] = "skipgram",
        epochs: int | None = None,
        minn: int = 0,
        maxn: int = 0,
        buckets: int = 200_000,
        learning_rate: float = 0.05,
        window: int = 5,
        negatives: int = 5,
        threads: int = 1,
    ) -> None:
        super().__init__(dimension)
        check_numbers(self, at_least=1, epochs=epochs, buckets=buckets, window=window)
        check_numbers(self, at_least=1, negatives=negatives, threads=threads)
        check_numbers(self, above=0, learning_rate=learning_rate, advice="0.05 is usual")
        check_choice(self, choices=("skipgram", "cbow"), model=model)
        if not 0 <= minn <= maxn or (minn == 0) != (maxn == 0):
            raise ConfigurationError(
                f"Expected 1 <= `minn` <= `maxn`, or 0 for both, but got {minn} and {maxn}; 3 and 6 are usual."
            )
        self.epochs = epochs
        self.options = {
            "model": model,
            "dim": dimension,
            "minn": minn,
            "maxn": maxn,
            "bucket": buckets,
            "lr": learning_rate,
            "ws": window,
            "neg": negatives,
            "thread": threads,
        }

    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> Tensor:
        """Train, or read what an earlier call trained. See `Embeddings.build`."""
        content, num_words = _content(vocabulary, sentences, cache)
        if num_words == 0:
            raise DataFormatError("Expected the training text to have words, but it has none; check the text column.")
        options = {**self.options, "epoch": self.epochs or epochs_for(num_words)}
        # With the version of the library: another one may train other vectors of the same text.
        key = digest([content, json.dumps(options, sort_keys=True), version(FASTTEXT_PACKAGE)])

        def train() -> dict[int, Vector]:
            return self._train(vocabulary, sentences, cache, options)

        found = cached(cache / f"fasttext-{key}.npz", train)
        return complete(found, len(vocabulary), self.dimension, seed)

    @staticmethod
    def _train(
        vocabulary: Sequence[str],
        sentences: Sentences,
        cache: Path,
        options: Mapping[str, Any],
    ) -> dict[int, Vector]:
        # Not in the system's folder, which is often in memory: text and model may have gigabytes.
        with tempfile.TemporaryDirectory(dir=cache, prefix="fasttext-") as folder:
            text, start, model = (Path(folder, name) for name in ("text.txt", "start.vec", "model.bin"))
            with text.open("wb") as file:
                file.writelines(_training_lines(vocabulary, sentences))
            with start.open("wb") as file:
                file.writelines(_starting_lines(list(_summary(vocabulary, sentences)[1]), options["dim"]))
            files = {"input": str(text), "pretrainedVectors": str(start)}
            # What is rare was left out of the vocabulary already; and 2 makes it print the lines of progress that are
            # logged.
            run_fasttext({**options, **files, "minCount": 1, "verbose": 2}, model)
            return read_binary(model, [_escaped(word) for word in vocabulary], options["dim"])


def epochs_for(num_words: int) -> int:
    """Passes over a text so that about 5 million words are seen, 1 to 30."""
    return min(max(round(5_000_000 / num_words), 1), 30)


def _escaped(word: str) -> str:
    """The word as fastText can read it: it splits at white space, and gives two words a meaning of their own."""
    word = re.sub(r"[\s\0]", lambda match: f"\\x{ord(match[0]):02x}", without_surrogates(word))
    return "\\" + word if word == "</s>" or word.startswith("__label__") or not word else word


def _training_lines(vocabulary: Sequence[str], sentences: Sentences) -> Iterator[bytes]:
    """One line per text, words outside the vocabulary as the unknown word; texts without words give no line."""
    forms = {word: _escaped(word) for word in vocabulary}
    unknown = forms[vocabulary[UNKNOWN_ROW]]
    for words in sentences():
        if words:
            line = " ".join(forms.get(word, unknown) for word in words) + "\n"
            yield line.encode()


def _starting_lines(words: Sequence[bytes], dimension: int) -> Iterator[bytes]:
    """Where the training starts: uniform in [-1/E, 1/E], the range that fastText uses."""
    random = np.random.default_rng(0)
    yield b"%d %d\n" % (len(words), dimension)
    for word in words:
        row = (2.0 * random.random(dimension) - 1.0) / dimension
        yield word + b" " + b" ".join(b"%.5g" % number for number in row.tolist()) + b"\n"


def _content(vocabulary: Sequence[str], sentences: Sentences, cache: Path) -> tuple[str, int]:
    """Digest of vocabulary and text, and the number of words: kept in a file for texts that have a name."""

    def read() -> tuple[str, int]:
        content, counts = _summary(vocabulary, sentences)
        return content, counts.total()

    name = getattr(sentences, "name", None)
    if name is None:
        return read()
    path = cache / f"text-{digest([name, *vocabulary])}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dict(zip(("content", "words"), read(), strict=True)))
    stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return stored["content"], stored["words"]


def _summary(vocabulary: Sequence[str], sentences: Sentences) -> tuple[str, Counter[bytes]]:
    """Digest of vocabulary and text, and how often each word occurs."""
    content = hashlib.sha256("\n".join(map(_escaped, vocabulary)).encode())
    counts: Counter[bytes] = Counter()
    for line in _training_lines(vocabulary, sentences):
        content.update(line)
        counts.update(line.split())
    return content.hexdigest(), counts


def run_fasttext(options: Mapping[str, Any], model: Path) -> None:
    """Train in a child process: fastText does not give the interpreter back before it is done."""
    # -P: a file `fasttext.py` where the command was started must not be taken for the library.
    command = [sys.executable, "-P", "-c", _TRAINER, json.dumps(options), str(model)]
    # Newer builds leave the rows of n-grams as they find them in memory. This makes glibc hand out zeros, which is what
    # the older build starts from; without it vectors differ from run to run and may be as large as 1e30.
    environment = {**os.environ, "MALLOC_PERTURB_": "255"}
    started = time.perf_counter()
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, bufsize=1, errors="replace", env=environment
    ) as process:
        try:
            messages = _follow(process, started, options["epoch"])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise ConfigurationError(
            f"Expected fastText to train, but its process ended with {process.returncode}: {messages or 'no message'}; "
            "check the memory ((words + buckets) x dimension x 8 bytes) and the options."
        )
    logger.info("fastText: trained in %.0f s", time.perf_counter() - started)


def _follow(process: subprocess.Popen[str], started: float, epochs: int) -> str:
    """Log every tenth of the training; returns what else the process printed."""
    assert process.stderr is not None
    logger.info("fastText: training word vectors, %d epochs", epochs)
    others, next_tenth = [], 1
    for line in process.stderr:  # universal newlines: a carriage return ends a line too
        match = re.search(r"Progress:\s+([\d.]+)%", line)
        if match is None:
            others.append(line.strip())
        elif float(match[1]) >= 10 * next_tenth:
            logger.info("fastText: %s %%, %.0f s", match[1], time.perf_counter() - started)
            next_tenth = int(float(match[1]) // 10) + 1
    return " ".join(others[-3:])
