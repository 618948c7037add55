"""Prepared data is made once, whole, and by one process."""

import multiprocessing
import time

import pytest

from attn_lightning.data import datamodule
from attn_lightning.data.cache import default_cache
from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.embeddings import PretrainedEmbeddings, pretrained
from attn_lightning.data.text import TextTokenizer


def test_a_second_start_reads_the_cache_only(files, monkeypatch, prepared):
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
def test_other_options_and_other_content_are_prepared_anew(files, change, rows, write, prepared):
    prepared(TextFiles(**files))
    prepared(TextFiles(**files, **change))
    assert len(list((files["cache"]).glob("files-*"))) == 2
    write(files["train"], rows(82))
    assert len(prepared(TextFiles(**files)).dataset("train")) == 73


@pytest.mark.parametrize("name", ["train.arrow", "tokenizer.json", "manifest.json"])
def test_a_damaged_cache_is_made_again_and_logged(files, name, caplog, prepared):
    first = prepared(TextFiles(**files))
    (folder,) = files["cache"].glob("files-*")
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    second = prepared(TextFiles(**files))
    assert "is damaged" in caplog.text
    assert second.texts("train") == first.texts("train")
    assert [path.name for path in files["cache"].iterdir()] == [folder.name]


def noted(function, path):
    """The function, which adds a line to a file whenever it is called."""

    def call(*arguments, **options):
        with path.open("a") as file:
            file.write("called\n")
        time.sleep(0.2)
        return function(*arguments, **options)

    return call


def _prepare(files, vectors, notes, barrier, queue):
    datamodule.prepare = noted(datamodule.prepare, notes / "prepared")
    pretrained.read_vectors = noted(pretrained.read_vectors, notes / "read")
    barrier.wait()
    data = TextFiles(**files | {"embeddings": PretrainedEmbeddings(vectors, 2)})
    data.prepare_data()
    data.setup()
    queue.put((data.manifest["splits"]["train"]["sha256"], data.spec.embedding_weights[:, 0].tolist()))


@pytest.mark.slow
@pytest.mark.parametrize(("caches", "times"), [(["cache"] * 3, 1), (["cache", "other", "other"], 2)])
def test_nodes_that_prepare_at_the_same_time_do_it_once_in_every_cache(files, tmp_path, caches, times):
    vectors = tmp_path / "own.vec"
    vectors.write_text("bright 1 2\ndull 3 4\n")
    # Not forked: the threads of the tokenizer, which earlier tests have started, do not survive that.
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(3), context.Queue()
    nodes = [files | {"cache": tmp_path / name} for name in caches]
    processes = [context.Process(target=_prepare, args=(node, vectors, tmp_path, barrier, queue)) for node in nodes]
    for process in processes:
        process.start()
    # Each of them imports torch first, which takes its time on a busy machine.
    found = [queue.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert found.count(found[0]) == 3
    assert [(tmp_path / name).read_text().count("called") for name in ("prepared", "read")] == [times, times]
    for name in set(caches):
        assert len(list((tmp_path / name).glob("*"))) == len(list((tmp_path / name / "embeddings").iterdir())) + 1 == 2
        assert not list((tmp_path / name).glob(".*"))


def test_what_a_killed_process_left_of_its_preparation_is_taken_away(files, prepared):
    prepared(TextFiles(**files))
    (folder,) = files["cache"].glob("files-*")
    left = folder.with_name(f".build-{folder.name}-abc")
    folder.rename(left)
    (files["cache"] / f".{folder.name}.lock").write_text("of a process that is gone")
    prepared(TextFiles(**files))
    assert [path.name for path in files["cache"].iterdir()] == [folder.name]


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path / "a"))
    assert default_cache() == tmp_path / "a"
    monkeypatch.delenv("ATTN_LIGHTNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "b" / "attn_lightning"
