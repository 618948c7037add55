"""`fit --run.resume=auto`: the same command again and again, until everything that was asked for is there."""

import os
import shutil
from pathlib import Path

import pytest

from attn_lightning.evaluation.folder import Parts
from attn_lightning.locks import Claim
from support.results import record, weights
from support.tiny_bert import make_tiny_bert

AUTO = "--run.resume=auto"


@pytest.fixture(scope="module")
def small_run(tiny_fit, tmp_path_factory) -> Path:
    """The folder of an experiment with one run of one epoch, to be copied."""
    root = tmp_path_factory.mktemp("small")
    outcome = tiny_fit("--run.root", root, "--run.test=false", "--trainer.max_epochs=1", "--run.version=mine")
    assert outcome.code == 0, outcome.err
    return root / "ivat_planted"


def test_it_starts_goes_on_and_finds_nothing_to_do(tiny_fit, tmp_path, interrupt, monkeypatch):
    options = ["--trainer.max_epochs=3", "--run.control=false", "--run.suite=none"]
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    interrupt(2, KeyboardInterrupt)
    assert tiny_fit("--run.root", tmp_path / "broken", *options, AUTO).code == 130
    monkeypatch.undo()
    outcome = tiny_fit("--run.root", tmp_path / "broken", *options, AUTO)
    assert outcome.code == 0, outcome.err
    assert "epoch 3/3" in outcome.out
    assert "epoch 2/3" not in outcome.out
    outcome = tiny_fit("--run.root", tmp_path / "broken", *options, AUTO)
    assert outcome.code == 0, outcome.err
    assert "is complete" in outcome.out
    assert "epoch" not in outcome.out
    assert [path.name for path in (tmp_path / "broken" / "ivat_planted").iterdir()] == ["version_0"]
    whole, broken = (tmp_path / name / "ivat_planted" / "version_0" for name in ("whole", "broken"))
    assert record(broken) == record(whole)
    assert weights(broken, "best") == weights(whole, "best")
    assert "resume: never" in (broken / "config.yaml").read_text()


@pytest.mark.slow
def test_other_configurations_get_runs_of_their_own(tiny_fit, tmp_path, small_run):
    shutil.copytree(small_run, tmp_path / "ivat_planted")
    options = ["--run.root", tmp_path, "--run.test=false", "--trainer.max_epochs=1", AUTO]
    outcome = tiny_fit(*options)
    assert "mine is complete" in outcome.out
    for change in ("--seed_everything=3", "--method=AttentionAT"):
        outcome = tiny_fit(*options, change)
        assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "ivat_planted").iterdir()}
    assert names == {"mine", "version_0", "version_1"}


@pytest.mark.slow
def test_an_encoder_whose_weights_have_changed_is_another_one(cli, tmp_path):
    folder = make_tiny_bert(tmp_path / "bert")
    sizes = ["--data.train_documents=64", "--data.validation_documents=16", "--data.test_documents=16"]
    encoder = ["--model.backbone.encoder=Pretrained", f"--model.backbone.encoder.name={folder}"]
    options = ["--run.root", tmp_path, "--run.test=false", "--trainer.max_epochs=1", "--run.version=mine"]
    command = ["fit", "--config", "ivat_planted", *sizes, *encoder, *options]
    outcome = cli(*command)
    assert outcome.code == 0, outcome.err
    assert record(tmp_path / "ivat_planted" / "mine")["models"]["encoder"]["location"] == str(folder)
    assert "mine is complete" in cli(*command, AUTO).out
    make_tiny_bert(folder, seed=1)
    outcome = cli(*command, AUTO)
    assert outcome.code != 0
    assert "the file of model.backbone.encoder.name" in outcome.err


@pytest.mark.parametrize("way", [["--run.version=mine", AUTO], ["--ckpt_path=last"]])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--seed_everything=3"], "seed_everything"),
        (["--method=AttentionAT"], "method"),
        (["--data.batch_size=8"], "data.batch_size"),
    ],
)
def test_another_run_is_not_gone_on_with(tiny_fit, tmp_path, small_run, way, change, named):
    shutil.copytree(small_run, tmp_path / "ivat_planted")
    options = ["--run.root", tmp_path, "--run.test=false", "--trainer.max_epochs=1"]
    outcome = tiny_fit(*options, *way, *change)
    assert outcome.code == 1
    assert named in outcome.err
    assert record(tmp_path / "ivat_planted" / "mine") == record(small_run / "mine")


