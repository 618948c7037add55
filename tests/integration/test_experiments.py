"""Every file in experiments/ parses, and every experiment trains on small data through the real command line."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(FOLDER.rglob("*.yaml"))
EXPERIMENTS = [path for path in FILES if path.parent == FOLDER and not path.stem.startswith("base")]
METHODS = ("vanilla", "at", "iat", "vat", "ivat")
DATA = ("sst", "imdb", "news", "ag", "planted")
SDC_METHODS = ("softmax", "sparsemax", "entmax", "spherical", "entropy")
SDC_OBJECTIVES = ("hard", "marginal", "hybrid", "ivat", "relation", "vib")

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


def test_the_promised_experiments_are_there():
    names = {path.stem for path in EXPERIMENTS}
    assert {f"{method}_{data}" for method in METHODS for data in DATA} <= names
    mosaics = ("blobs", "ellipses", "cifar")
    assert {f"sdc_{data}_{method}" for data in mosaics for method in SDC_METHODS + SDC_OBJECTIVES} <= names
    assert {f"sdc_em{number}_softmax" for number in (1, 2, 3)} <= names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_parses(cli, path):
    """As what it is: a part of an experiment, or an experiment."""
    part = {"data": ["--data", path], "method": ["--data=Planted", "--method", path]}.get(path.parent.name)
    if path in EXPERIMENTS:
        part = ["--config", path]
    elif path.stem.startswith("base"):
        part = ["--data=Planted", "--trainer", path]
    if part is None:
        assert isinstance(yaml.safe_load(path.read_text()), dict)
        return
    outcome = cli("fit", *part, "--print_config")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load(outcome.out)["data"]["class_path"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name_of)
def test_every_experiment_opens_with_its_command(path):
    first = path.read_text().splitlines()[0].split()
    assert first[:4] == ["#", "make", "run", f"EXP={path.stem}"]


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if not path.stem.startswith("sdc_")], ids=name_of)
def test_every_experiment_on_text_trains_two_batches(cli, path, tmp_path):
    options = needed_options(cli, path, tmp_path)
    check(cli("fit", "--config", path, *TINY, *options, "--run.root", tmp_path), tmp_path, path)


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if path.stem.startswith("sdc_")], ids=name_of)
def test_every_experiment_on_mosaics_trains_two_batches(cli, path, tmp_path, images):
    """On its own data, and the rates of selective dependence are measured."""
    data = path.stem.split("_")[1]
    options = [*TINY_MOSAICS, *needed_options(cli, path, tmp_path), "--run.root", tmp_path]
    if data == "cifar":
        options += [*TINY_IMAGES, "--data.root", images]
    check(cli("fit", "--config", path, *options), tmp_path, path, data={"cifar": "cifar10"}.get(data, data))
    record = json.loads((tmp_path / path.stem / "version_0" / "metrics.json").read_text())
    rates = [record["test"][f"test/{name}"] for name in ("ftpt", "ffpt", "ftpf", "ffpf")]
    assert sum(rates) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "layer"), [("blobs_relation", 2), ("blobs_vib", 1), ("cifar_softmax", 6)])
def test_mosaics_train_at_other_aggregation_layers(cli, name, layer, tmp_path, images):
    path = FOLDER / f"sdc_{name}.yaml"
    options = [*TINY_MOSAICS, *needed_options(cli, path, tmp_path), "--run.root", tmp_path]
    if name.startswith("cifar"):
        options += [*TINY_IMAGES, "--data.root", images]
    outcome = cli("fit", "--config", path, *options, f"--model.backbone.focus.layer={layer}")
    assert outcome.code == 0, outcome.err


def needed_options(cli, path: Path, folder: Path) -> list[str]:
    """What a method needs beside two batches: a phase after its first one, or a trained model to imitate."""
    default_tokens = ["--data.default_tokens=4"] if "default_tokens" in path.stem else []
    if "rap" in path.stem.split("_"):
        return ["--trainer.max_epochs=2", "--method.num_pretraining_epochs=1", *default_tokens]
    if "vib" in path.stem.split("_"):
        return ["--trainer.max_epochs=2", "--method.warmup_epochs=0", "--method.num_rounds=1"]
    if path.stem.startswith("adversary_"):
        base = cli("fit", "--config", FOLDER / "vanilla_planted.yaml", *TINY, "--run.root", folder)
        assert base.code == 0, base.err
        return ["--method.base_checkpoint", str(folder / "vanilla_planted/version_0/checkpoints/best.ckpt")]
    return default_tokens


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_in_bfloat16(cli, method, tmp_path):
    path = FOLDER / f"{method}_planted.yaml"
    check(cli("fit", "--config", path, *TINY, "--run.root", tmp_path, "--trainer.precision=bf16-mixed"), tmp_path, path)


def check(outcome, root: Path, path: Path, data: str = "planted") -> None:
    assert outcome.code == 0, outcome.err
    record = json.loads((root / path.stem / "version_0" / "metrics.json").read_text())
    assert record["status"] == "complete"
    assert record["data"]["name"] == data
    assert record["history"][0]["train/loss"] is not None, "a loss that is not finite is recorded as null"
    assert len(record["methods"]) == ("method" in yaml.safe_load(path.read_text()))
