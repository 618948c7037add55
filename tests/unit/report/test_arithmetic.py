"""Two runs that differ in nothing but where they ran: on made folders, and on two real trainings."""

import json

import pytest
import torch
import yaml

from attn_lightning.report.arithmetic import same_but_for_arithmetic
from attn_lightning.report.comparison import compare_runs, lines
from attn_lightning.report.run_data import read_run
from support.run_folders import make_run

TINY = (
    "--data.train_documents=48",
    "--data.validation_documents=16",
    "--data.test_documents=16",
    "--data.embeddings=RandomEmbeddings",
    "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--run.control=false",
    "--run.suite=none",
    "--run.report=false",
)


def run(root, version, threads, accuracy=0.8, commit="a", config=None):
    found = {"threads": threads, "kernels": "AVX2", "machine": "x86_64", "torch": "2.13.0+cpu"}
    environment = {"commit": commit, "arithmetic": found} if threads else {"commit": commit}
    folder = make_run(root, version=version, accuracy=accuracy, environment=environment)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return read_run(folder)


def test_a_number_that_moved_with_the_threads_is_named(tmp_path):
    one, two = run(tmp_path, "one", 1), run(tmp_path, "two", 2, accuracy=0.75)
    said = same_but_for_arithmetic(one, two)
    assert said.startswith("Same configuration and seed, other arithmetic (A: 1 thread, AVX2 kernels, x86_64, torch")
    assert "B: 2 threads, AVX2" in said
    assert "test/accuracy differs by -0.0500 (0.8000 and 0.7500)" in said
    assert said in lines(compare_runs(one, two))


def test_equal_numbers_are_said_to_be_equal(tmp_path):
    said = same_but_for_arithmetic(run(tmp_path, "one", 1), run(tmp_path, "two", 1))
    assert "the same arithmetic (1 thread," in said
    assert said.endswith("every test metric is equal.")


@pytest.mark.parametrize(
    "options", [{"threads": None}, {"commit": "b"}, {"config": {"seed_everything": 3}}, {"config": {"trainer": "x"}}]
)
def test_runs_that_differ_in_more_are_not_about_the_machine(tmp_path, options):
    first, second = run(tmp_path, "one", 1), run(tmp_path, "two", **{"threads": 2, **options})
    assert same_but_for_arithmetic(first, second) == ""


@pytest.mark.slow
def test_two_trainings_on_other_threads_are_told_apart(cli, tmp_path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert cli("fit", "--config", "vanilla_planted", *TINY, f"--run.root={tmp_path}").code == 0
    finally:
        torch.set_num_threads(before)
    folders = [tmp_path / "vanilla_planted" / f"version_{k}" for k in (0, 1)]
    recorded = [json.loads((folder / "metrics.json").read_text())["environment"]["arithmetic"] for folder in folders]
    assert [found["threads"] for found in recorded] == [1, 2]
    outcome = cli("compare", *map(str, folders))
    assert outcome.code == 0
    assert "Same configuration and seed, other arithmetic (A: 1 thread" in " ".join(outcome.out.split())
