import json
import logging
import multiprocessing
import os

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from attn_lightning.data.cache import default_cache
from attn_lightning.data.corpora import AG, IMDB, SST, News, TextFiles
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError, DataFormatError

GOOD, BAD = ["bright", "warm", "lovely"], ["dull", "cold", "grim"]


def rows(count, seed=0):
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        words = generator.choice(GOOD if number % 2 else BAD, generator.integers(2, 9)).tolist()
        made.append({"text": f"It's a {' '.join(words)} day {number}.", "label": number % 2})
    return made


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in content), "utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return {
        "train": write(tmp_path / "train.jsonl", rows(80)),
        "test": write(tmp_path / "test.jsonl", rows(21, seed=1)),
        "cache": tmp_path / "cache",
        "embeddings": RandomEmbeddings(8),
    }


def prepared(module):
    module.prepare_data()
    module.setup()
    return module


class Counting(RandomEmbeddings):
    builds = 0

    def build(self, *arguments):
        type(self).builds += 1
        return super().build(*arguments)


def test_word_vectors_can_be_left_to_the_checkpoint(files):
    module = TextFiles(**{**files, "embeddings": Counting(8)})
    module.makes_word_vectors = False
    spec = prepared(module).spec
    assert Counting.builds == 0
    assert spec.embedding_weights is None
    assert (spec.vocabulary_size, spec.embedding_size) == (len(module.tokenizer), 8)
    module.makes_word_vectors = True
    assert module.spec.embedding_weights.shape == (len(module.tokenizer), 8)
    assert Counting.builds == 1


def test_from_files_to_batches(files):
    module = prepared(TextFiles(**files, batch_size=16, eval_batch_size=8))
    assert module.spec.num_classes == 2
    assert module.spec.vocabulary_size == len(module.tokenizer)
    assert module.spec.embedding_weights.shape == (len(module.tokenizer), 8)
    assert module.label_names == ("0", "1")
    seen = torch.cat([batch.rows for batch in module.test_dataloader()])
    assert sorted(seen.tolist()) == list(range(21))
    assert sum(len(batch.rows) for batch in module.train_dataloader()) == 72
    for batch in module.val_dataloader():
        for row, tokens, mask, label in zip(batch.rows, batch.tokens, batch.mask, batch.labels, strict=True):
            words = module.tokenizer.words(module.text("validation", row), module.offsets("validation", row))
            again = module.tokenizer.encode_batch([module.text("validation", row)])
            known = [module.tokenizer.vocabulary[index] for index in tokens[mask]]
            assert all(b in (a.lower(), "<unk>") for a, b in zip(words, known, strict=True))
            assert again.ids[0].tolist() == tokens[mask].tolist()
            assert module.dataset("validation")[int(row)]["label"] == label


def test_vocabulary_comes_from_the_training_part_only(files):
    write(files["test"], [{"text": "neverseen word", "label": 0}, {"text": "a day", "label": 1}])
    module = prepared(TextFiles(**files))
    words = set(module.tokenizer.vocabulary)
    assert "neverseen" not in words
    held_out = {word for text in module.texts("validation") for word in text.split() if word.endswith(".")}
    assert not {word.rstrip(".") for word in held_out} & words


def test_validation_is_cut_as_scikit_learn_cuts_it(files):
    module = prepared(TextFiles(**files, validation_fraction=0.25, split_seed=7))
    labels = [row["label"] for row in rows(80)]
    _, wanted = train_test_split(np.arange(80), test_size=0.25, random_state=7, stratify=labels)
    assert module.texts("validation") == [rows(80)[place]["text"] for place in sorted(wanted)]
    assert module.manifest["splits"]["validation"]["classes"] == {"0": 10, "1": 10}
    assert module.manifest["recipe"]["split_seed"] == 7


def test_a_validation_file_is_taken_as_it_is(files, tmp_path):
    module = prepared(TextFiles(**files, validation=write(tmp_path / "v.jsonl", rows(4, seed=2))))
    assert len(module.dataset("validation")) == 4
    assert len(module.dataset("train")) == 80


