"""Which contents a data module stands for."""

import json

import pytest

from attn_lightning.backbone.published import ENCODER
from attn_lightning.data import SST, Blobs, Planted, PretrainedEmbeddings, RandomEmbeddings, TextFiles, sources
from attn_lightning.data.revision import (
    Version,
    agree,
    changed_models,
    located_revisions,
    model_option,
    model_place,
    recorded_revisions,
    revisions,
    same_files,
    without_models,
)

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
    assert recorded_revisions({"data": data.manifest}) == revisions(data)


def test_data_that_is_made_has_a_revision_too():
    assert revisions(Planted(train_documents=8)) == revisions(Planted(train_documents=8))
    assert revisions(Planted(train_documents=8)) != revisions(Planted(train_documents=9))
    assert set(revisions(Blobs())) == {""}


def test_only_what_both_know_is_compared():
    then = {"data": {"source": {"revision": "a"}, "unlabeled": {"source": {"revision": "b"}}}}
    a, b, c = map(Version, "abc")
    assert same_files(then, {"": a, "unlabeled": b})
    assert not same_files(then, {"": a, "unlabeled": c})
    assert not same_files(then, {"": c})
    assert same_files(then, {})
    assert same_files({}, {"": a})


TEXTS = ["good film", "bad film"] * 20


@pytest.fixture
def sst(tmp_path, monkeypatch):
    """The data set of this kind with these training texts, and its cache of prepared data."""
    monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)

    def module(kind, cache, texts=TEXTS):
        rows = {
            split: [{"text": text, "label": row % 2} for row, text in enumerate(texts if split == "train" else TEXTS)]
            for split in sources.SPLITS
        }
        monkeypatch.setattr(sources, "download", lambda hub, name: rows)
        root = tmp_path / "data" if kind == "folder" else None
        if root is not None:
            (root / "sst2").mkdir(parents=True, exist_ok=True)
            for split, content in rows.items():
                (root / "sst2" / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content))
        return SST(root=root, cache=tmp_path / cache, embeddings=EMBEDDINGS)

    return module


@pytest.mark.parametrize(("here", "there"), [("folder", "hub"), ("hub", "folder")])
def test_copies_of_two_kinds_are_compared_by_the_texts_that_they_hold(sst, here, there):
    data = sst(here, "here")
    data.prepare_data()
    same = sst(there, "there")
    assert same_files({"data": data.manifest}, revisions(same)), (
        "nothing is known of its texts before they are prepared"
    )
    same.prepare_data()
    assert revisions(same)[""].splits
    assert same_files({"data": data.manifest}, revisions(same))
    assert agree(located_revisions({"data": data.manifest}), located_revisions({"data": same.manifest}))
    other = sst(there, "elsewhere", [*TEXTS, "fine film"])
    other.prepare_data()
    assert not same_files({"data": data.manifest}, revisions(other))
    assert not agree(located_revisions({"data": data.manifest}), located_revisions({"data": other.manifest}))


def test_another_folder_is_other_data_whatever_its_texts(sst, tmp_path):
    data = sst("folder", "here")
    data.prepare_data()
    path = tmp_path / "data" / "sst2" / "train.jsonl"
    # A mark of a word, say, which is no part of the texts.
    path.write_text("".join(f'{{"more": 1, {line[1:]}\n' for line in path.read_text().splitlines()))
    changed = SST(root=tmp_path / "data", cache=tmp_path / "there", embeddings=EMBEDDINGS)
    changed.prepare_data()
    assert changed.manifest["splits"] == data.manifest["splits"]
    assert not same_files({"data": data.manifest}, revisions(changed))


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
    assert recorded_revisions({"data": data.manifest}) == revisions(data) == revisions(module(6))
    assert data.manifest["embeddings"]["source"]["location"] == str(tmp_path / "mine.vec")


def test_texts_are_compared_where_the_vectors_are_not_there(files, tmp_path):
    assert set(revisions(files(embeddings=PretrainedEmbeddings(tmp_path / "gone.vec", 2)))) == {""}
    assert set(revisions(files(embeddings=RandomEmbeddings(2)))) == {""}


def test_runs_with_other_vectors_are_compared_by_what_they_share():
    def manifest(location, revision, texts="a"):
        source = {"location": location, "revision": revision}
        return {"data": {"source": {"location": "x", "revision": texts}, "embeddings": {"source": source}}}

    one = located_revisions(manifest("glove.txt", "1"))
    assert agree(one, located_revisions(manifest("mine.vec", "2")))
    assert not agree(one, located_revisions(manifest("glove.txt", "2")))
    assert not agree(one, located_revisions(manifest("mine.vec", "2", texts="b")))


def test_a_model_that_a_method_begins_from_has_a_place_of_its_own():
    def record(revision, **location):
        texts = {"location": "x", "revision": "a"}
        return {"data": {"source": texts}, "models": {"teacher_checkpoint": {"revision": revision, **location}}}

    place, a, one, two = model_place("teacher_checkpoint"), *map(Version, "a12")
    assert recorded_revisions(record("1")) == {"": a, place: one}
    assert same_files(record("1"), {"": a, place: one})
    assert not same_files(record("1"), {"": a, place: two})
    assert (model_option(place), model_option("")) == ("teacher_checkpoint", None)
    encoder = model_place(ENCODER)
    assert without_models({"": a, place: one, encoder: two}, ["teacher_checkpoint"]) == {"": a, encoder: two}
    assert changed_models(record("1"), record("2")) == ["teacher_checkpoint"]
    assert changed_models(record("1"), record("1")) == changed_models({}, record("1")) == []
    # Two seeds may begin from two models; without a location nobody knows whether it is one.
    first = located_revisions(record("1", location="a.ckpt"))
    assert agree(first, located_revisions(record("2", location="b.ckpt")))
    assert not agree(first, located_revisions(record("2", location="a.ckpt")))
    assert agree(located_revisions(record("1")), located_revisions(record("2")))
