"""What a user can get wrong on the command line: one clear message, an exit code, and no half run folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from attn_lightning.checkpoint.file import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = REPOSITORY / "experiments"


def refused(outcome, *texts: str) -> None:
    """One message on stderr, with these words in it."""
    assert outcome.code in (1, 2)
    lines = [line for line in outcome.err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for text in texts:
        assert text in outcome.err


def test_unknown_command(cli):
    refused(cli("fti"), "fti", "Did you mean fit?", "predict")


def test_unknown_experiment_lists_the_nearest_and_all(cli):
    outcome = cli("fit", "--config", EXPERIMENTS / "ivat_plantd.yaml")
    refused(outcome, "Did you mean ivat_planted")
    for path in EXPERIMENTS.glob("*_*.yaml"):
        assert (path.stem in outcome.err) == (not path.stem.startswith("base")), path.stem


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["--method.epsilo=2"], ["epsilo", "Did you mean epsilon?"]),
        (["--trainer.max_epoch=2"], ["max_epoch", "Did you mean trainer.max_epochs?"]),
        (["--modell.learning_rate=2"], ["modell", "Did you mean model.learning_rate?"]),
        (["--model.backbone.normaliser=Softmax"], ["normaliser", "Did you mean normalizer?"]),
        (["--method=AttentionIVATT"], ["AttentionIVATT", "Did you mean AttentionIVAT?"]),
        (["--data=Plantd"], ["Plantd", "Did you mean Planted?"]),
        (["--model.backbone.encoder=CNNN"], ["--model.backbone.encoder", "CNNN", "Did you mean CNN?"]),
        (["--model.backbone.normalizer=Sparsmax"], ["--model.backbone.normalizer", "Did you mean Sparsemax?"]),
        (["--model.backbone=BotleneckClassifier"], ["--model.backbone", "Did you mean BottleneckClassifier?"]),
        (["--data.embeddings=RandomEmbedding"], ["--data.embeddings", "Did you mean RandomEmbeddings?"]),
        (["--method.epsilon=far"], ["epsilon", "float", "far"]),
        (["--data.train_documents=2.5"], ["train_documents", "int"]),
        (["--trainer.precision=bf17"], ["precision", "bf16-mixed"]),
        (["--trainer.accelerator=abacus"], ["abacus", "cpu"]),
        (["--method.epsilon=-1"], ["`epsilon` of AttentionIVAT", "-1"]),
        (["--method.weight=-1"], ["`weight` of AttentionIVAT", "-1"]),
        (["--data.num_classes=1"], ["`num_classes`", "1"]),
        (["--data.batch_size=0"], ["`batch_size`", "0"]),
        (["--model.learning_rate=0"], ["`learning_rate`", "0"]),
        (["--model.weight_decay=-1"], ["`weight_decay`"]),
        (["--model.num_probe_examples=-1"], ["`num_probe_examples`"]),
        (["--model.backbone.encoder.hidden_size=-4"], ["`hidden_size`", "-4"]),
        (["--model.backbone.normalizer=Uniform"], ["AttentionIVAT", "Uniform", "Softmax"]),
        (["--data.num_classes=3", "--model.class_weights=positive"], ["class_weights", "balanced"]),
        (["--run.name=../elsewhere"], ["run.name"]),
        (["--run.version=a/b"], ["run.version"]),
        (["--config"], ["--config"]),
    ],
    ids=lambda value: value[-1] if value and value[0].startswith("--") else None,
)
def test_bad_options(tiny_fit, tmp_path, options, texts):
    refused(tiny_fit("--run.root", tmp_path / "runs", *options), *texts)
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("name", "near"), [("val/acc", "val/accuracy"), ("accuracy", "val/accuracy"), ("val/shortcut_use_mean", "val/")]
)
def test_unknown_monitor_is_refused_before_the_first_step(tiny_fit, tmp_path, name, near):
    outcome = tiny_fit("--run.root", tmp_path, f"--run.monitor={name}")
    refused(outcome, name, near)
    assert "epoch 1/" not in outcome.out
    assert not list(tmp_path.glob("*/*"))


def test_no_data_names_both_ways_out_before_anything_is_made(cli, tmp_path):
    outcome = cli("fit", "--config", EXPERIMENTS / "vanilla_sst.yaml", "--run.root", tmp_path / "runs")
    refused(outcome, "--data.root", "ATTN_LIGHTNING_DATA", "make run EXP=ivat_planted")
    assert not list(tmp_path.glob("runs/*"))


def test_no_experiment_and_no_data(cli):
    refused(cli("fit"), "data")


def test_existing_run_folder_is_never_overwritten(finished, tiny_fit):
    before = (finished / "metrics.json").read_bytes()
    refused(
        tiny_fit("--run.root", finished.parent.parent, "--run.version=version_0"), str(finished), "never overwritten"
    )
    assert (finished / "metrics.json").read_bytes() == before


def test_a_root_that_is_no_folder(tiny_fit, tmp_path):
    (tmp_path / "file").write_text("")
    refused(tiny_fit("--run.root", tmp_path / "file"), "run folder", "--run.root")


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A run folder that may be spoiled."""
    return shutil.copytree(finished, tmp_path / "ivat_planted" / "version_0")


