"""Which labels are shown, what a pool holds, how batches are paired, what is refused, and flat memory."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average
from attn_lightning.callbacks.cost import CostMeter
from attn_lightning.data import BAbI, Planted, RandomEmbeddings, TextFiles
from attn_lightning.data.embeddings.base import Sentences
from attn_lightning.data.preparation import FORMAT
from attn_lightning.data.records import Columns
from attn_lightning.data.unlabeled import ForeignPool, LabelOptions
from attn_lightning.errors import ConfigurationError, DataFormatError
from attn_lightning.evaluation.control import control_metrics
from attn_lightning.methods import AttentionAT, AttentionIVAT, AttentionVAT, Method
from attn_lightning.module import AttentionModule
from attn_lightning.types import UNLABELED
from support.stories import stories

SMALL: dict[str, Any] = {
    "train_documents": 60,
    "validation_documents": 8,
    "test_documents": 8,
    "batch_size": 4,
}


def planted(tmp_path: Path, **options: Any) -> Planted:
    data = Planted(cache=tmp_path / "cache", embeddings=RandomEmbeddings(8), **{**SMALL, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def write_texts(path: Path, texts: list[str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    return path


@pytest.mark.parametrize("options", [{"fraction": 0.25}, {"per_class": 5}, {"fraction": 1e-6}, {}])
def test_labels_are_chosen_by_class_and_seed(options: dict[str, Any]) -> None:
    labels = np.repeat([0, 1, 2], [40, 20, 8])[np.random.default_rng(1).permutation(68)]
    rows = LabelOptions(**options).choose(labels)
    wanted = {0.25: [10, 5, 2], 1e-6: [1, 1, 1]}.get(options.get("fraction"), [40, 20, 8])
    assert np.bincount(labels[rows]).tolist() == ([5, 5, 5] if "per_class" in options else wanted)
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, LabelOptions(**options).choose(labels))
    if len(rows) < len(labels):
        assert not np.array_equal(rows, LabelOptions(**options, seed=3).choose(labels))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"labeled_fraction": 0.0}, "labeled_fraction"),
        ({"labeled_fraction": 1.5}, "labeled_fraction"),
        ({"labeled_fraction": 0.5, "labels_per_class": 3}, "labels_per_class"),
        ({"labels_per_class": 0}, "labels_per_class"),
        ({"label_seed": -1}, "label_seed"),
        ({"unlabeled_batch_size": 0}, "unlabeled_batch_size"),
        ({"epoch_of": "both"}, "epoch_of"),
        ({"unlabeled": "test"}, "unlabeled"),
        ({"vocabulary_of": "pool"}, "vocabulary_of"),
        ({"vocabulary_of": "train_and_pool", "unlabeled": "train"}, "unlabeled"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{name}`"):
        Planted(**options)


def test_more_labels_than_a_class_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="class 0 has 30"):
        planted(tmp_path, labels_per_class=31)


def test_a_fraction_without_a_pool_trains_on_those_rows_only(tmp_path: Path) -> None:
    data = planted(tmp_path, labels_per_class=3)
    seen = torch.cat([batch.rows for batch in data.train_dataloader()]).sort().values
    assert seen.tolist() == data.labeled_rows.tolist()
    assert data.manifest["labeled"]["classes"] == dict.fromkeys(data.label_names, 3)
    texts, labels = data.training_examples()
    assert texts == [data.text("train", row) for row in data.labeled_rows]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


def test_own_pool_holds_every_text_without_its_label(tmp_path: Path) -> None:
    data = planted(tmp_path, labeled_fraction=0.1, unlabeled="train", unlabeled_batch_size=7)
    loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    batches = [batch for batch, _, _ in loader]
    pool = [batch["unlabeled"] for batch in batches]
    assert sorted(torch.cat([batch.rows for batch in pool]).tolist()) == list(range(60))
    assert all((batch.labels == UNLABELED).all() and batch.rationale is None for batch in pool)
    assert {len(batch.rows) for batch in pool} <= {7, 4}
    assert set(torch.cat([batch["labeled"].rows for batch in batches]).tolist()) == set(data.labeled_rows.tolist())
    assert all((batch["labeled"].labels >= 0).all() for batch in batches)
    assert data.manifest["unlabeled"]["rows"] == 60


def test_an_epoch_is_a_pass_over_the_longer_or_the_shorter(tmp_path: Path) -> None:
    steps = {}
    for epoch_of in ("longer", "shorter"):
        data = planted(tmp_path, labels_per_class=4, unlabeled="train", epoch_of=epoch_of)
        steps[epoch_of] = len(list(data.train_dataloader()))
    assert steps == {"longer": 15, "shorter": 2}


def test_the_two_batches_of_a_step_are_not_the_same_rows(tmp_path: Path) -> None:
    loader = planted(tmp_path, unlabeled="train").train_dataloader()
    pairs = [(set(batch["labeled"].rows.tolist()), set(batch["unlabeled"].rows.tolist())) for batch, _, _ in loader]
    assert any(first != second for first, second in pairs)


def test_foreign_pool_is_encoded_as_the_task_and_needs_no_labels(tmp_path: Path) -> None:
    task = planted(tmp_path)
    texts = [task.text("train", row) for row in range(10)] + ["verdict unheard"]
    foreign = TextFiles(train=write_texts(tmp_path / "pool.csv", texts))
    data = planted(tmp_path, unlabeled=foreign, unlabeled_batch_size=11)
    ((batch, _, _), *_) = data.train_dataloader()
    pool = batch["unlabeled"]
    for row in range(10):
        place = int((pool.rows == row).nonzero())
        expected = task.dataset("train")["ids"][row]
        assert pool.tokens[place][pool.mask[place]].tolist() == list(expected)
    last = int((pool.rows == 10).nonzero())
    assert pool.tokens[last][pool.mask[last]].tolist() == [task.tokenizer.vocabulary.index("verdict"), 1]
    recorded = data.manifest["unlabeled"]
    assert (recorded["name"], recorded["rows"], recorded["batch_size"]) == ("files", 11, 11)
    assert 0 < recorded["unknown_share"] < 0.1
    json.dumps(data.manifest)


class Remembered(RandomEmbeddings):
    """Keeps the sentences it would be trained on."""

    def build(self, vocabulary: Sequence[str], sentences: Sentences, cache: Path, seed: int) -> torch.Tensor:
        self.read = list(sentences())
        return super().build(vocabulary, sentences, cache, seed)


def text_task(tmp_path: Path, **options: Any) -> TextFiles:
    """Four training texts, another split with a word of its own, and a pool of three texts."""
    contents = {
        "train": ["a fine film,0", "a fine day,1", "some film,0", "some day,1"],
        "validation": ["a secret film,0", "a day,1"],
        "test": ["a hidden film,0", "a day,1"],
    }
    for split, lines in contents.items():
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]), "utf-8")
    pool = TextFiles(train=write_texts(tmp_path / "pool.csv", ["a Rare film", "a rare day", "a single film"]))
    files = {split: tmp_path / f"{split}.csv" for split in contents}
    data = TextFiles(**files, cache=tmp_path / "cache", unlabeled=pool, **{"batch_size": 8, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def pool_words(data: TextFiles) -> list[list[str]]:
    ((batch, _, _), *_) = data.train_dataloader()
    pool, words = batch["unlabeled"], data.tokenizer.vocabulary
    order = pool.rows.argsort()
    return [[words[i] for i in pool.tokens[row][pool.mask[row]].tolist()] for row in order]


def test_words_of_a_foreign_pool_are_known_on_demand(tmp_path: Path) -> None:
    memory = Remembered(8)
    data = text_task(tmp_path, vocabulary_of="train_and_pool", embeddings=memory)
    rows = [["a", "rare", "film"], ["a", "rare", "day"], ["a", "single", "film"]]
    assert pool_words(data) == rows
    assert memory.read[-3:] == rows, "vectors are trained on the pool too"
    assert len(memory.read) == 7
    assert data.spec.embedding_weights is not None
    assert len(data.spec.embedding_weights) == len(data.tokenizer)
    expected = {word for text in [*data.texts("train"), "a rare single"] for word in text.split()}
    assert set(data.tokenizer.vocabulary[2:]) == expected, "no word of validation or test"
    assert data.manifest["unlabeled"]["unknown_share"] == 0.0
    assert data.digest != text_task(tmp_path).digest, "another vocabulary, another folder"


def test_words_of_both_count_for_the_least_number(tmp_path: Path) -> None:
    data = text_task(tmp_path, vocabulary_of="train_and_pool", min_count=2)
    assert set(data.tokenizer.vocabulary[2:]) == {"a", "fine", "film", "some", "day", "rare"}
    alone = text_task(tmp_path, embeddings=(memory := Remembered(8)))
    assert pool_words(alone) == [["a", "<unk>", "film"], ["a", "<unk>", "day"], ["a", "<unk>", "film"]]
    assert len(memory.read) == 4


def test_the_log_says_how_much_of_a_foreign_pool_is_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        text_task(tmp_path)
    # "rare" twice and "single" once, of nine words.
    assert "3 unlabelled ones of files, of whose words 33.3% are unknown" in caplog.text
    assert "`--data.vocabulary_of=train_and_pool` makes them known" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        text_task(tmp_path, vocabulary_of="train_and_pool")
    assert "3 unlabelled ones" in caplog.text
    assert "are unknown" not in caplog.text


def test_words_that_are_read_by_their_letters_are_known_in_a_pool_too(tmp_path: Path) -> None:
    data = text_task(tmp_path, unknown="keep")
    assert pool_words(data)[2] == ["a", "single", "film"]
    assert {"secret", "hidden"} < set(data.tokenizer.vocabulary)


def test_words_of_a_pool_count_where_the_task_has_words(tmp_path: Path) -> None:
    content = [{"tokens": ["a", "well-made", "film"], "label": 0}, {"tokens": ["a", "day"], "label": 1}]
    (tmp_path / "given.jsonl").write_text("\n".join(json.dumps(row) for row in content * 20), "utf-8")
    pool = TextFiles(train=write_texts(tmp_path / "pool.csv", ["a rare day, a film"]))
    given = tmp_path / "given.jsonl"
    data = TextFiles(
        train=given,
        test=given,
        tokens_column="tokens",
        unlabeled=pool,
        vocabulary_of="train_and_pool",
        embeddings=RandomEmbeddings(8),
        cache=tmp_path / "cache",
    )
    data.prepare_data()
    assert set(data.tokenizer.vocabulary[2:]) == {"a", "well-made", "film", "day", "rare", ","}


def test_max_examples_of_a_foreign_pool_takes_texts_from_all_over_the_file(tmp_path: Path) -> None:
    texts = [planted(tmp_path).text("train", row) for row in range(20)]
    foreign = TextFiles(train=write_texts(tmp_path / "pool.csv", texts), max_examples=4)
    rows = planted(tmp_path, unlabeled=foreign)._pool.data.column("text").to_pylist()
    assert [texts.index(text) // 5 for text in rows] == [0, 1, 2, 3]


def test_a_limited_pool_is_not_taken_for_the_first_texts_that_an_earlier_version_kept(tmp_path: Path) -> None:
    pool, keys = write_texts(tmp_path / "pool.csv", ["a verdict"]), []
    for most in (None, 4):
        found = ForeignPool.of(TextFiles(train=pool, max_examples=most), Columns(), known=False)
        columns = {"text": "text", "label": "label", "tokens": None, "annotations": [], "split_at_spaces": False}
        before = json.dumps([FORMAT, "task", found.data.source.revision, columns, most])
        keys.append(found.key("task") == hashlib.sha256(before.encode()).hexdigest())
    assert keys == [True, False]


def test_a_foreign_pool_is_cut_where_either_data_cuts(tmp_path: Path) -> None:
    words = planted(tmp_path).text("train", 0).split()
    pool = write_texts(tmp_path / "pool.csv", [" ".join(words)])
    found = {}
    for most in (0, 3, 2):
        data = planted(tmp_path, unlabeled=TextFiles(train=pool, max_length=most))
        ((batch, _, _), *_) = data.train_dataloader()
        found[most] = int(batch["unlabeled"].mask.sum())
    assert found == {0: len(words), 3: 3, 2: 2}


def test_a_text_of_a_pool_need_not_name_the_class_that_stands_for_its_label(tmp_path: Path) -> None:
    root = stories(tmp_path / "one")
    other = BAbI(root=stories(tmp_path / "two", seed=1))
    data = BAbI(root=root, unlabeled=other, cache=tmp_path / "cache", embeddings=RandomEmbeddings(8))
    data.prepare_data()
    data.setup("fit")
    ((batch, _, _), *_) = data.train_dataloader()
    # Behind every second text two of six places can be the answer.
    assert {len(row[row > 0]) for row in batch["unlabeled"].tokens[:, -6:]} <= {1, 2}


def test_a_pool_of_another_language_is_refused_with_the_share(tmp_path: Path) -> None:
    texts = ["nessuna di queste parole", "verdict forse un poco", "ancora parole"]
    with pytest.raises(ConfigurationError, match=r"90% of the words of files"):
        planted(tmp_path, unlabeled=TextFiles(train=write_texts(tmp_path / "pool.csv", texts)))


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="empty"):
        planted(tmp_path, unlabeled=TextFiles(train=write_texts(tmp_path / "pool.csv", [])))


def fit(tmp_path: Path, method: Method | None, **options: Any) -> tuple[CostMeter, Planted]:
    data = Planted(cache=tmp_path / "cache", embeddings=RandomEmbeddings(8), **{**SMALL, **options})
    module, meter = AttentionModule(lambda spec: AttentionClassifier(spec, encoder=Average)), CostMeter()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[meter, *([method] if method else [])],
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=data)
    return meter, data


def test_training_uses_the_pool_and_counts_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, loss = [], AttentionVAT.loss
    monkeypatch.setattr(AttentionVAT, "loss", lambda self, step: seen.append(step) or loss(self, step))
    meter, data = fit(tmp_path, AttentionVAT(), labels_per_class=2, unlabeled="train")
    assert len(seen) == 15
    assert all(step.unlabeled_output.logits.shape[0] == len(step.unlabeled.rows) for step in seen)
    tokens = sum(int(step.batch.mask.sum() + step.unlabeled.mask.sum()) for step in seen)
    assert meter.cost(torch.device("cpu"))["train_tokens"] == tokens
    assert sum(int(step.unlabeled.mask.sum()) for step in seen) == data.manifest["splits"]["train"]["tokens"]


@pytest.mark.parametrize("method", [None, AttentionAT(), AttentionIVAT(weight=0.0)])
def test_a_pool_that_no_method_uses_costs_nothing_and_is_named(
    method: Method | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter, data = fit(tmp_path, method, labels_per_class=2, unlabeled="train")
    assert "the texts of `data.unlabeled` are ignored" in caplog.text
    # The four labelled texts come around in each of the fifteen steps of a pass over the pool.
    longest = 4 * 15 * max(data.examples("train").lengths)
    assert 0 < meter.cost(torch.device("cpu"))["train_tokens"] <= longest


def test_the_linear_control_sees_the_shown_labels_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(
        "attn_lightning.evaluation.control.tfidf_logistic_regression",
        lambda train, test, num_classes: sizes.append(len(train[0])) or {"accuracy": 0.5},
    )
    for options in ({}, {"labels_per_class": 2}, {"labels_per_class": 2}):
        control_metrics(planted(tmp_path, **options))
    assert sizes == [60, 4]


def anonymous_memory() -> int:
    """Resident memory in KiB that is not a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to tell mapped from own memory")
def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    words = [planted(tmp_path).tokenizer.vocabulary[2 + index] for index in range(50)]
    text = " ".join(words * 2)
    growth = []
    for count in (1000, 1000, 10_000):  # the first is a warm-up of libraries and allocators
        path = write_texts(tmp_path / f"{count}{len(growth)}.csv", [text] * count)
        before = anonymous_memory()
        data = planted(tmp_path, unlabeled=TextFiles(train=path))
        for _ in data.train_dataloader():
            pass
        growth.append(anonymous_memory() - before)
    # A million words of ids and offsets are 12 MB, and their text another 6; what is kept is 20 bytes per text.
    assert growth[2] - growth[1] < 6_000, growth
