"""Every experiment by name: it has the configuration that it should, and the parts it is made of train."""

import io
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from attn_lightning.commands.validation import Validator
from attn_lightning.experiments import Experiments, read_configuration
from attn_lightning.study.sweeps import read_sweep

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(FOLDER.rglob("*.yaml"))
EXPECTED = json.loads(Path(__file__).with_suffix(".json").read_text())
"""What each experiment is, as it was before experiments were composed: values that all share, those of each section
once, and which of them an experiment has. A changed value is a changed experiment: change it here on purpose."""

TINY = (
    "--data=Planted",
    "--data.train_documents=48",
    "--data.validation_documents=16",
    "--data.test_documents=16",
    "--data.max_length=20",
    "--data.embeddings=RandomEmbeddings",
    "--data.embeddings.dimension=8",
    "--model.backbone.encoder.hidden_size=4",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--run.control=false",
    "--run.suite=none",
)

TINY_MOSAICS = (
    "--data.train_mosaics=32",
    "--data.validation_mosaics=16",
    "--data.test_mosaics=16",
    "--data.batch_size=16",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
    "--run.suite=none",
)

TINY_IMAGES = (
    "--model.backbone.focus.channels=[2,2,2,2,2,2]",
    "--model.backbone.focus.widths=[2]",
    "--model.backbone.classifier.channels=[2,2,2,2,2,2]",
    "--model.backbone.classifier.width=2",
)

SIBLINGS = (
    "at",
    "iat",
    "vat",
    "word_rp",
    "word_iat",
    "word_vat",
    "word_ivat",
    "sparsemax",
    "entmax",
    "frozen",
)
"""Methods that are another option of one that trains here in every run of the tests; they train with the slow tests.
Every class trains in `tests/contract` too, and what their files say is compared below."""

ON_MOSAICS = ("hard", "hybrid", "marginal")
"""Methods that need data of segments."""


@pytest.fixture(scope="module")
def validator() -> Validator:
    return Validator()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of noise per class and split, as the hub's files have them."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    labels = list(range(10)) * 4
    (root / "cifar10").mkdir()
    for split in ("train", "test"):
        cells = []
        for _ in labels:
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        pq.write_table(pa.table({"img": cells, "label": labels}), root / "cifar10" / f"{split}.parquet")
    return root


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER))


def flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """`method: Relation` and `method.weight: 0.1` for a class and its arguments, however deep they are."""
    if not isinstance(value, dict):
        yield key, short(value)
        return
    if "class_path" in value:
        yield key, short(value["class_path"])
        value = value.get("init_args", {})
    for name, below in value.items():
        yield from flat(below, f"{key}.{name}")


def short(value: Any) -> Any:
    """Classes by their own name, wherever in a list they stand: modules may be moved."""
    if isinstance(value, list):
        return [dict(flat(item, "item")) if isinstance(item, dict) else item for item in value]
    return value.rsplit(".", 1)[-1] if isinstance(value, str) and value.startswith(("attn_", "lightning.")) else value


@pytest.mark.parametrize("name", EXPECTED["experiments"])
def test_an_experiment_is_what_it_was(validator, name):
    expected = dict(EXPECTED["always"])
    for values, number in zip(EXPECTED["cases"].values(), EXPECTED["experiments"][name], strict=True):
        expected.update(values[number])
    config = validator.parse(["fit", "--config", str(FOLDER / name)])
    found = {key: value for section in EXPECTED["cases"] for key, value in flat(config[section], section)}
    assert {key: found.get(key, "missing") for key in expected} == expected


@pytest.mark.parametrize("data", ["SST", "News", "AG"])
def test_the_sweep_of_methods_runs_the_experiments(validator, monkeypatch, data):
    monkeypatch.chdir(FOLDER.parent)
    sweep = read_sweep(FOLDER / "sweeps" / "methods.yaml")
    arguments = next(command for command in sweep.commands() if f"--data={data}" in command)
    found, expected = (validator.parse(each) for each in (arguments, ["fit", "--config", f"rp_{data.lower()}"]))
    for section in ("data", "method", "model", "trainer"):
        assert found[section] == expected[section]


def test_files_are_few():
    assert len(FILES) <= 70


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_says_anything_twice(path):
    assert read_configuration(path)


@pytest.mark.parametrize("kind", ["methods", "data"])
def test_every_part_has_a_line(kind):
    for name, part in getattr(Experiments(FOLDER), kind).items():
        assert len(part.line) > 5, name


def method_files() -> Iterator[Any]:
    for path in FILES:
        if path.parent.name == "method":
            yield pytest.param(path, id=name_of(path), marks=[pytest.mark.slow] if path.stem in SIBLINGS else [])


