"""Pairs of texts from files to batches, with empty sides, and the data sets by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from attn_lightning.data import FEVER, SNLI, BAbI, MultiRC, TextFiles
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.errors import ConfigurationError, DataFormatError

ROWS = [
    {"premise": f"the {animal} sleeps", "hypothesis": hypothesis, "label": label}
    for animal in ("cat", "dog", "cow", "pig", "hen")
    for hypothesis, label in (("it rests", "yes"), ("it runs quickly now", "no"))
]


def files(folder: Path, rows: list[dict[str, object]], **options: object) -> TextFiles:
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    paths = {"train": folder / "train.jsonl", "validation": folder / "train.jsonl", "test": folder / "test.jsonl"}
    return TextFiles(**paths, cache=folder / "cache", **options)  # type: ignore[arg-type]


def ready(data: TextDataModule) -> TextDataModule:
    data.prepare_data()
    data.setup()
    return data


def test_the_second_text_stands_behind_the_first_outside_the_mask(tmp_path: Path) -> None:
    data = ready(files(tmp_path, ROWS, pair=["premise", "hypothesis"]))
    assert data.spec.has_question
    batch = data.examples("test")[[0, 1]]
    words = [[data.tokenizer.vocabulary[word] for word in row] for row in batch.tokens.tolist()]
    assert words[0] == ["the", "cat", "sleeps", "it", "rests", "<pad>", "<pad>"]
    assert words[1] == ["the", "cat", "sleeps", "it", "runs", "quickly", "now"]
    assert batch.mask.tolist() == [[True] * 3 + [False] * 4] * 2
    assert data.questions("test")[:2] == ["it rests", "it runs quickly now"]
    assert data.whole_texts("test")[0] == "the cat sleeps it rests"
    assert data.manifest["splits"]["train"]["empty_question"] == 0


def test_an_empty_side_is_one_unknown_word_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{**ROWS[0], "hypothesis": " "}, {**ROWS[1], "premise": ""}, *ROWS[2:]]
    with caplog.at_level("INFO"):
        data = ready(files(tmp_path, rows, text_column="premise", question_column="hypothesis"))
    batch = data.examples("test")[[0, 1]]
    assert batch.tokens[0, 3:].tolist() == [1, 0, 0, 0]
    assert batch.mask[1].sum() == 1
    assert batch.tokens[1, 0] == 1
    assert data.manifest["splits"]["train"]["empty_question"] == 1
    assert "with an empty second text" in caplog.text


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="'question'"):
        ready(files(tmp_path, ROWS, text_column="premise", question_column="question"))
    with pytest.raises(ConfigurationError, match="`pair`"):
        files(tmp_path, ROWS, pair=["premise"])
    with pytest.raises(ConfigurationError, match="'premise' for both `text_column` and `question_column`"):
        files(tmp_path, ROWS, pair=["premise", "premise"])
    with pytest.raises(ConfigurationError, match="task"):
        BAbI(task=4)


def test_every_word_is_kept_for_an_encoder_that_reads_letters(tmp_path: Path) -> None:
    data = files(tmp_path, ROWS, pair=["premise", "hypothesis"], unknown="keep", min_count=3)
    unseen = [json.dumps({**row, "premise": "a wholly new animal"}) for row in ROWS[:2]]
    (tmp_path / "test.jsonl").write_text("\n".join(unseen), "utf-8")
    ready(data)
    batch = data.examples("test")[[0]]
    assert data.spec.vocabulary == tuple(data.tokenizer.vocabulary)
    assert data.spec.embedding_weights is None
    assert [data.spec.vocabulary[word] for word in batch.tokens[0].tolist()] == [
        *["a", "wholly", "new", "animal", "it", "rests"]
    ]


@pytest.mark.real_data
def test_the_data_sets_by_name(real_data_root: Path, tmp_path: Path) -> None:
    options = {"root": real_data_root, "cache": tmp_path, "max_examples": 60, "max_test_examples": 20}
    for made, classes in ((MultiRC, 2), (FEVER, 2), (SNLI, 3), (BAbI, 6)):
        source = made(**options).source()
        assert set(source.splits) == {"train", "validation", "test"}
        assert made(**options).columns().question in next(source.splits["train"].rows())[1]
        assert len(made.classes or ()) == classes
    data = ready(BAbI(task=2, **options))
    batch = data.examples("test")[[0, 1]]
    assert batch.rationale is not None
    assert batch.rationale.shape == batch.mask.shape
    assert torch.all(batch.mask[batch.rationale])
    assert bool(batch.has_rationale.all())


def paired(tmp_path: Path, **pool: Any) -> TextFiles:
    rows = [
        {"text": f"a fine film {place}", "question": "is it", "claim": "it is", "label": place % 2}
        for place in range(20)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    shared: dict[str, Any] = {"train": tmp_path / "pairs.jsonl", "cache": tmp_path / "cache"}
    other = TextFiles(**shared, **pool)
    data = TextFiles(**shared, question_column="question", unlabeled=other, embeddings=RandomEmbeddings(8))
    data.prepare_data()
    data.setup("fit")
    return data


def test_pairs_need_a_pool_of_pairs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="question_column"):
        paired(tmp_path)
    ((batch, _, _), *_) = paired(tmp_path, question_column="question").train_dataloader()
    pool = batch["unlabeled"]
    assert (pool.tokens[~pool.mask] > 0).sum() == 40


def test_another_second_text_of_a_pool_is_another_pool(tmp_path: Path) -> None:
    digests = {paired(tmp_path, question_column=name)._pool.path for name in ("question", "claim")}
    assert len(digests) == 2


def test_a_vocabulary_of_the_pool_has_the_words_of_its_second_texts(tmp_path: Path) -> None:
    for name, question in (("task", "is it"), ("pool", "truly so")):
        rows = [{"text": f"a fine film {place}", "question": question, "label": place % 2} for place in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    pool = TextFiles(train=tmp_path / "pool.jsonl", question_column="question")
    options: dict[str, Any] = {"unlabeled": pool, "vocabulary_of": "train_and_pool", "embeddings": RandomEmbeddings(8)}
    data = TextFiles(train=tmp_path / "task.jsonl", question_column="question", cache=tmp_path / "cache", **options)
    data.prepare_data()
    data.setup("fit")
    assert {"is", "truly"} <= set(data.tokenizer.vocabulary)


def test_single_texts_leave_the_second_ones_of_a_pool_out(tmp_path: Path) -> None:
    paired(tmp_path, question_column="question")
    foreign = TextFiles(train=tmp_path / "pairs.jsonl", question_column="question")
    data = TextFiles(train=tmp_path / "pairs.jsonl", unlabeled=foreign, cache=tmp_path / "cache")
    data.prepare_data()
    data.setup("fit")
    assert "question_ids" not in data._pool.column_names
