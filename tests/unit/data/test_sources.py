"""Where rows come from: folders, files, the hub."""

import ast
import re
from pathlib import Path

import pytest

import attn_lightning
from attn_lightning.data import sources
from attn_lightning.data.formats import FileOptions
from attn_lightning.data.labels import Labels
from attn_lightning.data.records import Columns, records
from attn_lightning.data.sources import Hub, find, from_files
from attn_lightning.errors import ConfigurationError

ROWS = [{"text": "a fine day", "label": 1}, {"text": 'a gray, wet\nday with "quotes"', "label": 0}]


def test_the_folder_comes_first_and_is_identified_by_its_content(tmp_path, write):
    folder = tmp_path / "toy"
    folder.mkdir()
    write(folder / "train.csv", ROWS)
    write(folder / "test.jsonl", ROWS)
    source = find("toy", tmp_path, None, ("train", "test"))
    assert source.kind == "folder"
    assert set(source.splits) == {"train", "test"}
    assert source.revision == find("toy", tmp_path, None, ("train",)).revision
    write(folder / "test.jsonl", ROWS[:1])
    assert source.revision != find("toy", tmp_path, None, ("train",)).revision


def test_a_folder_without_a_split_lists_its_files(tmp_path, write):
    (tmp_path / "toy").mkdir()
    write(tmp_path / "toy" / "train.csv", ROWS)
    with pytest.raises(ConfigurationError, match=r"to hold test .*train\.csv"):
        find("toy", tmp_path, None, ("train", "test"))


def test_a_root_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--data\.root"):
        find("toy", tmp_path / "nowhere", None, ("train",))


@pytest.mark.parametrize("name", ["a.doc", "a.xlsx", "a.tar.gz", "a.parquet.gz"])
def test_an_unknown_extension(name, tmp_path):
    (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationError, match="to end in"):
        from_files({"train": tmp_path / name})


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigurationError, match="correct the path"):
        from_files({"train": tmp_path / "a.csv"})


def test_without_any_source_both_ways_out_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"train\.jsonl.*EXP=ivat_planted"):
        find("toy", tmp_path, None, ("train",))


def test_every_hub_data_set_is_pinned_to_a_commit():
    """A branch or a tag would let the data change under a result."""
    found = {}
    for path in Path(attn_lightning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Hub":
                found.update([tuple(ast.literal_eval(argument) for argument in node.args[:2])])
    assert {"stanfordnlp/snli", "stanfordnlp/imdb", "uoft-cs/cifar10"} <= found.keys()
    assert [name for name, revision in found.items() if not re.fullmatch("[0-9a-f]{40}", revision)] == []


class TestHub:
    hub = Hub("someone/toy", "0" * 40)

    @pytest.fixture
    def calls(self, monkeypatch):
        """Replace the two functions that reach the network."""
        import datasets
        import huggingface_hub

        calls = []

        def info(self, repository, revision, timeout):
            calls.append(("info", repository, revision, timeout))
            raise OSError("no route")

        def load(repository, revision):
            calls.append(("load", repository, revision, datasets.config.HF_HUB_OFFLINE))
            raise ConnectionError("nothing cached")

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        monkeypatch.setattr(datasets, "load_dataset", load)
        return calls

    def test_nothing_is_downloaded_before_rows_are_read(self, calls):
        assert find("toy", None, self.hub, ("train",)).revision == "0" * 40
        assert calls == []

    def test_a_hub_that_does_not_answer_is_asked_once_and_only_the_cache_after_it(self, calls):
        import datasets

        offline = datasets.config.HF_HUB_OFFLINE
        split = find("toy", None, self.hub, ("train",)).splits["train"]
        with pytest.raises(ConfigurationError, match=r"(no route|nothing cached).*--data\.root.*EXP=ivat_planted"):
            next(split.rows())
        assert calls[-1] == ("load", "someone/toy", "0" * 40, True)
        assert len(calls) == (1 if offline else 2)
        assert offline == datasets.config.HF_HUB_OFFLINE

    def test_a_missing_folder_is_logged(self, tmp_path, caplog):
        find("toy", tmp_path, self.hub, ("train",))
        assert "has no folder toy" in caplog.text

    def test_rows_of_the_hub(self, monkeypatch):
        import datasets

        monkeypatch.setattr(
            sources, "download", lambda hub, name: datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
        )
        split = find("toy", None, self.hub, ("train",)).splits["train"]
        assert [row["label"] for row in records(split, Columns(), Labels(("no", "yes")))] == [1, 0]
        assert split.place(2) == "someone/toy train, row 2"


def test_columns_without_a_file_of_fields_are_refused(tmp_path, write):
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ConfigurationError, match=r"`--data\.columns`.*a\.jsonl"):
        from_files({"train": path}, read_as=FileOptions(columns=("text", "label")))