def test_manifest(files):
    write(files["test"], [*rows(3), {"text": "", "label": 0}, {"text": "zzz qqq", "label": 1}])
    module = prepared(TextFiles(**files, max_length=5, min_count=2, validation_fraction=0.5))
    manifest = module.manifest
    assert json.loads(json.dumps(manifest)) == manifest
    test = manifest["splits"]["test"]
    assert test["rows"] == 5
    assert test["classes"] == {"0": 3, "1": 2}
    assert test["unknown"] == 2
    assert test["truncated"] == 3
    assert test["longest"] == 5
    assert test["overlap"] == sum(row["text"] in module.texts("train") for row in rows(3))
    assert len(test["sha256"]) == 64
    assert manifest["vocabulary_size"] == len(module.tokenizer)
    assert manifest["source"]["kind"] == "files"


def test_the_digest_is_of_the_content_not_of_the_format(files, tmp_path):
    import csv

    with (tmp_path / "same.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows(80))
    first, second = (
        prepared(TextFiles(**{**files, "train": path})) for path in (files["train"], tmp_path / "same.csv")
    )
    assert first.manifest["splits"]["train"]["sha256"] == second.manifest["splits"]["train"]["sha256"]


def test_lengths_are_filtered_and_counted(files):
    module = prepared(TextFiles(**files, min_length=10))
    for split in ("train", "validation", "test"):
        assert all(count >= 10 for count in TextTokenizer(["<pad>", "<unk>"]).count_words(module.texts(split)))
    content = module.manifest["splits"]
    assert sum(part["rows"] + part["filtered"] for part in content.values()) == 101
    with pytest.raises(DataFormatError, match="min_length"):
        prepared(TextFiles(**files, min_length=1000))


def test_a_very_long_text_is_cut_off_and_logged(files, caplog):
    write(files["test"], [{"text": "dull " * 100_000, "label": 0}, {"text": "warm", "label": 1}])
    with caplog.at_level(logging.INFO):
        module = prepared(TextFiles(**files, max_length=50))
    assert "test: 2 texts, 1 cut off" in caplog.text
    assert module.manifest["splits"]["test"]["longest"] == 50


def test_a_subset_for_quick_runs_keeps_the_shares(files):
    module = prepared(TextFiles(**files, max_examples=20))
    assert module.manifest["splits"]["train"]["classes"] == {"0": 10, "1": 10}
    assert len(module.dataset("test")) == 21
    fewer = prepared(TextFiles(**files, max_test_examples=8))
    assert fewer.manifest["splits"]["test"]["rows"] == len(fewer.dataset("test")) == 8
    assert max(fewer.manifest["splits"]["test"]["classes"].values()) <= 5
    assert len(fewer.dataset("train")) > 20
    assert fewer.manifest["splits"]["test"] != prepared(TextFiles(**files)).manifest["splits"]["test"]


@pytest.mark.parametrize("unknown", ["token", "drop"])
def test_rationales_stay_with_their_words(files, tmp_path, unknown):
    def marked(words, marks):
        return {"words": words, "label": marks is None, "why": marks}

    train = [marked(["a", "b", "c"], [0, 1, 0]), marked(["c", "b", "a"], None)] * 10
    test = [marked(["x", "b", "a", "c"], [1, 1, 0, 1]), marked(["y"], None)]
    write(files["train"], train)
    write(files["test"], test)
    columns = {"tokens_column": "words", "rationale_column": "why"}
    module = prepared(TextFiles(**files, **columns, unknown=unknown, max_length=3))
    (batch,) = module.test_dataloader()
    order = batch.rows.argsort()
    marks, has, tokens = batch.rationale[order], batch.has_rationale[order], batch.tokens[order]
    assert has.tolist() == [True, False]
    assert marks[0].tolist() == ([True, True, False] if unknown == "token" else [True, False, True])
    assert not marks[1].any()
    assert tokens[1].tolist() == [1, 0, 0]
    expected = ["x", "b", "a"] if unknown == "token" else ["b", "a", "c"]
    assert module.tokenizer.words(module.text("test", 0), module.offsets("test", 0)) == expected


def test_a_second_start_reads_the_cache_only(files, monkeypatch):
    first = prepared(TextFiles(**files))
    monkeypatch.setattr(TextTokenizer, "train", None)
    second = prepared(TextFiles(**files))
    assert second.dataset("train").data.column("ids").equals(first.dataset("train").data.column("ids"))
    assert len(list((files["cache"]).glob("files-*"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"min_count": 2},
        {"max_length": 3},
        {"lowercase": False},
        {"digits": "merge"},
        {"unknown": "drop"},
        {"split_seed": 1},
    ],
)
def test_other_options_and_other_content_are_prepared_anew(files, change):
    prepared(TextFiles(**files))
    prepared(TextFiles(**files, **change))
    assert len(list((files["cache"]).glob("files-*"))) == 2
    write(files["train"], rows(82))
    assert len(prepared(TextFiles(**files)).dataset("train")) == 73


@pytest.mark.parametrize("name", ["train.arrow", "tokenizer.json", "manifest.json"])
def test_a_damaged_cache_is_made_again_and_logged(files, name, caplog):
    first = prepared(TextFiles(**files))
    (folder,) = files["cache"].glob("files-*")
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    second = prepared(TextFiles(**files))
    assert "is damaged" in caplog.text
    assert second.texts("train") == first.texts("train")
    assert [path.name for path in files["cache"].iterdir()] == [folder.name]


def _prepare(files, barrier, queue):
    barrier.wait()
    queue.put(prepared(TextFiles(**files)).manifest["splits"]["train"]["sha256"])


def test_processes_that_prepare_at_the_same_time(files):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_prepare, args=(files, barrier, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {prepared(TextFiles(**files)).manifest["splits"]["train"]["sha256"]}
    assert len(list(files["cache"].iterdir())) == 1


def test_a_failed_preparation_leaves_nothing(files):
    write(files["test"], [{"text": "a", "label": "x"}])
    with pytest.raises(DataFormatError):
        TextFiles(**files).prepare_data()
    assert list(files["cache"].iterdir()) == []


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ([{"text": "a", "label": 0}, {"text": "b", "label": 2}], r"label out of 0, 1 .* got 2 in test\.jsonl, line 2"),
        ([{"text": "a", "label": 0}], "two classes in the test split"),
        ([], "empty file"),
        ([{"content": "a", "label": 0}], "'content', 'label'"),
    ],
)
def test_bad_splits(files, test, message):
    write(files["test"], test)
    with pytest.raises(DataFormatError, match=message):
        TextFiles(**files).prepare_data()


