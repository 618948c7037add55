"""The data sets by name, on invented texts in the folders and columns of the real ones."""

import os

import pytest

from attn_lightning.data.corpora import AG, IMDB, MR, SST, News, Subj, TextFiles
from attn_lightning.data.text import TextTokenizer
from attn_lightning.errors import ConfigurationError


@pytest.fixture
def corpora(tmp_path, rows, write):
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


def test_sst_keeps_the_words_and_their_sentiment(corpora, prepared):
    module = prepared(SST(**corpora))
    row = module.dataset("test")[0]
    assert module.tokenizer.words(row["text"], module.offsets("test", 0)) == row["text"].split()
    assert row["token_sentiment"] == [2] * len(row["ids"])


def test_sst_protocol_drops_the_short_and_the_longest(corpora, rows, prepared):
    module = prepared(SST(**corpora, protocol="jain_wallace"))
    lengths = [len(row["ids"]) for row in module.dataset("train")]
    everything = TextTokenizer(["<pad>", "<unk>"], module.tokenizer.options).count_words(
        [row["text"] for row in rows(20)]
    )
    assert sorted(lengths) == sorted(x for x in everything if 5 < x < max(everything))
    assert module.manifest["protocol"] == "jain_wallace"


def test_imdb_protocol_leaves_long_reviews_out(corpora, rows, write, prepared):
    long = [{"text": "dull " * 450, "label": 0}, {"text": "warm " * 450, "label": 1}]
    write(corpora["root"] / "imdb/test.jsonl", [*rows(40), *long])
    assert prepared(IMDB(**corpora)).manifest["splits"]["test"]["truncated"] == 2
    assert prepared(IMDB(**corpora, protocol="jain_wallace")).manifest["splits"]["test"]["filtered"] >= 2
    assert prepared(IMDB(**corpora)).manifest["splits"]["validation"]["rows"] == 16


def test_news_protocol_pools_and_splits_anew(corpora, prepared):
    module = prepared(News(**{**corpora, "min_length": 0}, protocol="jain_wallace"))
    sizes = {name: part["rows"] for name, part in module.manifest["splits"].items()}
    assert sizes == {"train": 76, "validation": 20, "test": 24}


def test_ag_keeps_two_of_four_classes(corpora, rows, prepared):
    module = prepared(AG(**corpora))
    assert module.label_names == ("World", "Business")
    assert module.manifest["splits"]["test"]["classes"] == {"World": 10, "Business": 10}
    protocol = prepared(AG(**corpora, protocol="jain_wallace"))
    assert protocol.text("test", 0) == rows(1)[0]["text"][5:]
    assert protocol.manifest["notes"] == []


def test_ag_keeps_all_four_classes_if_asked(corpora, prepared):
    module = prepared(AG(**corpora, num_classes=4))
    assert module.manifest["splits"]["test"]["classes"] == {"World": 10, "Sports": 10, "Business": 10, "Sci/Tech": 10}
    with pytest.raises(ConfigurationError, match="`num_classes` to be 2 or 4, but got 3"):
        AG(**corpora, num_classes=3)


@pytest.mark.parametrize(("corpus", "classes"), [(MR, ("negative", "positive")), (Subj, ("subjective", "objective"))])
def test_sentences_that_are_cut_keep_their_words(corpora, write, prepared, corpus, classes):
    rows = [{"text": f"it's well-made {place} .", "label": place % 2} for place in range(20)]
    for split in ("train", "validation", "test"):
        write(corpora["root"] / corpus.corpus / f"{split}.jsonl", rows)
    module = prepared(corpus(**corpora))
    assert module.label_names == classes
    text = module.dataset("test")[0]["text"]
    assert module.tokenizer.words(text, module.offsets("test", 0)) == ["it's", "well-made", "0", "."]


def test_ag_without_descriptions_says_so(corpora, rows, write, prepared):
    write(corpora["root"] / "ag_news/train.jsonl", [{**row, "label": place % 4} for place, row in enumerate(rows(80))])
    module = prepared(AG(**corpora, protocol="jain_wallace"))
    assert module.text("test", 0) == rows(1)[0]["text"]
    assert "whole text" in module.manifest["notes"][0]


def test_the_environment_names_the_root(corpora, monkeypatch, prepared):
    monkeypatch.setenv("ATTN_LIGHTNING_DATA", str(corpora["root"]))
    assert prepared(SST(cache=corpora["cache"])).manifest["source"]["location"] == os.fspath(corpora["root"] / "sst2")


def test_a_rationale_needs_words(files):
    with pytest.raises(ConfigurationError, match="tokens_column"):
        TextFiles(**files, rationale_column="why")


def test_a_validation_file_is_taken_as_it_is(files, tmp_path, rows, write, prepared):
    module = prepared(TextFiles(**files, validation=write(tmp_path / "v.jsonl", rows(4, seed=2))))
    assert len(module.dataset("validation")) == 4
    assert len(module.dataset("train")) == 80
