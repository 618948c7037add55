"""Pieces of the training command that a whole run does not show."""

import json

import pytest
import yaml


def test_later_options_win(cli):
    outcome = cli("fit", "--data=Planted", "--seed_everything=1", "--seed_everything=2", "--print_config")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out)["seed_everything"] == 2


@pytest.mark.parametrize("options", [["monitor=val/log_loss"], ["every_n_epochs=2"], ["save_top_k=-1"]])
def test_a_checkpoint_of_the_users_own_does_not_decide_what_is_tested(tiny_fit, tmp_path, options):
    own = ["--trainer.callbacks=ModelCheckpoint", *(f"--trainer.callbacks.{option}" for option in options)]
    outcome = tiny_fit("--run.root", tmp_path, "--run.suite=none", "--run.control=false", *own)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "ivat_planted" / "version_0"
    record = json.loads((folder / "metrics.json").read_text())
    assert record["best"]["monitor"] == "val/accuracy"
    assert "last weights" not in outcome.out
    # Theirs are there as well.
    assert any(path.stem not in ("best", "last") for path in (folder / "checkpoints").glob("*.ckpt"))


def test_two_checkpoints_that_lightning_cannot_tell_apart_are_one_line(tiny_fit, tmp_path):
    same = ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=val/accuracy"]
    outcome = tiny_fit("--run.root", tmp_path, *same, "--trainer.callbacks.mode=max")
    assert outcome.code == 1
    assert "more than one stateful callback" in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
