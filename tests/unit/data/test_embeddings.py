import ast
import gzip
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from attn_lightning.data import embeddings as module
from attn_lightning.data.embeddings import (
    Embeddings,
    FastTextEmbeddings,
    PretrainedEmbeddings,
    RandomEmbeddings,
    complete,
    epochs_for,
)
from attn_lightning.errors import ConfigurationError, DataFormatError

VOCABULARY = ["<pad>", "<unk>", "oak", "elm", "Rain", "snow", "absent"]
VECTORS = {
    "oak": [0.5, -1.0, 2.0],
    "elm": [0.25, 0.0, -0.125],
    "rain": [1.0, 1.5, -2.0],
    "snow": [-4.0, 0.0625, 3.0],
    "other": [9.0, 9.0, 9.0],
}
# Many words per topic: fastText leaves out most occurrences of words as frequent as 1 in 10.
TREES, WEATHER = ([f"{topic}{number}" for number in range(30)] for topic in ("oak", "snow"))


def no_sentences() -> Iterator[list[str]]:
    raise AssertionError("this kind of embeddings has no business with the text")


def two_topics() -> Iterator[list[str]]:
    """Sentences of one topic each: words of a topic stand together, words of different topics never do."""
    random = np.random.default_rng(0)
    for index in range(600):
        topic = (TREES, WEATHER)[index % 2]
        yield [topic[int(random.random() * len(topic))] for _ in range(12)]


TOPIC_VOCABULARY = ["<pad>", "<unk>", *TREES, *WEATHER]


def rows_of_text(vectors: dict[str, list[float]]) -> str:
    return "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items())


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def build(embeddings: Embeddings, cache: Path, seed: int = 0) -> torch.Tensor:
    return embeddings.build(VOCABULARY, no_sentences, cache, seed)


def small_fasttext(**options: object) -> FastTextEmbeddings:
    return FastTextEmbeddings(**{"dimension": 16, "epochs": 5, "buckets": 500, **options})  # type: ignore[arg-type]


