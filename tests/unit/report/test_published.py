"""Published numbers stand beside what they were measured with, and beside nothing else."""

import json

import pytest
import yaml

from attn_lightning.data.corpora import AG, IMDB, SST, News
from attn_lightning.report.key_numbers import key_numbers
from attn_lightning.report.published import PUBLISHED, published
from attn_lightning.report.run_data import read_run
from attn_lightning.study.table import measure_of


@pytest.fixture
def run(make_run):
    def make(name="anything", methods=(), protocol="official", data="sst2", **parts):
        chosen = {"encoder": "BiLSTM", "scorer": "AdditiveScorer", "normalizer": "Softmax", **parts}
        manifest = {"name": data, "protocol": protocol, "splits": {"test": {"rows": 3, "sha256": "x"}}}
        folder = make_run(name, data=manifest["name"], methods=[{"class": method} for method in methods])
        record = yaml.safe_load((folder / "metrics.json").read_text())
        record["data"] = manifest
        (folder / "metrics.json").write_text(json.dumps(record))
        options = {part: {"class_path": f"attn_lightning.backbone.{found}"} for part, found in chosen.items()}
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"backbone": {"init_args": options}}}))
        return read_run(folder)

    return make


def test_the_number_of_the_same_data_model_and_method(run):
    known = published(run(), "test/accuracy")
    assert known.value == 0.808
    assert known.source == "Jain and Wallace 2019, committed outputs, one run, on another test split"
    assert published(run("theirs", protocol="jain_wallace"), "test/f1").source.endswith("one run")
    assert published(run("average", encoder="Average"), "test/gradient_kendall_mean").value == 0.606
    assert published(run("diverse", ["Diversity"]), "test/accuracy").value == 0.8
    (number,) = key_numbers([run("again")], ["test/accuracy"])
    assert number.published.value == 0.808


@pytest.mark.parametrize(
    "other",
    [
        {"methods": ["AttentionIVAT"]},
        {"methods": ["Diversity", "Relation"]},
        {"encoder": "CNN"},
        {"scorer": "ScaledDotScorer"},
        {"normalizer": "Sparsemax"},
        {"data": "mine"},
    ],
)
def test_nothing_else_has_one_whatever_it_is_called(run, other):
    assert published(run("vanilla_sst", **other), "test/accuracy") is None


def test_what_a_run_does_not_say_is_not_guessed(run):
    assert published(run(), "test/log_loss") is None
    silent = run("silent")
    (silent.folder / "config.yaml").unlink()
    assert published(read_run(silent.folder), "test/accuracy") is None


def test_data_and_metrics_are_those_that_there_are():
    assert {known.data for known in PUBLISHED} <= {data.corpus for data in (SST, IMDB, News, AG)}
    assert all(measure_of(metric) for known in PUBLISHED for metric in known.values)
