import ast
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity

from attn_lightning.data.embeddings import FastTextEmbeddings, trained
from attn_lightning.data.embeddings.trained import epochs_for
from attn_lightning.errors import ConfigurationError, DataFormatError


def small_fasttext(**options: object) -> FastTextEmbeddings:
    return FastTextEmbeddings(**{"dimension": 16, "epochs": 5, "buckets": 500, **options})  # type: ignore[arg-type]


class TestFastText:
    def test_words_of_a_topic_are_closer_than_words_of_two(self, topics: Any, tmp_path: Path) -> None:
        table = small_fasttext(epochs=50).build(topics.vocabulary, topics.sentences, tmp_path, 0)
        trees, weather = table[2:32], table[32:]
        within = [cosine_similarity(topic[:, None], topic, dim=-1).min() for topic in (trees, weather)]
        across = cosine_similarity(trees[:, None], weather, dim=-1).max()
        assert min(within) > across + 0.1

    @pytest.mark.parametrize("options", [{}, {"model": "cbow"}, {"minn": 3, "maxn": 5}])
    def test_two_cold_runs_are_identical(self, topics: Any, tmp_path: Path, options: dict[str, object]) -> None:
        tables = [
            small_fasttext(**options).build(topics.vocabulary, topics.sentences, tmp_path / name, 0)
            for name in ("a", "b")
        ]
        assert torch.equal(*tables)
        assert tables[0].dtype == torch.float32
        assert not tables[0][0].any()
        assert tables[0][2:].any(dim=1).all()

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, [[-0.0192932, 0.0550599, 0.0204039], [-0.0042093, 0.0752985, 0.0244387]]),
            ({"model": "cbow"}, [[-0.0321092, 0.0457261, 0.0193843], [-0.0301260, 0.0597527, 0.0315496]]),
            ({"minn": 3, "maxn": 5}, [[-0.5437669, 0.7437840, -0.5778505], [-0.6394117, 0.8869347, -0.6801918]]),
        ],
    )
    def test_every_build_of_fasttext_trains_the_same_vectors(
        self, topics: Any, tmp_path: Path, options: dict[str, object], expected: list[list[float]]
    ) -> None:
        # Measured with fasttext-wheel 0.9.2. Other builds start the rows of n-grams with whatever is in memory.
        table = small_fasttext(**options).build(topics.vocabulary, topics.sentences, tmp_path, 0)
        torch.testing.assert_close(table[[2, 40], :3], torch.tensor(expected), atol=1e-4, rtol=1e-3)

    def test_texts_with_a_name_are_read_once_and_another_name_or_vocabulary_is_another_text(
        self, topics: Any, tmp_path: Path
    ) -> None:
        class Named:
            name, reads = "one text", 0

            def __call__(self) -> Any:
                self.reads += 1
                return topics.sentences()

        named = Named()
        plain = small_fasttext().build(topics.vocabulary, topics.sentences, tmp_path / "plain", 0)
        assert torch.equal(small_fasttext().build(topics.vocabulary, named, tmp_path, 0), plain)
        read = named.reads
        assert torch.equal(small_fasttext().build(topics.vocabulary, named, tmp_path, 0), plain)
        assert named.reads == read
        small_fasttext().build(topics.vocabulary[:-1], named, tmp_path, 0)
        assert named.reads > read
        read, named.name = named.reads, "another"
        assert torch.equal(small_fasttext().build(topics.vocabulary, named, tmp_path, 0), plain)
        assert named.reads == read + 1  # to see that it is the text that was trained on

    def test_a_warm_cache_gives_the_same_and_trains_nothing(
        self, topics: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = small_fasttext().build(topics.vocabulary, topics.sentences, tmp_path, 0)
        monkeypatch.setattr(trained, "run_fasttext", None)
        assert torch.equal(small_fasttext().build(topics.vocabulary, topics.sentences, tmp_path, 0), first)
        assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]

    def test_other_options_text_or_vocabulary_train_anew(self, topics: Any, tmp_path: Path) -> None:
        small_fasttext().build(topics.vocabulary, topics.sentences, tmp_path, 0)
        small_fasttext(epochs=2).build(topics.vocabulary, topics.sentences, tmp_path, 0)
        small_fasttext().build(topics.vocabulary[:-1], topics.sentences, tmp_path, 0)
        small_fasttext().build(topics.vocabulary, lambda: itertools.islice(topics.sentences(), 300), tmp_path, 0)
        assert len(list(tmp_path.iterdir())) == 4

    def test_the_unknown_word_is_trained_and_absent_words_are_drawn(self, topics: Any, tmp_path: Path) -> None:
        words = ["<pad>", "<unk>", *topics.trees, "absent"]
        one, two = (small_fasttext().build(words, topics.sentences, tmp_path, seed) for seed in (1, 2))
        assert torch.equal(one[1:-1], two[1:-1])
        assert not torch.equal(one[-1], two[-1])

    def test_strange_words_do_not_break_the_training_text(self, tmp_path: Path) -> None:
        strange = ["new york", "a\nb", "</s>", "__label__x", "", "tab\tbed", "\ud800", "日本", "zero\0", "blåbär"]
        table = small_fasttext().build(["<pad>", "<unk>", *strange], lambda: iter([strange] * 50), tmp_path, 0)
        assert table.shape == (12, 16)
        again = small_fasttext().build(["<pad>", "<unk>", *strange], lambda: iter([strange] * 50), tmp_path / "b", 1)
        assert torch.equal(table[2:], again[2:]), "no row was drawn at random"

    def test_text_without_words(self, topics: Any, tmp_path: Path) -> None:
        with pytest.raises(DataFormatError, match="has none; check the text column"):
            small_fasttext().build(topics.vocabulary, lambda: iter([[], []]), tmp_path, 0)

    def test_what_fasttext_says_is_passed_on(self, topics: Any, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"ended with .*check the memory"):
            small_fasttext(minn=3, maxn=3, buckets=10**15).build(topics.vocabulary, topics.sentences, tmp_path, 0)
        assert not list(tmp_path.iterdir())

    def test_the_progress_is_logged(self, topics: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            small_fasttext().build(topics.vocabulary, topics.sentences, tmp_path, 0)
        assert "training word vectors, 5 epochs" in caplog.text
        assert "100.0 %" in caplog.text

    @pytest.mark.parametrize(
        "options",
        [
            {"epochs": 0},
            {"minn": 3},
            {"maxn": 3},
            {"minn": 5, "maxn": 3},
            {"threads": 0},
            {"learning_rate": 0.0},
            {"model": "glove"},
            {"dimension": 0},
            {"negatives": 0},
        ],
    )
    def test_impossible_options(self, options: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError, match="Expected"):
            small_fasttext(**options)

    @pytest.mark.slow
    @pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
    def test_ctrl_c_stops_the_training_at_once_and_leaves_nothing(self, tmp_path: Path) -> None:
        script = tmp_path / "script.py"
        script.write_text(
            "import sys\nfrom pathlib import Path\nfrom attn_lightning.data.embeddings import FastTextEmbeddings\n"
            "text = lambda: iter([['oak', 'elm'] * 10] * 100)\n"
            "words = ['<pad>', '<unk>', 'oak', 'elm']\n"
            "FastTextEmbeddings(300, epochs=10**6).build(words, text, Path(sys.argv[1]), 0)\n",
        )
        cache = tmp_path / "cache"
        process = subprocess.Popen(
            [sys.executable, str(script), str(cache)],
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
        try:
            deadline = time.monotonic() + 60
            while not list(cache.glob("fasttext-*/text.txt")) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(1.0)
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            assert b"KeyboardInterrupt" in process.stderr.read()
            assert process.wait(timeout=30) != 0
        finally:
            process.kill()
            process.wait()
        assert not list(cache.iterdir())


def test_small_texts_are_read_more_often() -> None:
    assert [epochs_for(words) for words in (100, 140_000, 1_000_000, 4_600_000, 10**9)] == [30, 30, 5, 1, 1]


def test_the_compiled_module_is_not_imported_before_it_is_needed() -> None:
    tree = ast.parse(Path(trained.__file__).read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert "numpy" in names
    assert "fasttext" not in names
