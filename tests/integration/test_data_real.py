"""The real data sets, as the published protocols count them."""

import hashlib
import resource

import pytest
from sklearn.feature_extraction.text import CountVectorizer

from attn_lightning.data.corpora import AG, IMDB, SST, HateXplain, Movies, News
from attn_lightning.data.embeddings import RandomEmbeddings

pytestmark = pytest.mark.real_data


@pytest.fixture
def options(real_data_root, tmp_path):
    return {"root": real_data_root, "cache": tmp_path, "embeddings": RandomEmbeddings(4)}


def prepared(module):
    module.prepare_data()
    module.setup()
    return module


def sizes(module):
    return tuple(module.manifest["splits"][split]["rows"] for split in ("train", "validation", "test"))


def test_sst_as_published(options):
    module = prepared(SST(**options, protocol="jain_wallace"))
    assert sizes(module) == (6355, 821, 1725)
    # The same words, counted by another library.
    vectorizer = CountVectorizer(token_pattern=r"\b\w+\b", preprocessor=lambda text: text.lower())
    words = vectorizer.fit(module.texts("train")).vocabulary_
    merged = {"0" if any(map(str.isdigit, word)) else word for word in words} - {"lrb", "rrb"}
    assert set(module.tokenizer.vocabulary[2:]) == merged


def test_sst_official(options):
    module = prepared(SST(**options))
    assert sizes(module) == (6920, 872, 1821)
    assert module.manifest["splits"]["test"]["classes"] == {"negative": 912, "positive": 909}
    row = module.dataset("train")[0]
    assert len(row["token_sentiment"]) == len(row["ids"]) == len(row["text"].split(" "))
    whole = hashlib.sha256()
    for row in module.dataset("validation"):
        whole.update(str(row["label"]).encode() + hashlib.sha256(row["text"].encode()).digest())
    assert whole.hexdigest() == module.manifest["splits"]["validation"]["sha256"]


@pytest.mark.parametrize(("protocol", "expected"), [("official", (928, 232, 773)), ("jain_wallace", (1116, 285, 349))])
def test_news(options, protocol, expected):
    assert sizes(prepared(News(**options, protocol=protocol))) == expected


def test_ag(options):
    module = prepared(AG(**options))
    assert module.manifest["splits"]["test"]["classes"] == {"World": 1900, "Business": 1900}


def test_rationales(options):
    module = prepared(Movies(**options))
    share = sum(batch.rationale.sum() for batch in module.test_dataloader()) / sum(
        batch.mask.sum() for batch in module.test_dataloader()
    )
    assert 0.29 < share < 0.33
    module = prepared(HateXplain(**options))
    absent = sum((~batch.has_rationale).sum() for batch in module.train_dataloader())
    assert absent == 6054


@pytest.mark.slow
def test_imdb(options):
    module = prepared(IMDB(**options))
    assert sizes(module) == (20_000, 5_000, 25_000)
    content = module.manifest["splits"]
    assert content["test"]["overlap"] + content["validation"]["overlap"] > 0
    assert content["train"]["longest"] == 400
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for batch in module.train_dataloader():
        assert batch.tokens.shape[1] <= 400
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "kilobytes; the mapped ids alone are 20 MB"
