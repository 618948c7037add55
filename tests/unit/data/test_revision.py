"""Which contents a data module stands for."""

import pytest

from attn_lightning.data import Blobs, Planted, RandomEmbeddings, TextFiles
from attn_lightning.data.revision import recorded_revisions, revisions, same_files

EMBEDDINGS = RandomEmbeddings(4)


@pytest.fixture
def files(tmp_path):
    for name in ("train", "test", "pool"):
        (tmp_path / f"{name}.csv").write_text("text,label\ngood film,1\nbad film,0\n" * 20)

    def module(**options):
        return TextFiles(train=tmp_path / "train.csv", test=tmp_path / "test.csv", embeddings=EMBEDDINGS, **options)

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