class TestRandom:
    def test_padding_is_zero_and_the_rest_has_the_scale(self, tmp_path: Path) -> None:
        words = [str(number) for number in range(2000)]
        table = RandomEmbeddings(dimension=50, scale=0.3).build(words, no_sentences, tmp_path, seed=1)
        assert table.shape == (2000, 50)
        assert table.dtype == torch.float32
        assert not table[0].any()
        assert table[1:].std().item() == pytest.approx(0.3, rel=0.01)

    def test_the_seed_decides_and_the_global_generator_is_left_alone(self, tmp_path: Path) -> None:
        state = torch.get_rng_state()
        first, again, other = (build(RandomEmbeddings(3), tmp_path, seed) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize(("dimension", "scale"), [(0, 0.1), (3, 0.0), (3, float("nan"))])
    def test_impossible_options(self, dimension: int, scale: float) -> None:
        with pytest.raises(ConfigurationError, match="Expected `"):
            RandomEmbeddings(dimension, scale)


class TestFormats:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, Path]:
        rows = rows_of_text(VECTORS)
        names, vectors = np.array(list(VECTORS)), np.array(list(VECTORS.values()), dtype=np.float32)
        np.savez(tmp_path / "v.npz", words=names, vectors=vectors)
        return {
            "header": write(tmp_path / "v.vec", f"{len(VECTORS)} 3\n{rows}"),
            "bare": write(tmp_path / "v.txt", rows),
            "trailing": write(tmp_path / "trailing.vec", f"5 3\n{rows}".replace("\n", " \n")),
            "tabs": write(tmp_path / "tabs.txt", rows.replace(" ", "\t")),
            "windows": write(tmp_path / "windows.txt", rows.replace("\n", "\r\n")),
            "gzip": write(tmp_path / "v.txt.gz", gzip.compress(rows.encode())),
            "gzip_header": write(tmp_path / "v.vec.gz", gzip.compress(f"5 3\n{rows}".encode())),
            "npz": tmp_path / "v.npz",
        }

    def test_all_give_the_same_table(self, files: dict[str, Path], tmp_path: Path) -> None:
        tables = {name: build(PretrainedEmbeddings(path), tmp_path / "cache") for name, path in files.items()}
        for name, table in tables.items():
            assert torch.equal(table, tables["bare"]), name

    def test_rows_are_those_of_the_words(self, files: dict[str, Path], tmp_path: Path) -> None:
        table = build(PretrainedEmbeddings(files["bare"]), tmp_path)
        assert table.dtype == torch.float32
        assert not table[0].any()
        assert table[2].tolist() == VECTORS["oak"]
        assert table[4].tolist() == VECTORS["rain"], "found in lower case"
        assert table[5].tolist() == VECTORS["snow"]

    def test_exact_case_comes_before_lower_case(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", rows_of_text({"rain": [1.0, 1.0], "Rain": [2.0, 2.0]}))
        assert build(PretrainedEmbeddings(path), tmp_path)[4].tolist() == [2.0, 2.0]

    def test_the_first_of_two_rows_of_a_word_counts(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", "oak 1 2\noak 3 4\n")
        assert build(PretrainedEmbeddings(path), tmp_path)[2].tolist() == [1.0, 2.0]

    def test_missing_words_depend_on_the_seed_found_ones_do_not(self, files: dict[str, Path], tmp_path: Path) -> None:
        first, other = (build(PretrainedEmbeddings(files["bare"]), tmp_path, seed) for seed in (1, 2))
        assert torch.equal(first[2:6], other[2:6])
        assert not torch.equal(first[6], other[6])
        assert first[6].any()

    def test_words_with_spaces_and_words_that_are_numbers(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", "7 1 2 3\nat somewhere 4 5 6\n. . . 7 8 9\noak 1 1 1\n")
        table = PretrainedEmbeddings(path).build(["<pad>", "<unk>", "7", "oak"], no_sentences, tmp_path, 0)
        assert table[2:].tolist() == [[1, 2, 3], [1, 1, 1]]

    def test_words_beyond_ascii_and_bytes_that_are_not_utf8(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write(tmp_path / "v.txt", "blåbär 1 2\n".encode() + b"caf\xe9 3 4\nsn\xa0w 5 6\n" + b"oak 7 8\n")
        words = ["<pad>", "<unk>", "blåbär", "oak"]
        with caplog.at_level(logging.WARNING):
            table = PretrainedEmbeddings(path).build(words, no_sentences, tmp_path, 0)
        assert table[2:].tolist() == [[1, 2], [7, 8]]
        assert "2 words are not valid UTF-8" in caplog.text

    def test_the_coverage_is_logged(
        self, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            build(PretrainedEmbeddings(files["bare"]), tmp_path)
        assert "vectors for 4 of 7 words" in caplog.text

    def test_a_fasttext_model_and_its_text_form_agree(self, tmp_path: Path) -> None:
        model = fasttext_model(tmp_path, maxn=0)
        rows = {word: [float(x) for x in model.get_word_vector(word)] for word in [*TREES, *WEATHER]}
        text = write(tmp_path / "model.vec", f"60 4\n{rows_of_text(rows)}")
        tables = [
            PretrainedEmbeddings(path).build(TOPIC_VOCABULARY, no_sentences, tmp_path, 0)
            for path in (text, tmp_path / "model.bin")
        ]
        torch.testing.assert_close(*tables, atol=1e-6, rtol=1e-6)

    def test_subwords_of_a_fasttext_model_give_words_it_never_saw(self, tmp_path: Path) -> None:
        model = fasttext_model(tmp_path, maxn=4)
        words = ["<pad>", "<unk>", "oak1", "snowmist"]
        table = PretrainedEmbeddings(tmp_path / "model.bin").build(words, no_sentences, tmp_path, 0)
        assert table[3].tolist() == pytest.approx(model.get_word_vector("snowmist").tolist())
        assert not table[0].any()


def fasttext_model(folder: Path, maxn: int) -> "object":
    import fasttext

    text = write(folder / "text", "".join(" ".join(words) + "\n" for words in itertools.islice(two_topics(), 50)))
    model = fasttext.train_unsupervised(
        str(text), dim=4, minn=2 if maxn else 0, maxn=maxn, bucket=100, minCount=1, thread=1, epoch=1, verbose=0
    )
    model.save_model(str(folder / "model.bin"))
    return model


class TestCacheOfFiles:
    def test_the_second_time_the_file_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "v.txt", rows_of_text(VECTORS))
        first = build(PretrainedEmbeddings(path), tmp_path / "cache")
        monkeypatch.setattr(module, "read_vectors", no_sentences)
        assert torch.equal(build(PretrainedEmbeddings(path), tmp_path / "cache"), first)

    def test_another_file_content_or_vocabulary_is_read_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", "oak 1 2\nelm 3 4\n")
        build(PretrainedEmbeddings(path), tmp_path / "cache")
        other = PretrainedEmbeddings(path).build(["<pad>", "<unk>", "elm"], no_sentences, tmp_path / "cache", 0)
        assert other[2].tolist() == [3, 4]
        write(path, "oak 5 6 \nelm 3 4\n")
        assert build(PretrainedEmbeddings(path), tmp_path / "cache")[2].tolist() == [5, 6]

    def test_nothing_else_is_left_in_the_folder(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", rows_of_text(VECTORS))
        build(PretrainedEmbeddings(path), tmp_path / "cache")
        assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npz"]


class TestBrokenFiles:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"none at .*nowhere\.vec"):
            build(PretrainedEmbeddings(tmp_path / "nowhere.vec", dimension=3), tmp_path)
        with pytest.raises(ConfigurationError, match=r"none at .*nowhere\.vec"):
            _ = PretrainedEmbeddings(tmp_path / "nowhere.vec").dimension

    @pytest.mark.parametrize("name", ["v.vec", "v.txt", "v.txt.gz", "v.npz", "model.bin"])
    def test_another_dimension(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        if name == "model.bin":
            fasttext_model(tmp_path, maxn=0)
        elif name == "v.npz":
            np.savez(path, words=np.array(["oak"]), vectors=np.ones((1, 4), dtype=np.float32))
        else:
            rows = ("1 4\n" if name == "v.vec" else "") + "oak 1 2 3 4\n"
            write(path, gzip.compress(rows.encode()) if name.endswith("gz") else rows)
        assert PretrainedEmbeddings(path).dimension == 4
        with pytest.raises(ConfigurationError, match=r"`dimension` to be 4, .* but got 300; set it to 4"):
            build(PretrainedEmbeddings(path, dimension=300), tmp_path)

    @pytest.mark.parametrize(
        "line", ["oak 1 2", "oak 1 2 3 4", "oak 1 two 3", "oak 1 nan 3", "oak 1e99 2 3", "oak", "", "oak 1 2 3 x"]
    )
    def test_a_broken_line_is_named(self, tmp_path: Path, line: str) -> None:
        path = write(tmp_path / "v.txt", f"elm 1 2 3\n{line}\nsnow 1 2 3\n")
        with pytest.raises(DataFormatError, match=r"v\.txt, line 2"):
            build(PretrainedEmbeddings(path), tmp_path)

    @pytest.mark.parametrize("content", ["", "oak\n", "words and no number\n"])
    def test_a_file_of_something_else(self, tmp_path: Path, content: str) -> None:
        path = write(tmp_path / "v.txt", content)
        with pytest.raises(DataFormatError, match="line 1"):
            build(PretrainedEmbeddings(path), tmp_path)

    def test_no_word_of_the_vocabulary(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt", "chene 1 2\n")
        with pytest.raises(ConfigurationError, match=r"none of 7.*tokenization \(first words: oak"):
            build(PretrainedEmbeddings(path), tmp_path)

    def test_a_cut_off_gzip(self, tmp_path: Path) -> None:
        noise = rows_of_text({f"w{i}": np.random.default_rng(i).random(3).tolist() for i in range(200)})
        path = write(tmp_path / "v.txt.gz", gzip.compress(noise.encode())[:-2000])
        with pytest.raises(DataFormatError, match="whole gzip file"):
            build(PretrainedEmbeddings(path, dimension=3), tmp_path)

    def test_something_else_that_is_called_gz(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.txt.gz", "oak 1 2\n")
        with pytest.raises(DataFormatError, match="gzip"):
            build(PretrainedEmbeddings(path), tmp_path)

    @pytest.mark.parametrize(
        "arrays", [{"vectors": np.ones((1, 2))}, {"words": ["a", "b"], "vectors": np.ones((1, 2))}]
    )
    def test_npz_with_other_arrays(self, tmp_path: Path, arrays: dict[str, object]) -> None:
        np.savez(tmp_path / "v.npz", **arrays)
        with pytest.raises(DataFormatError, match=r"v\.npz to hold"):
            build(PretrainedEmbeddings(tmp_path / "v.npz"), tmp_path)

    def test_bin_of_another_program(self, tmp_path: Path) -> None:
        path = write(tmp_path / "v.bin", b"3000000 300\n" + bytes(100))
        with pytest.raises(DataFormatError, match="fastText model"):
            build(PretrainedEmbeddings(path), tmp_path)

    def test_cut_off_bin(self, tmp_path: Path) -> None:
        fasttext_model(tmp_path, maxn=0)
        path = tmp_path / "model.bin"
        write(path, path.read_bytes()[:8])
        with pytest.raises(DataFormatError, match="fastText model"):
            build(PretrainedEmbeddings(path), tmp_path)


class TestFastText:
    def test_words_of_a_topic_are_closer_than_words_of_two(self, tmp_path: Path) -> None:
        table = small_fasttext(epochs=50).build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
        trees, weather = table[2:32], table[32:]
        within = [cosine_similarity(topic[:, None], topic, dim=-1).min() for topic in (trees, weather)]
        across = cosine_similarity(trees[:, None], weather, dim=-1).max()
        assert min(within) > across + 0.1

    @pytest.mark.parametrize("options", [{}, {"model": "cbow"}, {"minn": 3, "maxn": 5}])
    def test_two_cold_runs_are_identical(self, tmp_path: Path, options: dict[str, object]) -> None:
        tables = [
            small_fasttext(**options).build(TOPIC_VOCABULARY, two_topics, tmp_path / name, 0) for name in ("a", "b")
        ]
        assert torch.equal(*tables)
        assert tables[0].dtype == torch.float32
        assert not tables[0][0].any()
        assert tables[0][2:].any(dim=1).all()

    def test_a_warm_cache_gives_the_same_and_trains_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = small_fasttext().build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
        monkeypatch.setattr(module, "_run_fasttext", no_sentences)
        assert torch.equal(small_fasttext().build(TOPIC_VOCABULARY, two_topics, tmp_path, 0), first)
        assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]

    def test_other_options_text_or_vocabulary_train_anew(self, tmp_path: Path) -> None:
        small_fasttext().build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
        small_fasttext(epochs=2).build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
        small_fasttext().build(TOPIC_VOCABULARY[:-1], two_topics, tmp_path, 0)
        small_fasttext().build(TOPIC_VOCABULARY, lambda: itertools.islice(two_topics(), 300), tmp_path, 0)
        assert len(list(tmp_path.iterdir())) == 4

    def test_the_unknown_word_is_trained_and_absent_words_are_drawn(self, tmp_path: Path) -> None:
        words = ["<pad>", "<unk>", *TREES, "absent"]
        one, two = (small_fasttext().build(words, two_topics, tmp_path, seed) for seed in (1, 2))
        assert torch.equal(one[1:-1], two[1:-1])
        assert not torch.equal(one[-1], two[-1])

    def test_strange_words_do_not_break_the_training_text(self, tmp_path: Path) -> None:
        strange = ["new york", "a\nb", "</s>", "__label__x", "", "tab\tbed", "\ud800", "日本", "zero\0", "blåbär"]
        table = small_fasttext().build(["<pad>", "<unk>", *strange], lambda: iter([strange] * 50), tmp_path, 0)
        assert table.shape == (12, 16)
        again = small_fasttext().build(["<pad>", "<unk>", *strange], lambda: iter([strange] * 50), tmp_path / "b", 1)
        assert torch.equal(table[2:], again[2:]), "no row was drawn at random"

    def test_text_without_words(self, tmp_path: Path) -> None:
        with pytest.raises(DataFormatError, match="has none; check the text column"):
            small_fasttext().build(TOPIC_VOCABULARY, lambda: iter([[], []]), tmp_path, 0)

    def test_what_fasttext_says_is_passed_on(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"ended with .*check the memory"):
            small_fasttext(minn=3, maxn=3, buckets=10**15).build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
        assert not list(tmp_path.iterdir())

    def test_the_progress_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO):
            small_fasttext().build(TOPIC_VOCABULARY, two_topics, tmp_path, 0)
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

    @pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
    def test_ctrl_c_stops_the_training_at_once_and_leaves_nothing(self, tmp_path: Path) -> None:
        script = write(
            tmp_path / "script.py",
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


def test_drawn_rows_have_the_mean_length_of_the_found_ones() -> None:
    found = {row: np.full(400, value, dtype=np.float32) for row, value in ((2, 0.1), (3, 0.3))}  # lengths 2 and 6
    table = complete(found, 500, 400, seed=0)
    assert table[4:].norm(dim=1).mean().item() == pytest.approx(4.0, rel=0.02)
    assert not table[0].any()


def test_small_texts_are_read_more_often() -> None:
    assert [epochs_for(words) for words in (100, 140_000, 1_000_000, 4_600_000, 10**9)] == [30, 30, 5, 1, 1]


def test_the_compiled_module_is_not_imported_before_it_is_needed() -> None:
    tree = ast.parse(Path(module.__file__).read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert "numpy" in names
    assert "fasttext" not in names


@pytest.mark.real_data
def test_real_glove_file(real_data_root: Path, tmp_path: Path) -> None:
    path = next((real_data_root / "glove").glob("*.npz"))
    words = ["<pad>", "<unk>", "good", "The", "qzxv"]
    table = PretrainedEmbeddings(path).build(words, no_sentences, tmp_path, 0)
    with np.load(path) as arrays:
        row = arrays["words"].tolist().index("the")
        assert np.array_equal(table[3].numpy(), arrays["vectors"][row])
    assert table.shape == (5, 100)
