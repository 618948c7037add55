"""The file that repeats a run, and who else gets it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonargparse import ArgumentParser

from attn_lightning.commands.run_options import RunConfig, RunOptions


def saved(folder: Path, *arguments: str) -> str:
    """What is written for these options, by the callback as Lightning calls it."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunOptions, "run")
    parser.add_argument("--ckpt_path")
    before = set(folder.iterdir())
    config = parser.parse_args(list(arguments))
    RunConfig(parser, config, folder).save_config(SimpleNamespace(loggers=[]), None, "fit")
    (path,) = set(folder.iterdir()) - before
    return f"{path.name}\n{path.read_text()}"


def test_the_file_starts_the_run_again_whatever_it_was_resumed_from(tmp_path):
    text = saved(tmp_path, "--run.resume=auto", "--ckpt_path=last", "--run.name=mine")
    assert text.startswith("config.yaml\n")
    assert "resume: never" in text
    assert "name: mine" in text
    assert "ckpt_path" not in text
    # A default that changes in a later version must not change what the file repeats.
    assert "suite: fast" in text


def test_the_file_is_whole_or_not_there(tmp_path, monkeypatch):
    """Half a configuration, as a killed process could leave it, would be that of another run."""
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, "--run.name=a")
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_run_adds_files_and_keeps_the_first(tmp_path):
    first = saved(tmp_path, "--run.name=a").split("\n", 1)[1]
    names = [saved(tmp_path, "--run.name=b").split("\n", 1)[0] for _ in range(2)]
    assert names == ["config_resumed_1.yaml", "config_resumed_2.yaml"]
    assert (tmp_path / "config.yaml").read_text() == first
