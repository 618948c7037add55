import gzip
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attn_lightning.data.embeddings import PretrainedEmbeddings
from attn_lightning.errors import ConfigurationError, DataFormatError

VOCABULARY = ["<pad>", "<unk>", "oak", "elm", "Rain", "snow", "absent"]
VECTORS = {
    "oak": [0.5, -1.0, 2.0],
    "elm": [0.25, 0.0, -0.125],
    "rain": [1.0, 1.5, -2.0],
    "snow": [-4.0, 0.0625, 3.0],
    "other": [9.0, 9.0, 9.0],
}


def rows_of_text(vectors: dict[str, list[float]]) -> str:
    return "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items())


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def no_sentences() -> Iterator[list[str]]:
    raise AssertionError("this kind of embeddings has no business with the text")


def build(embeddings: PretrainedEmbeddings, cache: Path, seed: int = 0) -> torch.Tensor:
    return embeddings.build(VOCABULARY, no_sentences, cache, seed)


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

    def test_a_fasttext_model_and_its_text_form_agree(self, fasttext_model: Any, topics: Any, tmp_path: Path) -> None:
        model = fasttext_model(tmp_path, maxn=0)
        rows = {word: [float(x) for x in model.get_word_vector(word)] for word in [*topics.trees, *topics.weather]}
        text = write(tmp_path / "model.vec", f"60 4\n{rows_of_text(rows)}")
        tables = [
            PretrainedEmbeddings(path).build(topics.vocabulary, no_sentences, tmp_path, 0)
            for path in (text, tmp_path / "model.bin")
        ]
        torch.testing.assert_close(*tables, atol=1e-6, rtol=1e-6)

    def test_subwords_of_a_fasttext_model_give_words_it_never_saw(self, fasttext_model: Any, tmp_path: Path) -> None:
        model = fasttext_model(tmp_path, maxn=4)
        words = ["<pad>", "<unk>", "oak1", "snowmist"]
        table = PretrainedEmbeddings(tmp_path / "model.bin").build(words, no_sentences, tmp_path, 0)
        assert table[3].tolist() == pytest.approx(model.get_word_vector("snowmist").tolist())
        assert not table[0].any()


class TestCacheOfFiles:
    def test_the_second_time_the_file_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "v.txt", rows_of_text(VECTORS))
        first = build(PretrainedEmbeddings(path), tmp_path / "cache")
        monkeypatch.setattr("attn_lightning.data.embeddings.pretrained.read_vectors", None)
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
    def test_another_dimension(self, fasttext_model: Any, tmp_path: Path, name: str) -> None:
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

    def test_a_zipped_model_must_be_unpacked(self, fasttext_model: Any, tmp_path: Path) -> None:
        fasttext_model(tmp_path, maxn=0)
        zipped = gzip.compress((tmp_path / "model.bin").read_bytes())
        with pytest.raises(ConfigurationError, match=r"unpack it .* and name model\.bin"):
            build(PretrainedEmbeddings(write(tmp_path / "model.bin.gz", zipped)), tmp_path)
        with pytest.raises(DataFormatError, match="fastText model; unpack it"):
            build(PretrainedEmbeddings(write(tmp_path / "model.gz", zipped)), tmp_path)

    @pytest.mark.parametrize("number", [np.nan, np.inf, 1e99])
    def test_npz_vectors_must_be_finite(self, tmp_path: Path, number: float) -> None:
        np.savez(tmp_path / "v.npz", words=np.array(["oak", "elm"]), vectors=np.array([[1.0, 2.0], [3.0, number]]))
        with pytest.raises(DataFormatError, match=r"v\.npz, row 1 \('elm'\), to have 2 finite numbers"):
            build(PretrainedEmbeddings(tmp_path / "v.npz"), tmp_path)

    def test_cut_off_bin(self, fasttext_model: Any, tmp_path: Path) -> None:
        fasttext_model(tmp_path, maxn=0)
        path = tmp_path / "model.bin"
        write(path, path.read_bytes()[:8])
        with pytest.raises(DataFormatError, match="fastText model"):
            build(PretrainedEmbeddings(path), tmp_path)


@pytest.mark.real_data
def test_real_glove_file(real_data_root: Path, tmp_path: Path) -> None:
    path = next((real_data_root / "glove").glob("*.npz"))
    words = ["<pad>", "<unk>", "good", "The", "qzxv"]
    table = PretrainedEmbeddings(path).build(words, no_sentences, tmp_path, 0)
    with np.load(path) as arrays:
        row = arrays["words"].tolist().index("the")
        assert np.array_equal(table[3].numpy(), arrays["vectors"][row])
    assert table.shape == (5, 100)
