"""Which contents a data module stands for."""

import pytest

from attn_lightning.data import Blobs, Planted, PretrainedEmbeddings, RandomEmbeddings, TextFiles
from attn_lightning.data.revision import agree, located_revisions, recorded_revisions, revisions, same_files

EMBEDDINGS = RandomEmbeddings(4)


@pytest.fixture
def files(tmp_path):
    for name in ("train", "test", "pool"):
        (tmp_path / f"{name}.csv").write_text("text,label\ngood film,1\nbad film,0\n" * 20)

    def module(embeddings=EMBEDDINGS, **options):
        return TextFiles(train=tmp_path / "train.csv", test=tmp_path / "test.csv", embeddings=embeddings, **options)

    return module


def test_another_content_is_another_revision(files, tmp_path):
    before = revisions(files())
    assert before == revisions(files())
    with (tmp_path / "test.csv").open("a") as file:
        file.write("fine film,1\n")
    assert revisions(files()) != before


def test_the_manifest_of_a_run_says_the_same(files, tmp_path):
    data = files(cache=tmp_path / "cache")
    data.prepare_data()
    data.setup("fit")
    assert recorded_revisions(data.manifest) == revisions(data)


def test_data_that_is_made_has_a_revision_too():
    assert revisions(Planted(train_documents=8)) == revisions(Planted(train_documents=8))
    assert revisions(Planted(train_documents=8)) != revisions(Planted(train_documents=9))
    assert set(revisions(Blobs())) == {""}


def test_only_what_both_know_is_compared():
    then = {"source": {"revision": "a"}, "unlabeled": {"source": {"revision": "b"}}}
    assert same_files(then, {"": "a", "unlabeled": "b"})
    assert not same_files(then, {"": "a", "unlabeled": "c"})
    assert not same_files(then, {"": "c"})
    assert same_files(then, {})
    assert same_files(None, {"": "a"})


def test_data_of_another_package_has_none():
    assert revisions(object()) == {}


@pytest.fixture
def vectors(tmp_path):
    """Writes a file of word vectors with this number in it, and gives its path."""

    def write(number):
        path = tmp_path / "mine.vec"
        path.write_text(f"good 1 2\nbad 3 {number}\n")
        return path

    return write


def test_a_file_of_word_vectors_is_a_part_of_the_data(files, vectors, tmp_path):
    def module(number):
        return files(embeddings=PretrainedEmbeddings(vectors(number)), cache=tmp_path / "cache")

    before = revisions(module(4))
    assert before == revisions(module(4))
    after = revisions(module(5))
    assert {place for place in before if before[place] != after[place]} == {"embeddings"}
    data = module(6)
    data.prepare_data()
    data.setup("fit")
    assert data.spec.embedding_weights is not None
    assert recorded_revisions(data.manifest) == revisions(data) == revisions(module(6))
    assert data.manifest["embeddings"]["source"]["location"] == str(tmp_path / "mine.vec")


def test_texts_are_compared_where_the_vectors_are_not_there(files, tmp_path):
    assert set(revisions(files(embeddings=PretrainedEmbeddings(tmp_path / "gone.vec", 2)))) == {""}
    assert set(revisions(files(embeddings=RandomEmbeddings(2)))) == {""}


def test_runs_with_other_vectors_are_compared_by_what_they_share():
    def manifest(location, revision, texts="a"):
        source = {"location": location, "revision": revision}
        return {"source": {"location": "x", "revision": texts}, "embeddings": {"source": source}}

    one = located_revisions(manifest("glove.txt", "1"))
    assert agree(one, located_revisions(manifest("mine.vec", "2")))
    assert not agree(one, located_revisions(manifest("glove.txt", "2")))
    assert not agree(one, located_revisions(manifest("mine.vec", "2", texts="b")))
