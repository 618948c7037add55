"""`figures` as a user runs it: from a finished run or study to PNG and SVG files."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from support.studies import tiny_study

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def blobs(cli, tmp_path_factory) -> Path:
    """A run folder of two epochs of blobs."""
    root = tmp_path_factory.mktemp("blobs")
    outcome = cli(
        "fit",
        *("--config", REPOSITORY / "experiments" / "sdc_blobs_softmax.yaml"),
        *("--run.root", root, "--run.version=a", "--run.suite=sparsity"),
        *("--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu"),
        *("--data.train_mosaics=100", "--data.validation_mosaics=20", "--data.test_mosaics=60"),
    )
    assert outcome.code == 0, outcome.err
    return root / "sdc_blobs_softmax" / "a"


def assert_valid(path: Path) -> None:
    if path.suffix == ".png":
        with Image.open(path) as image:
            image.verify()
    else:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_a_checkpoint_becomes_files_that_are_never_overwritten(cli, blobs):
    arguments = ("figures", "--ckpt_path", blobs / "checkpoints" / "best.ckpt")
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    files = sorted((blobs / "figures").iterdir())
    names = ["best_blobs_test_density", "best_blobs_test_regions"]
    assert [path.name for path in files] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in files:
        assert_valid(path)
        assert f"figure: {path}" in outcome.out
    assert "not drawn: mosaics: segments are of shape 2, not images" in outcome.out

    before = {path: path.read_bytes() for path in files}
    assert cli(*arguments).code == 0
    outcome = cli(*arguments, "--max_examples=30")
    assert outcome.code == 1
    assert "never overwritten" in outcome.err
    assert {path: path.read_bytes() for path in (blobs / "figures").iterdir()} == before
    assert cli(*arguments, "--max_examples=30", "--output", blobs / "few").code == 0
    assert len(list((blobs / "few").iterdir())) == 4


def test_text_with_rationales_has_a_density(cli, finished, tmp_path):
    outcome = cli("figures", "--ckpt_path", finished / "checkpoints" / "best.ckpt", "--output", tmp_path)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {
        "best_planted_test_density.png",
        "best_planted_test_density.svg",
    }
    assert "not drawn: regions: segments are words" in outcome.out


def test_text_without_rationales_is_an_error(cli, finished, tmp_path):
    names = json.loads((finished / "metrics.json").read_text())["data"]["label_names"]
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"verdict besel toro,{names[k % 2]}\n" for k in range(6)))
    data = ("--data=TextFiles", *(f"--data.{split}={path}" for split in ("train", "validation", "test")))
    outcome = cli("figures", "--ckpt_path", finished / "checkpoints" / "best.ckpt", "--output", tmp_path / "f", *data)
    assert outcome.code == 1
    assert "the data has no rationales" in outcome.err
    assert not (tmp_path / "f").exists()


@pytest.mark.slow
def test_a_study_becomes_strip_plots(cli, tmp_path):
    # The second one may be logged, by a callback that these runs do not have.
    metrics = ["test/accuracy", "val/faithfulness_decision_flip"]
    options = {"trainer__max_epochs": 1, "run__suite": "sparsity"}
    study = tiny_study(tmp_path / "tiny.yaml", ["vanilla", "ivat"], metrics, **options)
    root = tmp_path / "runs"
    outcome = cli("figures", "--study", study, "--root", root)
    assert outcome.code == 1
    assert "finished runs of tiny" in outcome.err
    assert cli("study", study, "--root", root, "--jobs", 1).code == 0
    outcome = cli("figures", "--study", study, "--root", root)
    assert outcome.code == 0, outcome.err
    files = sorted((root / "tiny" / "figures").iterdir())
    assert [path.name for path in files] == ["strip-test-accuracy.png", "strip-test-accuracy.svg"]
    assert "no complete run has a value of val/faithfulness_decision_flip" in outcome.out
    for path in files:
        assert_valid(path)
