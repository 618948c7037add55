"""One command, one complete run folder: what is in it, and that it comes out the same again."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from attn_lightning.data.planted_documents import MARKER, NEGATIONS

REPOSITORY = Path(__file__).resolve().parents[2]


def metrics(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)


def without_cost(folder: Path) -> dict[str, Any]:
    """What two identical commands must agree on: all but times, memory and the commit, if one was made meanwhile."""
    record = {key: value for key, value in metrics(folder).items() if key != "cost"}
    record["environment"].pop("commit")
    return record


def test_metrics_are_complete(finished):
    record = metrics(finished)
    assert record["status"] == "complete"
    assert record["seed"] == 0
    assert record["methods"][0]["class"] == "AttentionIVAT"
    assert [row["epoch"] for row in record["history"]] == [0, 1]
    assert {"train/loss", "train/task", "train/attention_ivat", "val/accuracy"} <= set(record["history"][0])
    quality = {"accuracy", "f1", "auroc", "average_precision", "log_loss", "ece"}
    agreement = {
        f"{kind}_{name}_mean" for kind in ("gradient", "hidden") for name in ("kendall", "spearman", "pearson")
    }
    assert {f"test/{name}" for name in quality | agreement} <= set(record["test"])
    assert quality <= set(record["control"]["tfidf_logistic_regression"])
    assert record["data"]["splits"]["test"]["rows"] == 40
    assert len(record["data"]["splits"]["train"]["sha256"]) == 64
    assert {"torch", "lightning", "attn-lightning"} <= set(record["environment"]["packages"])
    assert record["best"]["val/accuracy"] == max(row["val/accuracy"] for row in record["history"])


def test_cost_is_recorded(finished):
    cost = metrics(finished)["cost"]
    assert cost["fit_seconds"] >= cost["train_seconds"] >= cost["step_seconds"] > 0
    assert cost["train_tokens"] == 2 * metrics(finished)["data"]["splits"]["train"]["tokens"]
    assert cost["train_tokens_per_second"] == pytest.approx(cost["train_tokens"] / cost["train_seconds"])
    assert 50 < cost["peak_memory_mib"] < 100_000


def test_predictions_hold_every_test_row_once(finished):
    table = pq.read_table(finished / "predictions.parquet").to_pylist()
    assert sorted(row["row"] for row in table) == list(range(40))
    for row in table:
        length = len(row["attention"])
        assert sum(row["attention"]) == pytest.approx(1, abs=1e-5)
        assert len(row["gradient"]) == len(row["hidden"]) == len(row["start"]) == len(row["end"]) == length
        words = [row["text"][start:end] for start, end in zip(row["start"], row["end"], strict=True)]
        assert words == row["text"].split()
        assert min(row["gradient"] + row["hidden"]) >= 0
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == int(np.argmax(row["probabilities"]))


def test_metrics_agree_with_the_predictions(finished):
    sklearn = pytest.importorskip("sklearn.metrics")
    table = pq.read_table(finished / "predictions.parquet").to_pylist()
    labels = [row["label"] for row in table]
    probabilities = np.array([row["probabilities"] for row in table], dtype=np.float64)
    recorded = metrics(finished)["test"]
    assert recorded["test/accuracy"] == pytest.approx(np.mean([row["label"] == row["prediction"] for row in table]))
    assert recorded["test/log_loss"] == pytest.approx(sklearn.log_loss(labels, probabilities), abs=1e-5)
    assert recorded["test/auroc"] == pytest.approx(sklearn.roc_auc_score(labels, probabilities[:, 1]), abs=1e-5)


def test_kendall_agrees_with_scipy_on_the_predictions(finished):
    from scipy.stats import kendalltau

    table = pq.read_table(finished / "predictions.parquet").to_pylist()
    taus = [kendalltau(row["attention"], row["gradient"]).statistic for row in table]
    recorded = metrics(finished)["test"]["test/gradient_kendall_mean"]
    assert recorded == pytest.approx(np.mean(taus), abs=1e-4)


def test_evidence_agrees_with_the_predictions(finished):
    rates = np.zeros((2, 2))
    masses = []
    table = pq.read_table(finished / "predictions.parquet").to_pylist()
    for row in table:
        words = row["text"].split()
        begin = words.index(MARKER)
        end = begin + 2 + (words[begin + 1] in NEGATIONS)
        masses.append(sum(row["attention"][begin:end]))
        hit = begin <= int(np.argmax(row["attention"])) < end
        rates[int(row["prediction"] != row["label"]), int(not hit)] += 1 / len(table)
    recorded = metrics(finished)["test"]
    names = [["ftpt", "ffpt"], ["ftpf", "ffpf"]]
    found = np.array([[recorded[f"test/{name}"] for name in line] for line in names])
    np.testing.assert_allclose(found, rates, atol=1e-6)
    assert recorded["test/evidence_hit_mean"] == pytest.approx(rates[:, 0].sum(), abs=1e-6)
    assert recorded["test/evidence_mass_mean"] == pytest.approx(np.mean(masses), abs=1e-5)
    assert "val/evidence_hit_mean" in metrics(finished)["history"][0]


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_load_without_running_code(finished, name):
    contents = torch.load(finished / "checkpoints" / f"{name}.ckpt", weights_only=True)
    assert contents["attn_lightning"]["label_names"] == metrics(finished)["data"]["label_names"]
    assert all(isinstance(value, torch.Tensor) for value in contents["state_dict"].values())


def test_last_is_the_last_epoch_and_best_the_best(finished):
    record = metrics(finished)
    epochs = {
        name: torch.load(finished / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": record["best"]["epoch"], "last": record["history"][-1]["epoch"]}
    assert epochs["best"] != epochs["last"], "a run whose last epoch is the best shows nothing here"


def test_csv_log_has_every_epoch(finished):
    with (finished / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    history = metrics(finished)["history"]
    logged = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert logged == pytest.approx([row["val/accuracy"] for row in history])


def test_the_output_names_the_folder_and_the_figures(tiny_fit, tmp_path):
    outcome = tiny_fit("--run.root", tmp_path, "--run.version=mine")
    assert outcome.code == 0
    assert outcome.out.strip().endswith(f"run folder: {tmp_path}/ivat_planted/mine")
    assert "epoch 2/2" in outcome.out
    assert "TF-IDF" in outcome.out
    assert "faithfulness/attention/aopc_comprehensiveness" in outcome.out
    assert len(outcome.out.splitlines()) <= 40
    assert "accuracy" in outcome.out


def test_the_same_command_gives_the_same_metrics(finished, tiny_fit, tmp_path):
    assert tiny_fit("--run.root", tmp_path).code == 0
    assert without_cost(tmp_path / "ivat_planted" / "version_0") == without_cost(finished)


def test_the_saved_configuration_repeats_the_run(finished, cli, tmp_path):
    outcome = cli("fit", "--config", finished / "config.yaml", "--run.root", tmp_path)
    assert outcome.code == 0, outcome.err
    assert without_cost(tmp_path / "ivat_planted" / "version_0") == without_cost(finished)


def test_another_seed_gives_other_metrics(finished, tiny_fit, tmp_path):
    assert tiny_fit("--run.root", tmp_path, "--seed_everything=3", "--run.control=false").code == 0
    record = metrics(tmp_path / "ivat_planted" / "version_0")
    assert record["seed"] == 3
    assert record["test"] != metrics(finished)["test"]
    assert record["data"] == metrics(finished)["data"]


def test_three_classes(tiny_fit, tmp_path):
    assert tiny_fit("--run.root", tmp_path, "--data.num_classes=3").code == 0
    folder = tmp_path / "ivat_planted" / "version_0"
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert {len(row["probabilities"]) for row in table} == {3}
    assert len(metrics(folder)["data"]["label_names"]) == 3


def test_options_of_a_run_reach_it(tiny_fit, tmp_path):
    options = ["--method.epsilon=2.5", "--model.learning_rate=5e-4", "--trainer.max_epochs=1", "--run.test=false"]
    assert tiny_fit("--run.root", tmp_path, *options).code == 0
    folder = tmp_path / "ivat_planted" / "version_0"
    assert metrics(folder)["methods"][0]["epsilon"] == 2.5
    assert "test" not in metrics(folder)
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["learning_rate"] == 5e-4


def test_options_of_another_method_count_before_and_after_its_name(tiny_fit, tmp_path):
    options = ["--method.weight=0.25", "--method=AttentionRP", "--trainer.max_epochs=1", "--run.test=false"]
    assert tiny_fit("--run.root", tmp_path, *options).code == 0
    (method,) = metrics(tmp_path / "ivat_planted" / "version_0")["methods"]
    assert (method["class"], method["weight"]) == ("AttentionRP", 0.25)
    assert "xi" not in method, "an option of the experiment's own method"


def test_no_method_is_the_baseline(tiny_fit, tmp_path):
    assert tiny_fit("--run.root", tmp_path, "--method", "null", "--run.test=false").code == 0
    record = metrics(tmp_path / "ivat_planted" / "version_0")
    assert record["methods"] == []
    assert "train/attention_ivat" not in record["history"][0]


@pytest.mark.parametrize("option", ["--trainer.max_epochs=0", "--trainer.limit_val_batches=0"])
def test_without_a_measured_epoch_the_last_weights_are_tested_and_it_is_said(tiny_fit, tmp_path, option):
    outcome = tiny_fit("--run.root", tmp_path, option, "--run.control=false")
    assert outcome.code == 0, outcome.err
    assert "last weights are what is tested" in outcome.out
    assert "test/accuracy" in metrics(tmp_path / "ivat_planted" / "version_0")["test"]


@pytest.mark.parametrize("option", ["--trainer.check_val_every_n_epoch=2", "--trainer.enable_checkpointing=false"])
def test_without_a_best_epoch_the_suite_is_that_of_the_last_weights(tiny_fit, tmp_path, option):
    options = ["--trainer.max_epochs=1", "--run.suite=calibration", "--run.control=false", option]
    outcome = tiny_fit("--run.root", tmp_path, *options)
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "ivat_planted" / "version_0"
    record = metrics(folder)
    assert outcome.out.count("last weights are what is tested") == 1
    assert "best" not in record
    assert any(name.startswith("evaluation/calibration/") for name in record["evaluation"])
    (evaluated,) = (folder / "evaluation").iterdir()
    assert evaluated.name.startswith("last-planted-test")


def test_accumulation_and_clipping(tiny_fit, tmp_path):
    options = ["--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=0.5", "--run.control=false"]
    outcome = tiny_fit("--run.root", tmp_path, *options)
    assert outcome.code == 0, outcome.err


def test_fast_dev_run_leaves_nothing_to_resume(tiny_fit, tmp_path):
    assert tiny_fit("--run.root", tmp_path, "--trainer.fast_dev_run=true").code == 0
    assert not list(tmp_path.rglob("*.ckpt"))


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_shows_every_option_with_its_docstring(cli):
    outcome = cli("fit", "--help")
    assert outcome.code == 0
    for text in ("--method.help", "--data.help", "--run.root", "--model.learning_rate", "--trainer.max_epochs"):
        assert text in outcome.out
    assert "Never overwritten" in outcome.out


def test_help_of_a_method(cli):
    outcome = cli("fit", "--method.help", "AttentionIVAT")
    assert outcome.code == 0
    assert "--method.epsilon" in outcome.out
    assert "arxiv.org/abs/2104.08763" in outcome.out


def test_help_of_a_data_set(cli):
    outcome = cli("fit", "--data.help", "IMDB")
    assert outcome.code == 0
    assert "--data.protocol" in outcome.out
    assert "jain_wallace" in outcome.out


def test_printed_configuration_is_one(cli, tmp_path):
    outcome = cli("fit", "--config", REPOSITORY / "experiments/ivat_planted.yaml", "--print_config")
    assert outcome.code == 0
    contents = yaml.safe_load(outcome.out)
    assert contents["method"]["class_path"].endswith("AttentionIVAT")
    assert contents["data"]["class_path"].endswith("Planted")


def test_the_package_is_a_program():
    command = [sys.executable, "-m", "attn_lightning", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert "predict" in result.stdout


def test_make_help_answers_without_an_environment():
    result = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0
    for target in ("run", "test", "check", "clean"):
        assert f"make {target}" in result.stdout


# --- a checkpoint alone -----------------------------------------------------------------------------------------------


def test_test_from_the_checkpoint_gives_the_metrics_of_the_run(finished_copy, cli, tmp_path):
    outcome = cli("test", "--ckpt_path", finished_copy / "checkpoints" / "best.ckpt")
    assert outcome.code == 0, outcome.err
    folder = Path(outcome.out.strip().rsplit("run folder: ", 1)[1])
    assert folder.parent == finished_copy / "evaluations"
    assert metrics(folder)["test"] == metrics(finished_copy)["test"]
    ours, theirs = (pq.read_table(path / "predictions.parquet") for path in (folder, finished_copy))
    assert ours.equals(theirs)


def test_validate_from_the_checkpoint_gives_the_metrics_of_the_best_epoch(finished_copy, cli):
    outcome = cli("validate", "--ckpt_path", finished_copy / "checkpoints" / "best.ckpt")
    assert outcome.code == 0, outcome.err
    folder = Path(outcome.out.strip().rsplit("run folder: ", 1)[1])
    best = metrics(finished_copy)["best"]
    assert metrics(folder)["validation"] == {key: value for key, value in best.items() if key.startswith("val/")}


def test_every_evaluation_gets_a_folder_of_its_own(finished_copy, cli):
    folders = set()
    for _ in range(2):
        outcome = cli("validate", "--ckpt_path", finished_copy / "checkpoints" / "last.ckpt")
        folders.add(outcome.out.strip().rsplit("run folder: ", 1)[1])
    assert len(folders) == 2
    assert metrics(finished_copy)["status"] == "complete"


# --- Weights & Biases -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_gets_the_metrics_and_the_whole_configuration_once(tiny_fit, tmp_path, monkeypatch):
    import wandb

    uploads: list[dict[str, Any]] = []
    update = wandb.Config.update

    def watch(self, contents, *arguments, **options):
        uploads.append(dict(contents))
        return update(self, contents, *arguments, **options)

    monkeypatch.setattr(wandb.Config, "update", watch)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DISABLE_SERVICE_CHECK", "true")
    for _ in range(2):
        uploads.clear()
        outcome = tiny_fit("--run.root", tmp_path, "--run.wandb=true", "--run.control=false")
        assert outcome.code == 0, outcome.err
        (upload,) = [contents for contents in uploads if "model" in contents]
        assert upload["method"]["init_args"]["epsilon"] == 0.5
        assert not [contents for contents in uploads if "learning_rate" in contents]
    folders = sorted(tmp_path.glob("ivat_planted/version_*"))
    assert len(folders) == 2
    for folder in folders:
        assert list(folder.glob("wandb/offline-run-*/*.wandb"))
        assert (folder / "config.yaml").exists()
        assert (folder / "metrics.csv").exists()
