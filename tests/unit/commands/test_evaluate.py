"""The command `evaluate`: its options, what they stand for, and every mistake as one message."""

import shutil
from pathlib import Path

import pytest
import torch

from attn_lightning.commands.evaluate import labels


@pytest.fixture(scope="module")
def run(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run: what is refused leaves nothing behind, and one copy is enough."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("run") / "version_0"))


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--suite=faithfulnes"], ["faithfulnes", "Did you mean faithfulness?"]),
        (["--explainers=attention,gradien"], ["gradien", "Did you mean gradient?"]),
        (["--split=train"], ["split"]),
        (["--max_examples=0"], ["max_examples"]),
        (["--data.num_classes=3"], ["2 classes of the checkpoint"]),
        (["--data=Plantd"], ["Plantd", "Did you mean Planted?"]),
        (["--data=some/folder"], ["some/folder", "use `--data.test=FILE`"]),
        (["--data", "mine.csv"], ["mine.csv", "use `--data.test=FILE`"]),
        (["--device=warp"], ["warp", "--device cpu"]),
        (["--faithfulness.replacement=ham"], ["replacement"]),
        (["--robustnes.seed=1"], ["robustnes"]),
        (["--compare=[missing.ckpt]"], ["missing.ckpt"]),
    ],
)
def test_bad_input_is_one_message(cli, run, options, texts):
    outcome = cli("evaluate", "--ckpt_path", run / "checkpoints" / "best.ckpt", *options)
    assert outcome.code in (1, 2)
    assert "Traceback" not in outcome.err
    for text in texts:
        assert text in outcome.err, outcome.err


def test_missing_and_foreign_checkpoints(cli, run, tmp_path):
    outcome = cli("evaluate", "--ckpt_path", run / "checkpoints" / "none.ckpt")
    assert outcome.code == 1
    assert "does not exist" in outcome.err
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(2)}, other)
    outcome = cli("evaluate", "--ckpt_path", other)
    assert outcome.code == 1
    assert "checkpoint of attn_lightning" in outcome.err
    (run / "config.yaml").unlink()
    outcome = cli("evaluate", "--ckpt_path", run / "checkpoints" / "best.ckpt")
    assert outcome.code == 1
    assert "--data" in outcome.err
    outcome = cli("evaluate")
    assert outcome.code == 2
    assert "ckpt_path" in outcome.err


def test_help_says_what_there_is(cli):
    outcome = cli("evaluate", "--help")
    assert outcome.code == 0
    for text in ("--suite", "--explainers", "--data", "--faithfulness", "--split"):
        assert text in outcome.out


def test_compared_runs_of_one_name_under_two_roots_are_told_apart():
    runs = ["/a/x/runs/ivat_sst/seed_0", "/b/x/runs/ivat_sst/seed_0", "/b/x/runs/ivat_sst/seed_1"]
    found = labels([f"{run}/checkpoints/best.ckpt" for run in runs])
    assert list(found.values()) == [
        "a/x/runs/ivat_sst/seed_0/best",
        "b/x/runs/ivat_sst/seed_0/best",
        "ivat_sst/seed_1/best",
    ]
    assert list(found) == [f"{run}/checkpoints/best.ckpt" for run in runs]


def test_a_compared_checkpoint_is_named_by_its_place_and_once():
    inside, beside = "/runs/a/v/checkpoints/best.ckpt", "/runs/a/v/best.ckpt"
    assert labels([inside, "/runs/a/v/checkpoints/../checkpoints/best.ckpt"]) == {inside: "a/v/best"}
    assert labels([inside, beside]) == {inside: inside, beside: beside}
    assert labels([]) == {}
