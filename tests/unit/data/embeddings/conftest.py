"""What the tests of word vectors share: a text of two topics, and a fastText model trained on some of it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from attn_lightning.data.embeddings.trained import run_fasttext


class Topics(NamedTuple):
    """Words that stand with words of their own topic only."""

    trees: list[str]
    weather: list[str]

    @property
    def vocabulary(self) -> list[str]:
        return ["<pad>", "<unk>", *self.trees, *self.weather]

    def sentences(self) -> Iterator[list[str]]:
        random = np.random.default_rng(0)
        for index in range(600):
            topic = self[index % 2]
            yield [topic[int(random.random() * len(topic))] for _ in range(12)]


@pytest.fixture(scope="session")
def topics() -> Topics:
    # Many words per topic: fastText leaves out most occurrences of words as frequent as 1 in 10.
    trees, weather = ([f"{topic}{number}" for number in range(30)] for topic in ("oak", "snow"))
    return Topics(trees, weather)


@pytest.fixture(scope="session")
def fasttext_model(topics: Topics) -> Callable[..., Any]:
    """Trains a tiny model and saves it as `model.bin` in a folder."""

    def train(folder: Path, maxn: int) -> Any:
        import fasttext

        text = folder / "text"
        text.write_text("".join(" ".join(words) + "\n" for words in itertools.islice(topics.sentences(), 50)))
        options = {"input": str(text), "dim": 4, "minn": 2 if maxn else 0, "maxn": maxn, "bucket": 100, "minCount": 1}
        # Not in this process, where some builds start from whatever is in memory.
        run_fasttext({**options, "thread": 1, "epoch": 1, "verbose": 0}, folder / "model.bin")
        return fasttext.load_model(str(folder / "model.bin"))

    return train


@pytest.fixture(scope="session")
def no_sentences() -> Callable[[], Iterator[list[str]]]:
    """For vectors that do not come from the text."""

    def refuse() -> Iterator[list[str]]:
        raise AssertionError("this kind of embeddings has no business with the text")

    return refuse
