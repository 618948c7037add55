"""`evaluate` as a user runs it: from a checkpoint to tables, on own and foreign data, stopped and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from attn_lightning.checkpoint.file import write_checkpoint
from attn_lightning.evaluation.catalog import FAMILIES

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(finished_copy: Path) -> Path:
    """A run that the test may write into."""
    return finished_copy


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def summary(run: Path, name: str) -> dict:
    return json.loads((run / "evaluation" / name / "summary.json").read_text())


CHEAP = ("--attention_tests.num_permutations=5", "--attention_tests.num_steps=5", "--explainers=gradient,random,loo")


def test_everything_at_once(cli, run):
    outcome = cli("evaluate", "--ckpt_path", checkpoint(run), *CHEAP, "--verbose")
    assert outcome.code == 0, outcome.err
    found = summary(run, "best-planted-test")
    measured = set(found["families"])
    assert measured >= {"agreement", "faithfulness", "plausibility", "selective", "sparsity", "robustness"}
    assert measured | set(found["skipped"]) == set(FAMILIES)
    for name, family in found["families"].items():
        assert family["rows"], name
        assert {row["metric"] for row in family["rows"]} <= set(family["measures"]), name
        for row in family["rows"]:
            measure = family["measures"][row["metric"]]
            if row["value"] is not None:
                assert measure["minimum"] is None or row["value"] >= measure["minimum"] - 1e-6, (name, row)
                assert measure["maximum"] is None or row["value"] <= measure["maximum"] + 1e-6, (name, row)
    assert found["families"]["plausibility"]["untrained"]
    assert 0 <= found["tfidf_logistic_regression"]["accuracy"] <= 1
    for name in measured:
        assert FAMILIES[name].heading.split(" ")[0] in outcome.out
    assert f"evaluation: {run / 'evaluation' / 'best-planted-test'}" in outcome.out


@pytest.mark.parametrize("untrained", [True, False])
def test_the_suite_of_a_training_has_an_untrained_model_unless_it_is_left_out(tiny_fit, tmp_path, untrained):
    options = ["--run.suite=sparsity", "--run.control=false", f"--run.suite_untrained={untrained}"]
    outcome = tiny_fit("--run.root", tmp_path, "--run.name=tiny", *options)
    assert outcome.code == 0, outcome.err
    (written,) = (tmp_path / "tiny" / "version_0" / "evaluation").glob("*/summary.json")
    found = json.loads(written.read_text())
    assert found["families"]["sparsity"]["rows"]
    assert bool(found["families"]["sparsity"]["untrained"]) is untrained
    assert ("untrained" in outcome.out) is untrained


def test_a_short_table_is_printed_and_all_of_them_are_kept(cli, run):
    options = ("--ckpt_path", checkpoint(run), "--untrained=false", "--explainers=random")
    short = cli("evaluate", *options, "--suite=sparsity,selective")
    (path,) = [line.split(": ", 1)[1] for line in short.out.splitlines() if line.startswith("all tables: ")]
    kept = Path(path).read_text("utf-8")
    assert "selective/attention/interpretability" in short.out
    for name in ("sparsity", "selective"):
        assert FAMILIES[name].heading in kept
        assert FAMILIES[name].heading not in short.out
    assert FAMILIES["sparsity"].heading in cli("evaluate", *options, "--suite=sparsity").out


def test_a_second_call_measures_nothing_again_and_another_suite_adds_to_it(cli, run):
    first = cli("evaluate", "--ckpt_path", checkpoint(run), "--suite=sparsity", "--untrained=false")
    again = cli("evaluate", "--ckpt_path", checkpoint(run), "--suite=sparsity,calibration", "--untrained=false")
    assert (first.code, again.code) == (0, 0), again.err
    assert "sparsity: kept from an earlier evaluation" in again.out
    assert "calibration: kept" not in again.out
    folder = run / "evaluation" / "best-planted-test"
    assert (folder / "sparsity.json").exists()
    assert (folder / "calibration.json").exists()


def test_the_end_of_a_training_measures_the_fast_suite(finished):
    record = json.loads((finished / "metrics.json").read_text())
    names = record["evaluation"]
    assert any(name.startswith("evaluation/plausibility/attention/") for name in names)
    assert any(name.startswith("evaluation/faithfulness/attention/") for name in names)
    # All 40 test documents are fewer than the subset that is asked for.
    assert (finished / "evaluation" / "best-planted-test-40" / "summary.json").exists()


@pytest.mark.slow
def test_results_are_the_same_twice(cli, run):
    options = ("--ckpt_path", checkpoint(run), *CHEAP, "--suite=attention_tests,faithfulness,robustness")
    options += ("--max_examples=13", "--untrained=false", "--explainers=gradient")
    assert cli("evaluate", *options, "--batch_size=7").code == 0
    first = summary(run, "best-planted-test-13")
    shutil.rmtree(run / "evaluation")
    assert cli("evaluate", *options, "--batch_size=40", "--token_budget=300").code == 0
    second = summary(run, "best-planted-test-13")
    for name, family in first["families"].items():
        for one, other in zip(family["rows"], second["families"][name]["rows"], strict=True):
            assert one["value"] == pytest.approx(other["value"], abs=2e-4), (name, one)


def test_other_data_by_its_options(cli, run):
    outcome = cli(
        "evaluate",
        "--ckpt_path",
        checkpoint(run),
        "--suite=sparsity,plausibility",
        "--data.test_documents=12",
        "--data.max_length=14",
        "--split=test",
    )
    assert outcome.code == 0, outcome.err
    folders = {path.name for path in (run / "evaluation").iterdir()}
    assert "best-planted-test" in folders
    assert summary(run, "best-planted-test")["examples"] == 12


def test_foreign_files_with_labels_of_the_same_names(cli, run, tmp_path):
    names = json.loads((run / "metrics.json").read_text())["data"]["label_names"]
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"verdict besel toro,{names[k % 2]}\n" for k in range(6)))
    outcome = cli(
        "evaluate",
        "--ckpt_path",
        checkpoint(run),
        "--suite=calibration,plausibility",
        "--data=TextFiles",
        f"--data.train={path}",
        f"--data.validation={path}",
        f"--data.test={path}",
    )
    assert outcome.code == 0, outcome.err
    assert "the texts are read with the vocabulary of the checkpoint" in outcome.out
    assert "not measured: plausibility" in outcome.out


def test_damaged_weights_are_named(cli, run):
    contents = torch.load(checkpoint(run), weights_only=True)
    weights = next(name for name in contents["state_dict"] if name.endswith("classifier.weight"))
    contents["state_dict"][weights].fill_(float("nan"))
    for write, expected in (
        (torch.save, "its checksum differs"),
        (write_checkpoint, "classifier.weight of the checkpoint has NaN"),
    ):
        write(contents, checkpoint(run))
        outcome = cli("evaluate", "--ckpt_path", checkpoint(run), "--suite=sparsity")
        assert outcome.code == 1
        assert expected in outcome.err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(run, tmp_path, prepared_data):
    command = [sys.executable, "-m", "attn_lightning", "evaluate", "--ckpt_path", str(checkpoint(run))]
    slow = ["--suite=sparsity,attention_tests", "--attention_tests.num_steps=200000", "--untrained=false"]
    environment = {**os.environ, "ATTN_LIGHTNING_CACHE": str(prepared_data), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [*command, *slow], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    done = run / "evaluation" / "best-planted-test" / "sparsity.json"
    deadline = time.monotonic() + 120
    while not done.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert done.exists()
    assert not (run / "evaluation" / "best-planted-test" / "attention_tests.json").exists()
    again = subprocess.run(
        [*command, *slow[:1], "--attention_tests.num_steps=2", "--untrained=false"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert again.returncode == 0, again.stderr
    assert "sparsity: kept from an earlier evaluation" in again.stdout
