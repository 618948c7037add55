"""Published numbers stand beside what they were measured with, and beside nothing else."""

import json
from pathlib import Path

import pytest
import yaml

from attn_lightning.data.corpora import AG, IMDB, SST, News
from attn_lightning.report.key_numbers import key_numbers
from attn_lightning.report.published import PUBLISHED, published
from attn_lightning.report.run_data import read_run
from attn_lightning.study.table import measure_of

DIVERSITY = {"class": "Diversity", "weight": 0.5}
RELATION = {"class": "Relation", "weight": 0.1, "sigma": "softmax", "temperature": 1.0, "path": "full"}


@pytest.fixture
def run(make_run):
    def make(name="anything", methods=(), protocol="official", data="sst2", options=None, **parts):
        chosen = {"encoder": "BiLSTM", "scorer": "AdditiveScorer", "normalizer": "Softmax", **parts}
        manifest = {"name": data, "protocol": protocol, "splits": {"test": {"rows": 3, "sha256": "x"}}}
        described = [method if isinstance(method, dict) else {"class": method} for method in methods]
        folder = make_run(name, data=manifest["name"], methods=described)
        record = yaml.safe_load((folder / "metrics.json").read_text())
        record["data"] = manifest
        (folder / "metrics.json").write_text(json.dumps(record))
        backbone = {part: {"class_path": f"attn_lightning.backbone.{found}"} for part, found in chosen.items()}
        classifier = {"class_path": "attn_lightning.backbone.AttentionClassifier", "init_args": backbone}
        config = {"model": {"backbone": classifier}, "data": {"init_args": {}}, "trainer": {}}
        for path, value in (options or {}).items():
            *above, last = path.split(".")
            place = config
            for key in above:
                place = place.setdefault(key, {})
            place[last] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return read_run(folder)

    return make


def test_the_number_of_the_same_data_model_and_method(run):
    known = published(run(), "test/accuracy")
    assert known.value == 0.808
    assert known.source == "Jain and Wallace 2019, committed outputs, one run, on another test split"
    assert published(run("theirs", protocol="jain_wallace"), "test/f1").source.endswith("one run")
    assert published(run("average", encoder="Average"), "test/gradient_kendall_mean").value == 0.606
    assert published(run("diverse", [DIVERSITY]), "test/accuracy").value == 0.8
    (number,) = key_numbers([run("again")], ["test/accuracy"])
    assert number.published.value == 0.808


@pytest.mark.parametrize(
    "other",
    [
        {"methods": ["AttentionIVAT"]},
        {"methods": [DIVERSITY, RELATION]},
        {"methods": [DIVERSITY, DIVERSITY]},
        {"methods": ["Diversity"]},
        {"methods": [{**DIVERSITY, "weight": 0.1}]},
        {"encoder": "CNN"},
        {"scorer": "ScaledDotScorer"},
        {"normalizer": "Sparsemax"},
        {"data": "mine"},
    ],
)
def test_nothing_else_has_one_whatever_it_is_called(run, other):
    assert published(run("vanilla_sst", **other), "test/accuracy") is None


def test_the_poster_is_compared_with_what_it_printed_and_with_every_reading_of_what_it_left_open(run):
    assert published(run("printed", [RELATION]), "test/accuracy").value == 0.7913
    assert published(run("context", [{**RELATION, "path": "context"}]), "test/accuracy").value == 0.7913


@pytest.mark.parametrize("option", [{"sigma": "l1"}, {"sigma": "sparsemax"}, {"weight": 10.0}, {"temperature": 0.1}])
def test_another_relation_loss_than_the_posters_has_no_number(run, option):
    assert published(run("relation", [{**RELATION, **option}]), "test/accuracy") is None


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("data.init_args.labeled_fraction", 0.01),
        ("data.init_args.labels_per_class", 10),
        ("data.init_args.max_examples", 100),
        ("data.init_args.max_test_examples", 100),
        ("data.init_args.max_length", 5),
        ("data.init_args.num_classes", 4),
        ("data.init_args.unlabeled", "train"),
        ("data.init_args.lowercase", False),
        ("model.backbone.class_path", "attn_lightning.backbone.DefaultTokens"),
        ("model.backbone.init_args.encoder.init_args.hidden_size", 8),
        ("model.backbone.init_args.encoder.init_args.num_layers", 2),
        ("model.backbone.init_args.scorer.init_args.attention_size", 4),
        ("model.backbone.init_args.freeze_scorer", True),
        ("model.backbone.init_args.embedding_dropout", 0.5),
        ("trainer.limit_train_batches", 3),
        ("trainer.fast_dev_run", True),
    ],
)
def test_other_texts_labels_or_sizes_have_no_number(run, option, value):
    assert published(run("as_published"), "test/accuracy") is not None
    assert published(run("changed", options={option: value}), "test/accuracy") is None


def test_what_a_run_does_not_say_is_not_guessed(run):
    assert published(run(), "test/log_loss") is None
    silent = run("silent")
    (silent.folder / "config.yaml").unlink()
    assert published(read_run(silent.folder), "test/accuracy") is None


def test_options_as_an_experiment_has_them_by_default_are_those_of_the_sources():
    from attn_lightning.commands.validation import shared_validator
    from attn_lightning.report import published as module

    for name in ("vanilla_sst", "vanilla_imdb", "vanilla_ag", "diversity_news", "orthogonal_sst", "relation_sst"):
        config = shared_validator().parse(["fit", "--config", name])
        record = {"methods": [] if config["method"] is None else [_recorded(config["method"])]}
        corpus = {"sst": "sst2", "imdb": "imdb", "ag": "ag_news", "news": "20news_sports"}[name.partition("_")[2]]
        whole = module.Run(Path(name), {**record, "data": {"name": corpus}}, config, {})
        assert published(whole, "test/accuracy") is not None, name


def _recorded(method):
    return {"class": method["class_path"].rpartition(".")[2], **method.get("init_args", {})}


def test_data_and_metrics_are_those_that_there_are():
    assert {known.data for known in PUBLISHED} <= {data.corpus for data in (SST, IMDB, News, AG)}
    assert all(measure_of(metric) for known in PUBLISHED for metric in known.values)
