"""A run folder that came from somewhere else: the classes that it names are not imported unless the user names them."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from attn_lightning.checkpoint.file import write_checkpoint
from attn_lightning.errors import ConfigurationError
from attn_lightning.evaluation.prediction import Predictor

NAME = "someones_model.TheirModel"

MODULE = """
from pathlib import Path
from attn_lightning.backbone.classifier import AttentionClassifier
Path(__file__).with_name("it_ran").write_text("")
class TheirModel(AttentionClassifier):
    pass
"""

COMMANDS = {
    "validate": [],
    "test": [],
    "evaluate": ["--suite=sparsity", "--untrained=false", "--linear=false", "--max_examples=8"],
    "predict": ["--text=a word"],
    "figures": ["--max_examples=8"],
}


@pytest.fixture
def theirs(finished, tmp_path, monkeypatch):
    """A run folder whose model is of a module that lies in the current folder; gives its checkpoint."""
    run = shutil.copytree(finished, tmp_path / "runs" / "ivat_planted" / "version_0")
    for path in (run / "checkpoints").iterdir():
        contents = torch.load(path, weights_only=True)
        contents["hyper_parameters"]["backbone"]["class_path"] = NAME
        write_checkpoint(contents, path)
    config = run / "config.yaml"
    text = config.read_text()
    assert text.count("attn_lightning.backbone.AttentionClassifier") == 1
    config.write_text(text.replace("attn_lightning.backbone.AttentionClassifier", NAME))
    (tmp_path / "someones_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield run / "checkpoints" / "best.ckpt"
    sys.modules.pop("someones_model", None)


@pytest.mark.parametrize("command", [*COMMANDS, "fit"])
def test_a_module_in_the_current_folder_is_not_imported(cli, theirs, command):
    before = sorted(theirs.parents[1].rglob("*"))
    for wrong in ([], ["--trust=someones_model.Other"]):
        outcome = cli(command, "--ckpt_path", theirs, *COMMANDS.get(command, []), *wrong)
        assert outcome.code == 1
        assert outcome.err.count("\n") == 1
        assert f"--trust {NAME}" in outcome.err
    assert not Path("it_ran").exists()
    assert "someones_model" not in sys.modules
    assert sorted(theirs.parents[1].rglob("*")) == before


@pytest.mark.parametrize("where", ["checkpoint", "config"])
def test_one_of_the_two_files_is_enough_to_refuse(cli, finished, theirs, where):
    ours = finished / ("config.yaml" if where == "checkpoint" else "checkpoints/best.ckpt")
    shutil.copy(ours, theirs.parents[1] / ours.relative_to(finished))
    outcome = cli("test", "--ckpt_path", theirs)
    assert outcome.code == 1
    assert f"--trust {NAME}" in outcome.err
    assert not Path("it_ran").exists()


def test_a_class_that_is_named_is_used(cli, theirs):
    for command, options in COMMANDS.items():
        outcome = cli(command, "--ckpt_path", theirs, *options, f"--trust=a.B,{NAME}")
        assert outcome.code == 0, (command, outcome.err)
    assert Path("it_ran").exists()


def test_the_library_refuses_what_the_program_has_not_imported(theirs):
    with pytest.raises(ConfigurationError, match="--trust"):
        Predictor(theirs)
    assert not Path("it_ran").exists()
    import someones_model

    assert isinstance(Predictor(theirs).module.backbone, someones_model.TheirModel)


def test_trust_without_a_class_is_one_line(cli, theirs):
    outcome = cli("test", "--ckpt_path", theirs, "--trust")
    assert outcome.code == 1
    assert "my_model.MyModel" in outcome.err
