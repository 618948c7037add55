"""The numbers of finished cells in one file."""

import gzip
import json

import pytest
import yaml

from attn_lightning import run_folder
from attn_lightning.errors import ConfigurationError
from attn_lightning.study.archive import read_archive, restore, write_archive
from attn_lightning.study.expansion import expand
from attn_lightning.study.state import CellState, comparable

STUDY = "methods: [vanilla, iat]\ndata: [planted]\nseeds: 2\nmetrics: [test/accuracy]\n"
BASED = """
methods:
  vanilla:
  iat: {method.teacher_checkpoint: "{vanilla}/checkpoints/best.ckpt"}
data: [planted]
seeds: 1
metrics: [test/accuracy]
"""
CONFIG = {"seed_everything": 0, "method": {"init_args": {"xi": 1e-06, "on": "no", "none": None}}}
RECORD = {
    "status": "complete",
    "test": {"test/accuracy": 0.1 + 0.2},
    "history": [{"epoch": 0}],
    "data": {
        "name": "sst2",
        "source": {"kind": "folder", "location": "/home/ada/data/sst2", "revision": "0f"},
        "unlabeled": {"source": {"kind": "folder", "location": "/home/ada/data/imdb", "revision": "1e"}},
        "embeddings": {"source": {"kind": "file", "location": "/home/ada/glove.6B.300d.txt", "revision": "3c"}},
    },
    "models": {"teacher_checkpoint": {"kind": "file", "location": "/home/ada/runs/best.ckpt", "revision": "2d"}},
}


def ran(root, cell, record=RECORD):
    folder = cell.folder(root)
    folder.mkdir(parents=True)
    (folder / run_folder.CONFIG).write_text(yaml.safe_dump(CONFIG))
    return cell, CellState("complete", record)


def complete(cell, folder):
    """The state of a run of which nothing is asked but the configuration above."""
    same = comparable(run_folder.read_config(folder / run_folder.CONFIG)) == comparable(CONFIG)
    return CellState("complete" if same else "different", run_folder.read_metrics(folder))


def test_numbers_and_configuration_come_back_as_they_were(study, tmp_path):
    cells, here, there = expand(study(STUDY)), tmp_path / "here", tmp_path / "there"
    archive = tmp_path / "tried.jsonl.gz"
    results = [ran(here, cells[0]), (cells[1], CellState("failed")), (cells[2], CellState("missing"))]
    assert write_archive(archive, results, lambda cell: cell.folder(here)) == 1
    found = restore(read_archive(archive), cells, there, complete)
    assert (found.taken, found.refused) == (1, ())
    record = run_folder.read_metrics(cells[0].folder(there))
    assert record["test"] == RECORD["test"]
    assert record["data"]["source"] == {"kind": "folder", "location": "sst2", "revision": "0f"}
    assert record["data"]["embeddings"]["source"]["location"] == "glove.6B.300d.txt"
    assert record["models"] == {"teacher_checkpoint": {"revision": "2d"}}
    assert "ada" not in json.dumps(record)
    assert "history" not in record
    config = run_folder.read_config(cells[0].folder(there) / run_folder.CONFIG)
    assert comparable(config) == comparable(CONFIG)
    assert [path.name for path in there.iterdir()] == [cells[0].folder(there).parent.name]


def test_the_same_numbers_are_the_same_bytes_and_other_cells_stay(study, tmp_path):
    cells = expand(study(STUDY))
    first, second = ran(tmp_path, cells[0]), ran(tmp_path, cells[1])
    archive, other = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    folder = lambda cell: cell.folder(tmp_path)  # noqa: E731
    assert write_archive(archive, [first], folder) == 1
    assert write_archive(archive, [second, (cells[0], CellState("missing"))], folder) == 2
    assert write_archive(other, [second, first], folder) == 2
    assert archive.read_bytes() == other.read_bytes()


def test_a_run_that_is_there_is_left_alone(study, tmp_path):
    cells = expand(study(STUDY))
    archive = tmp_path / "a.jsonl.gz"
    write_archive(archive, [ran(tmp_path / "here", cells[0])], lambda cell: cell.folder(tmp_path / "here"))
    folder = cells[0].folder(tmp_path / "there")
    folder.mkdir(parents=True)
    (folder / run_folder.METRICS).write_text('{"status": "running"}')
    assert restore(read_archive(archive), cells, tmp_path / "there", complete).taken == 0
    assert run_folder.read_metrics(folder) == {"status": "running"}


def test_an_entry_of_another_configuration_is_refused_and_leaves_nothing(study, tmp_path):
    cells = expand(study(STUDY))
    entries = {str(cells[0]): {"cell": str(cells[0]), "config": {"seed_everything": 1}, "record": RECORD}}
    found = restore(entries, cells, tmp_path / "runs", complete)
    assert (found.taken, found.refused) == (0, (str(cells[0]),))
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_base_without_its_model_is_taken_only_if_nothing_begins_from_it_any_more(study, tmp_path):
    vanilla, iat = cells = expand(study(BASED))
    here = tmp_path / "here"
    results = [ran(here, vanilla), ran(here, iat)]
    entries = {}
    for name, some in (("base", results[:1]), ("both", results)):
        write_archive(tmp_path / f"{name}.jsonl.gz", some, lambda cell: cell.folder(here))
        entries[name] = read_archive(tmp_path / f"{name}.jsonl.gz")
    assert restore(entries["base"], cells, tmp_path / "first", complete).taken == 0
    assert restore(entries["both"], cells, tmp_path / "second", complete).taken == 2


def packed(contents):
    # Without the time: it would be in the name of a test, which two workers must collect alike.
    return gzip.compress(contents, mtime=0)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "not one of|EOF|ended|magic|Expected"),
        (b"not packed", "Not a gzipped file"),
        (packed(b"{}\n"), "line 1 is not one of cell, config, record"),
        (packed(b"{\n"), "Expecting property name"),
        (packed(b'{"cell": 1, "config": {}, "record": {}}\n')[:-9], "end-of-stream"),
        (packed(b"\xff\n"), "decode"),
    ],
)
def test_a_damaged_archive_is_one_line(tmp_path, contents, said):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(contents)
    if not contents:
        # An empty file holds nothing, which is what it says.
        assert read_archive(path) == {}
        return
    with pytest.raises(ConfigurationError, match=said) as error:
        read_archive(path)
    assert "\n" not in str(error.value)


def test_an_archive_says_what_it_is_by_its_name(tmp_path):
    with pytest.raises(ConfigurationError, match=r"to end in \.jsonl\.gz"):
        read_archive(tmp_path / "a.json")
    with pytest.raises(ConfigurationError, match="in a folder that exists"):
        read_archive(tmp_path / "nowhere" / "a.jsonl.gz")