def test_string_labels_take_their_declared_order(files):
    for split in ("train", "test"):
        write(files[split], [{**row, "label": ["down", "up"][row["label"]]} for row in rows(20)])
    assert prepared(TextFiles(**files)).label_names == ("down", "up")
    module = prepared(TextFiles(**files, label_names=["up", "down"]))
    assert module.label_names == ("up", "down")
    assert module.dataset("test")["label"][:2] == [1, 0]


def test_too_few_examples_to_cut_a_validation_split(files):
    write(files["train"], rows(2))
    with pytest.raises(DataFormatError, match="validation_fraction"):
        TextFiles(**files).prepare_data()


def test_a_rationale_needs_words(files):
    with pytest.raises(ConfigurationError, match="tokens_column"):
        TextFiles(**files, rationale_column="why")


def test_without_a_test_file_testing_is_refused(files):
    module = prepared(TextFiles(**{**files, "test": None}))
    with pytest.raises(ConfigurationError, match="train, validation, but got 'test'"):
        module.test_dataloader()


def test_before_setup_it_says_what_to_call(files):
    with pytest.raises(ConfigurationError, match=r"prepare_data\(\)"):
        _ = TextFiles(**files).tokenizer
    with pytest.raises(ConfigurationError, match=r"prepare_data\(\)"):
        TextFiles(**files).setup()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"min_count": 0},
        {"min_length": -1},
        {"max_length": -1},
        {"validation_fraction": 1.0},
        {"validation_fraction": 0.0},
        {"split_seed": -1},
        {"token_budget": 0},
        {"max_examples": 0},
        {"max_test_examples": 0},
        {"num_workers": -1},
    ],
)
def test_options_out_of_range(files, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        TextFiles(**files, **options)


def test_batches_follow_the_seed(files, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    module = prepared(TextFiles(**files, batch_size=4))

    def order(seed):
        torch.manual_seed(seed)
        return [batch.rows.tolist() for batch in module.train_dataloader()]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_workers_give_the_same_batches(files):
    alone, workers = (
        [batch.tokens for batch in prepared(TextFiles(**files, num_workers=count)).val_dataloader()] for count in (0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(alone, workers, strict=True))


def test_embeddings_see_the_training_words(files):
    heard = []

    class Listening(RandomEmbeddings):
        def build(self, vocabulary, sentences, cache, seed):
            heard.extend(sentences())
            return super().build(vocabulary, sentences, cache, seed)

    module = prepared(TextFiles(**{**files, "embeddings": Listening(4)}))
    encoded = module.tokenizer.encode_batch(module.texts("train")).ids
    assert heard == [[module.tokenizer.vocabulary[index] for index in ids] for ids in encoded]


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path / "a"))
    assert default_cache() == tmp_path / "a"
    monkeypatch.delenv("ATTN_LIGHTNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "b" / "attn_lightning"


@pytest.fixture
def corpora(tmp_path):
    """Invented texts in the folders and columns of the real data sets."""
    names = ("rec.sport.baseball", "rec.sport.hockey")
    for split, count in (("train", 80), ("test", 40)):
        write(tmp_path / "root/imdb" / f"{split}.jsonl", rows(count))
        write(
            tmp_path / "root/20news_sports" / f"{split}.jsonl",
            [{**row, "label_name": names[row["label"]]} for row in rows(count)],
        )
        ag = [{**row, "label": place % 4, "description": row["text"][5:]} for place, row in enumerate(rows(count))]
        write(tmp_path / "root/ag_news" / f"{split}.jsonl", ag)
    for split in ("train", "validation", "test"):
        sst = [{**row, "token_sentiment": [2] * len(row["text"].split())} for row in rows(20)]
        write(tmp_path / "root/sst2" / f"{split}.jsonl", sst)
    return {"root": tmp_path / "root", "cache": tmp_path / "cache", "min_count": 1}


def test_sst_keeps_the_words_and_their_sentiment(corpora):
    module = prepared(SST(**corpora))
    row = module.dataset("test")[0]
    assert module.tokenizer.words(row["text"], module.offsets("test", 0)) == row["text"].split()
    assert row["token_sentiment"] == [2] * len(row["ids"])


def test_sst_protocol_drops_the_short_and_the_longest(corpora):
    module = prepared(SST(**corpora, protocol="jain_wallace"))
    lengths = [len(row["ids"]) for row in module.dataset("train")]
    everything = TextTokenizer(["<pad>", "<unk>"], module.tokenizer.options).count_words(
        [row["text"] for row in rows(20)]
    )
    assert sorted(lengths) == sorted(x for x in everything if 5 < x < max(everything))
    assert module.manifest["protocol"] == "jain_wallace"


def test_imdb_protocol_leaves_long_reviews_out(corpora):
    long = [{"text": "dull " * 450, "label": 0}, {"text": "warm " * 450, "label": 1}]
    write(corpora["root"] / "imdb/test.jsonl", [*rows(40), *long])
    assert prepared(IMDB(**corpora)).manifest["splits"]["test"]["truncated"] == 2
    assert prepared(IMDB(**corpora, protocol="jain_wallace")).manifest["splits"]["test"]["filtered"] >= 2
    assert prepared(IMDB(**corpora)).manifest["splits"]["validation"]["rows"] == 16


def test_news_protocol_pools_and_splits_anew(corpora):
    module = prepared(News(**{**corpora, "min_length": 0}, protocol="jain_wallace"))
    sizes = {name: part["rows"] for name, part in module.manifest["splits"].items()}
    assert sizes == {"train": 76, "validation": 20, "test": 24}


def test_ag_keeps_two_of_four_classes(corpora):
    module = prepared(AG(**corpora))
    assert module.label_names == ("World", "Business")
    assert module.manifest["splits"]["test"]["classes"] == {"World": 10, "Business": 10}
    protocol = prepared(AG(**corpora, protocol="jain_wallace"))
    assert protocol.text("test", 0) == rows(1)[0]["text"][5:]
    assert protocol.manifest["notes"] == []


def test_ag_without_descriptions_says_so(corpora):
    write(corpora["root"] / "ag_news/train.jsonl", [{**row, "label": place % 4} for place, row in enumerate(rows(80))])
    module = prepared(AG(**corpora, protocol="jain_wallace"))
    assert module.text("test", 0) == rows(1)[0]["text"]
    assert "whole text" in module.manifest["notes"][0]


def test_the_environment_names_the_root(corpora, monkeypatch):
    monkeypatch.setenv("ATTN_LIGHTNING_DATA", str(corpora["root"]))
    assert prepared(SST(cache=corpora["cache"])).manifest["source"]["location"] == os.fspath(corpora["root"] / "sst2")