def test_a_run_without_a_checkpoint_is_kept_and_started_again(tiny_fit, tmp_path, interrupt, monkeypatch):
    options = ["--run.root", tmp_path, "--run.test=false", "--trainer.max_epochs=1", AUTO]
    interrupt(0, KeyboardInterrupt)
    assert tiny_fit(*options).code == 130
    monkeypatch.undo()
    assert tiny_fit(*options).code == 0
    names = {path.name for path in (tmp_path / "ivat_planted").iterdir()}
    assert names == {"version_0", "version_0.set_aside_0"}
    assert record(tmp_path / "ivat_planted" / "version_0")["status"] == "complete"


def test_a_run_that_another_process_trains_is_left_to_it(tiny_fit, tmp_path, small_run):
    shutil.copytree(small_run, tmp_path / "ivat_planted")
    claim = Claim(tmp_path / "ivat_planted" / "mine" / ".lock")
    outcome = tiny_fit("--run.root", tmp_path, "--run.test=false", "--ckpt_path=last", "--trainer.max_epochs=2")
    claim.release()
    assert outcome.code == 1
    assert f"process {os.getpid()} " in outcome.err


@pytest.mark.parametrize(
    ("where", "exception"),
    [
        ("fit.AfterFit._test", KeyboardInterrupt),
        ("after_fit.control_metrics", ZeroDivisionError),
        ("after_fit.evaluate", KeyboardInterrupt),
    ],
)
def test_what_follows_the_training_is_finished_by_the_next_call(tiny_fit, tmp_path, monkeypatch, where, exception):
    def stop(*arguments, **options):
        raise exception

    options = ["--run.suite=sparsity", "--run.suite_untrained=false", "--trainer.max_epochs=1", AUTO]
    monkeypatch.setattr(f"attn_lightning.commands.{where}", stop)
    if exception is KeyboardInterrupt:
        assert tiny_fit("--run.root", tmp_path, *options).code == 130
    else:
        with pytest.raises(exception):
            tiny_fit("--run.root", tmp_path, *options)
    folder = tmp_path / "ivat_planted" / "version_0"
    assert record(folder)["status"] == ("interrupted" if exception is KeyboardInterrupt else "failed")
    monkeypatch.undo()
    outcome = tiny_fit("--run.root", tmp_path, *options)
    assert outcome.code == 0, outcome.err
    assert "epoch 1" not in outcome.out
    contents = record(folder)
    assert contents["status"] == "complete"
    assert {"test", "control", "evaluation", "best"} <= contents.keys()
    assert "error" not in contents


def test_a_run_stopped_in_the_middle_of_its_evaluation_ends_like_another(tiny_fit, tmp_path, monkeypatch):
    options = ["--run.suite=sparsity,calibration", "--trainer.max_epochs=1", AUTO]
    assert tiny_fit("--run.root", tmp_path / "whole", *options).code == 0
    keep = Parts.keep_family

    def stop(self, *arguments):
        keep(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Parts, "keep_family", stop)
    assert tiny_fit("--run.root", tmp_path / "broken", *options).code == 130
    monkeypatch.undo()
    assert tiny_fit("--run.root", tmp_path / "broken", *options).code == 0
    whole, broken = (tmp_path / name / "ivat_planted" / "version_0" for name in ("whole", "broken"))
    assert record(broken) == record(whole)
    summaries = [next(folder.glob("evaluation/*/summary.json")).read_text() for folder in (whole, broken)]
    assert summaries[0] == summaries[1]


def test_more_that_is_asked_of_a_complete_run_is_added(tiny_fit, tmp_path, small_run):
    shutil.copytree(small_run, tmp_path / "ivat_planted")
    before = record(small_run / "mine")
    options = ["--run.root", tmp_path, "--trainer.max_epochs=1", "--run.control=false", AUTO]
    assert tiny_fit(*options, "--run.suite=sparsity", "--run.suite_untrained=false").code == 0
    after = record(tmp_path / "ivat_planted" / "mine")
    assert set(after) - set(before) == {"test", "evaluation", "finished"}
    assert {key: after[key] for key in before} == before