@pytest.mark.parametrize("command", ["test", "validate", "fit", "predict"])
@pytest.mark.parametrize("damage", ["missing", "folder", "cut", "text", "foreign", "newer", "tensor"])
def test_bad_checkpoint(cli, copy, command, damage):
    path = copy / "checkpoints" / "best.ckpt"
    texts = spoil(path, damage)
    extra = ["--text", "a"] if command == "predict" else []
    refused(cli(command, "--ckpt_path", path, *extra), *texts)
    assert not list(copy.glob("evaluations/*"))


def spoil(path: Path, damage: str) -> list[str]:
    """Spoil a checkpoint and say what the error must name."""
    contents = torch.load(path, weights_only=True)
    if damage == "missing":
        path.unlink()
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("not a checkpoint")
    elif damage == "foreign":
        torch.save({"state_dict": {}}, path)
    elif damage == "tensor":
        torch.save(torch.zeros(2), path)
    elif damage == "newer":
        contents["attn_lightning"] |= {"format": 999, "version": "9.9"}
        write_checkpoint(contents, path)
        return ["999", "9.9"]
    return [] if damage == "foreign" else [str(path)]


@pytest.mark.parametrize("command", ["test", "validate"])
def test_evaluation_needs_a_checkpoint(cli, command):
    refused(cli(command), command)
    refused(cli(command, "--config", EXPERIMENTS / "ivat_planted.yaml"), "--ckpt_path")


@pytest.mark.parametrize("option", ["--model.learning_rate=1", "--method.epsilon=2", "--model.backbone.encoder=CNN"])
@pytest.mark.parametrize("command", ["test", "fit"])
def test_model_options_beside_a_checkpoint_are_refused(cli, finished, command, option):
    outcome = cli(command, "--ckpt_path", finished / "checkpoints" / "best.ckpt", option)
    refused(outcome, option.split("=")[0], "--ckpt_path")


def test_a_model_in_a_further_configuration_beside_a_checkpoint_is_refused(cli, copy):
    """Weights fit a model with another normalizer, which would be measured in silence."""
    command = ["test", "--ckpt_path", copy / "checkpoints" / "best.ckpt", "--config"]
    refused(cli(*command, "entmax_planted"), "the model of the checkpoint", "model.backbone.normalizer")
    outcome = cli(*command, EXPERIMENTS / "method" / "ivat.yaml")
    assert outcome.code == 0, outcome.err


def test_beside_a_checkpoint_without_its_run_a_configuration_says_what_the_model_is(cli, finished, tmp_path):
    moved = shutil.copy(finished / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    outcome = cli("test", "--ckpt_path", moved, "--config", "ivat_planted", "--config", finished / "config.yaml")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("option", "text"),
    [("--data.seed=5", "vocabulary"), ("--data.num_classes=3", "num_classes"), ("--data.train_documents=50", "vocab")],
)
def test_other_data_than_the_checkpoints(cli, copy, option, text):
    refused(cli("test", "--ckpt_path", copy / "checkpoints" / "best.ckpt", option), text)
    assert not list(copy.glob("evaluations/*"))


def test_a_checkpoint_without_its_configuration(cli, copy):
    (copy / "config.yaml").unlink()
    refused(cli("test", "--ckpt_path", copy / "checkpoints" / "best.ckpt"), "--config")


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_nothing_to_resume(tiny_fit, tmp_path):
    refused(tiny_fit("--run.root", tmp_path, "--ckpt_path=last"), "last.ckpt", "without `--ckpt_path`")


def test_a_complete_run_is_not_resumed(tiny_fit, copy):
    outcome = tiny_fit("--run.root", copy.parent.parent, "--ckpt_path=last")
    refused(outcome, "complete", "--trainer.max_epochs")
    assert json.loads((copy / "metrics.json").read_text())["status"] == "complete"


def test_a_damaged_last_checkpoint(tiny_fit, copy):
    (copy / "checkpoints" / "last.ckpt").write_text("half")
    (copy / "metrics.json").unlink()
    refused(tiny_fit("--run.root", copy.parent.parent, "--ckpt_path=last"), "last.ckpt")
    assert (copy / "config.yaml").exists()


def test_a_damaged_record(tiny_fit, copy):
    (copy / "metrics.json").write_text("{")
    refused(tiny_fit("--run.root", copy.parent.parent, "--ckpt_path=last"), "metrics.json", "JSON")


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_precisions_that_cannot_work_are_refused(tiny_fit, tmp_path, precision):
    outcome = tiny_fit("--run.root", tmp_path, f"--trainer.precision={precision}")
    assert outcome.code == 1
    assert precision in outcome.err
    assert "bf16-mixed" in outcome.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_outside_the_run_folder(tiny_fit, tmp_path):
    outcome = tiny_fit("--run.root", tmp_path, "--trainer.default_root_dir=elsewhere")
    assert outcome.code == 1
    assert "--run.root" in outcome.err
