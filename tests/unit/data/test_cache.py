"""Prepared data is made once, whole, and by one process."""

import multiprocessing

import pytest

from attn_lightning.data.cache import default_cache
from attn_lightning.data.corpora import TextFiles
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


def _prepare(files, prepared, barrier, queue):
    barrier.wait()
    queue.put(prepared(TextFiles(**files)).manifest["splits"]["train"]["sha256"])


def test_processes_that_prepare_at_the_same_time(files, prepared):
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_prepare, args=(files, prepared, barrier, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    digests = {queue.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {prepared(TextFiles(**files)).manifest["splits"]["train"]["sha256"]}
    assert len(list(files["cache"].iterdir())) == 1


def test_default_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTN_LIGHTNING_CACHE", str(tmp_path / "a"))
    assert default_cache() == tmp_path / "a"
    monkeypatch.delenv("ATTN_LIGHTNING_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache() == tmp_path / "b" / "attn_lightning"