@pytest.mark.parametrize("path", list(method_files()))
def test_a_method_trains_two_batches(train, path, tmp_path):
    name = f"sdc_blobs_{path.stem}" if path.stem in ON_MOSAICS else f"{path.stem}_planted"
    train(name, tmp_path)


@pytest.mark.parametrize(
    "name", ["vib_gaussian_planted", "shortcut_default_tokens_rap_planted", "sdc_blobs_vib", "sdc_ellipses_entropy"]
)
def test_a_variant_trains_two_batches(train, name, tmp_path):
    train(name, tmp_path)


@pytest.mark.slow
def test_explainers_take_their_remedies_as_callbacks(train, tmp_path):
    vibi = train("vibi_planted", tmp_path)
    assert [method["class"] for method in vibi["methods"]] == ["VIBI"]
    assert vibi["best"]["monitor"] == "val/teacher_agreement_mean"
    assert 0 <= vibi["test"]["test/post_hoc_accuracy_mean"] <= 1
    remedies = [
        {"class_path": "RandomAttentionPretraining", "init_args": {"num_pretraining_epochs": 1}},
        {"class_path": "InstanceWeighting", "init_args": {"num_folds": 2}},
    ]
    options = ["--trainer.max_epochs=2", f"--trainer.callbacks={json.dumps(remedies)}"]
    both = train("l2x_both_planted", tmp_path / "both", *options)
    assert [method["class"] for method in both["methods"]] == [
        "RandomAttentionPretraining",
        "InstanceWeighting",
        "L2X",
    ]


@pytest.mark.slow
def test_the_bottleneck_trains_on_a_transformer(train, tmp_path):
    record = train("vib_planted", tmp_path, "--model.backbone.encoder=Transformer")
    assert record["status"] == "complete"


@pytest.mark.parametrize("data", ["ellipses", "cifar", "em1", "em2", "em3"])
def test_mosaics_train_two_batches(train, data, tmp_path):
    record = train(f"sdc_{data}_softmax", tmp_path)
    assert record["data"]["name"] == {"cifar": "cifar10"}.get(data, data)
    rates = [record["test"][f"test/{name}"] for name in ("ftpt", "ffpt", "ftpf", "ffpf")]
    assert sum(rates) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "layer"), [("sdc_blobs_relation", 2), ("sdc_blobs_vib", 1), ("sdc_cifar_softmax", 6)])
def test_mosaics_train_at_other_aggregation_layers(train, name, layer, tmp_path):
    train(name, tmp_path, f"--model.backbone.focus.layer={layer}")


@pytest.mark.parametrize("method", ["vanilla", "ivat"])
def test_a_method_trains_in_bfloat16(train, method, tmp_path):
    train(f"{method}_planted", tmp_path, "--trainer.precision=bf16-mixed")


@pytest.fixture(scope="module")
def train(cli, images, tmp_path_factory) -> Callable[..., dict[str, Any]]:
    """A function that trains an experiment of the repository at a small size and gives its record."""

    @cache
    def vanilla() -> Path:
        # Once for all that imitate or explain it, and only if one of them is run.
        root = tmp_path_factory.mktemp("vanilla")
        outcome = cli("fit", "--config", FOLDER / "vanilla_planted", *TINY, "--run.root", root)
        assert outcome.code == 0, outcome.err
        return root / "vanilla_planted" / "version_0"

    def run(name: str, root: Path, *options: str) -> dict[str, Any]:
        small = TINY if not name.startswith("sdc_") else TINY_MOSAICS
        if "cifar" in name:
            small += (*TINY_IMAGES, f"--data.root={images}")
        config, folder = str(FOLDER / name), root / name / "version_0"
        outcome = cli("fit", "--config", config, *small, *needed(name, vanilla), *options, f"--run.root={root}")
        assert outcome.code == 0, outcome.err
        record = json.loads((folder / "metrics.json").read_text())
        assert record["status"] == "complete"
        assert record["history"][0]["train/loss"] is not None, "a loss that is not finite is recorded as null"
        has_method = yaml.safe_load((folder / "config.yaml").read_text())["method"] is not None
        assert len(record["methods"]) >= has_method
        return record

    return run


def needed(name: str, vanilla: Callable[[], Path]) -> list[str]:
    """What a method needs beside two batches: a phase after its first one, or a trained model to imitate."""
    parts = name.split("_")
    if "rap" in parts:
        return ["--trainer.max_epochs=2", "--method.num_pretraining_epochs=1"]
    if "vib" in parts:
        return ["--trainer.max_epochs=2", "--method.warmup_epochs=0", "--method.num_rounds=1"]
    if "adversary" in parts:
        return [f"--method.base_checkpoint={vanilla() / 'checkpoints' / 'best.ckpt'}"]
    if parts[0] in ("l2x", "vibi"):
        return [f"--method.teacher_checkpoint={vanilla()}"]
    return []
