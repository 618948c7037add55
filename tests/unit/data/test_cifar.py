"""CIFAR mosaics on tiny copies in the hub's schema, and once on the real images."""

import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from attn_lightning.data import CifarMosaics
from attn_lightning.data import cifar as cifar_module
from attn_lightning.data.cifar import CLASSES, CifarOptions, Images, decode, training_rows
from attn_lightning.data.sdc import uniform_mosaics
from attn_lightning.data.sources import Source, Split
from attn_lightning.errors import ConfigurationError, DataFormatError

PER_CLASS = {"train": 12, "test": 4}


def picture(number: int) -> NDArray[np.uint8]:
    """32 x 32 pixels that no other number gives."""
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, images: list[bytes | None], labels: list[int]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [None if image is None else {"bytes": image, "path": None} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"img": pa.array(cells, kind), "label": pa.array(labels, pa.int64())}), path)


def first_number(split: str) -> int:
    return {"train": 0, "test": 1000}[split]


def labels_of(split: str) -> list[int]:
    """Classes in a fixed random order."""
    return np.random.default_rng(first_number(split)).permutation(np.arange(10).repeat(PER_CLASS[split])).tolist()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split in PER_CLASS:
        labels = labels_of(split)
        images: list[bytes | None] = [png(picture(first_number(split) + row)) for row in range(len(labels))]
        write(folder / "cifar10" / f"{split}.parquet", images, labels)
    return folder


@pytest.fixture(scope="module")
def options(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cache = tmp_path_factory.mktemp("cache")
    return {"root": root, "cache": cache, "train_mosaics": 60, "validation_mosaics": 20, "test_mosaics": 30}


def ready(options: dict[str, Any], **others: Any) -> CifarMosaics:
    module = CifarMosaics(**{**options, **others})
    module.prepare_data()
    module.setup()
    return module


def used(module: CifarMosaics, split: str) -> tuple[Path, set[int]]:
    """The file and the rows of the images of a split."""
    examples = module.examples(split)
    assert isinstance(examples.pool, Images)
    return examples.pool.path, set(examples.mosaics.places.ravel().tolist())


class TestMosaics:
    @pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 30_000), ("validation", 40_000)])
    def test_released_is_the_published_recipe(self, options: dict[str, Any], split: str, first: int) -> None:
        module = ready(options, protocol="released")
        labels = np.array(labels_of("train"))
        foreground, background = np.where(labels < 3)[0], np.where(labels >= 3)[0]
        for row in range(10):
            random = np.random.RandomState(first + row)
            around = random.randint(0, len(background), 8)
            chosen = foreground[random.randint(0, len(foreground))]
            position = random.randint(0, 9)
            numbers = np.insert(background[around], position, chosen)
            batch = module.examples(split)[[row]]
            expected = np.stack([picture(number).transpose(2, 0, 1) for number in numbers]).astype(np.float32)
            # What torchvision's ToTensor and Normalize(0.5, 0.5) do.
            expected_tokens = torch.from_numpy(expected).div(255).sub(0.5).div(0.5)
            assert torch.equal(batch.tokens[0], expected_tokens)
            assert batch.labels.item() == labels[chosen]
            assert batch.rationale is not None
            assert batch.rationale[0].nonzero().item() == position

    def test_batches(self, options: dict[str, Any]) -> None:
        module = ready(options, num_segments=4)
        batch = module.examples("test")[[3, 1]]
        assert batch.tokens.shape == (2, 4, 3, 32, 32)
        assert batch.tokens.dtype == torch.float32
        assert -1 <= batch.tokens.min() < -0.9 < 0.9 < batch.tokens.max() <= 1
        assert batch.mask.all()
        assert module.spec.segment_shape == (3, 32, 32)
        assert module.spec.embedding_size == 3072
        assert module.label_names == ("airplane", "automobile", "bird")
        rows = [row for part in module.train_dataloader() for row in part.rows.tolist()]
        assert sorted(rows) == list(range(60))

    def test_other_classes(self, options: dict[str, Any]) -> None:
        module = ready(options, num_foreground_classes=2, background_share=0.25)
        for split in ("train", "validation", "test"):
            examples = module.examples(split)
            marked = examples[list(range(len(examples)))].rationale
            assert marked is not None
            classes = examples.pool.classes[examples.mosaics.places]
            assert set(classes[marked.numpy()]) == {0, 1}
            assert set(classes[~marked.numpy()]) == {2, 3}


class TestProtocols:
    def test_disjoint_leaks_no_image(self, options: dict[str, Any]) -> None:
        module = ready(options, train_mosaics=2000, validation_mosaics=500, test_mosaics=500)
        train, validation, test = (used(module, split) for split in ("train", "validation", "test"))
        assert train[0] == validation[0] != test[0]
        assert test[0].name == "test.uint8"
        assert not train[1] & validation[1]
        assert (len(train[1]), len(validation[1]), len(test[1])) == (110, 10, 40)
        assert all(module.manifest["splits"][split]["overlap"] == 0 for split in ("validation", "test"))
        pixels = [
            {image.numpy().tobytes() for image in module.examples(split)[list(range(500))].tokens.flatten(0, 1)}
            for split in ("train", "validation", "test")
        ]
        assert len(set.union(*pixels)) == sum(map(len, pixels))

    def test_released_leaks_as_published(self, options: dict[str, Any]) -> None:
        module = ready(options, protocol="released", train_mosaics=2000, test_mosaics=500)
        train, test = used(module, "train"), used(module, "test")
        assert train == test
        assert len(train[1]) == 120
        # 36 foreground images in 2,000 mosaics: all were seen.
        assert module.manifest["splits"]["test"]["overlap"] == 500
        assert module.manifest["protocol"] == "released"

    def test_the_published_share_of_test_foregrounds_that_were_seen(self) -> None:
        # It depends on the seeds, the order of the draws and the counts of CIFAR-10, not on the images.
        classes = np.repeat(np.arange(10), 5000)
        train, test = (
            uniform_mosaics(seeds, np.arange(15_000, 50_000), np.arange(15_000), classes, 9).foreground_places
            for seeds in (range(30_000), range(30_000, 40_000))
        )
        assert np.isin(test, train).mean() == pytest.approx(0.866, abs=5e-4)

    def test_validation_is_the_last_tenth_of_every_class(self) -> None:
        classes = np.array(labels_of("train") * 2)
        numbers = {"num_segments": 9, "train_mosaics": 1, "validation_mosaics": 1, "test_mosaics": 1}
        shared = {**numbers, "num_foreground_classes": 3, "background_share": 1.0}
        options = CifarOptions(**shared, protocol="disjoint", images_per_class=None)
        for of_class in range(10):
            rows = np.where(classes == of_class)[0].tolist()
            train, validation = (
                [row for row in training_rows(split, classes, options).tolist() if row in rows]
                for split in ("train", "validation")
            )
            assert (train, validation) == (rows[:22], rows[22:])

    @pytest.mark.parametrize(("protocol", "expected"), [("released", 50), ("disjoint", 40)])
    def test_images_per_class(self, options: dict[str, Any], protocol: str, expected: int) -> None:
        module = ready(options, protocol=protocol, images_per_class=5, train_mosaics=2000)
        labels = np.array(labels_of("train"))
        allowed = {row for of_class in range(10) for row in np.where(labels == of_class)[0][:5].tolist()}
        _, rows = used(module, "train")
        assert rows <= allowed
        assert len(rows) == expected


class TestCache:
    def test_images_are_decoded_once_whatever_the_mosaics_are(
        self, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[int] = []

        def counted(value: Any, split: Split, number: int) -> NDArray[np.uint8]:
            calls.append(number)
            return decode(value, split, number)

        monkeypatch.setattr(cifar_module, "decode", counted)
        first = ready({**options, "cache": tmp_path})
        assert len(calls) == 160
        second = ready({**options, "cache": tmp_path}, protocol="released", num_segments=3)
        assert len(calls) == 160
        assert used(first, "train")[0] == used(second, "train")[0]

    def test_a_damaged_cache_is_made_again(
        self, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        expected = ready({**options, "cache": tmp_path}).manifest
        (path,) = tmp_path.glob("*/train.uint8")
        path.write_bytes(path.read_bytes()[:100])
        with caplog.at_level(logging.WARNING, "attn_lightning"):
            assert ready({**options, "cache": tmp_path}).manifest == expected
        assert "damaged" in caplog.text
        assert path.stat().st_size == 120 * 3072

    def test_other_images_get_another_cache(self, options: dict[str, Any], root: Path, tmp_path: Path) -> None:
        labels = labels_of("train")
        write(tmp_path / "cifar10/train.parquet", [png(picture(5000 + row)) for row in range(len(labels))], labels)
        (tmp_path / "cifar10/test.parquet").write_bytes((root / "cifar10/test.parquet").read_bytes())
        first, second = ready(options).manifest, ready(options, root=tmp_path).manifest
        assert first["source"]["revision"] != second["source"]["revision"]
        assert first["splits"]["train"]["sha256"] != second["splits"]["train"]["sha256"]
        assert first["splits"]["test"] == second["splits"]["test"]

    def test_setup_without_preparation(self, options: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="call `prepare_data"):
            CifarMosaics(**{**options, "cache": tmp_path}).setup()

    def test_pixels_are_mapped_and_not_sent_to_workers(self, options: dict[str, Any]) -> None:
        examples = ready(options).examples("train")
        batch = examples[[0, 5]]
        assert isinstance(examples.pool, Images)
        assert isinstance(examples.pool.pixels, np.memmap)
        sent = pickle.dumps(examples.pool)
        assert len(sent) < 5000
        assert torch.equal(pickle.loads(pickle.dumps(examples))[[0, 5]].tokens, batch.tokens)

    def test_worker_processes(self, options: dict[str, Any]) -> None:
        alone, helped = (ready(options, num_workers=workers).test_dataloader() for workers in (0, 1))
        for ours, theirs in zip(alone, helped, strict=True):
            assert torch.equal(ours.tokens, theirs.tokens)

    def test_manifest_is_json_and_repeats(self, options: dict[str, Any]) -> None:
        manifest = ready(options).manifest
        assert json.loads(json.dumps(manifest)) == manifest == ready(options).manifest
        assert manifest["name"] == "cifar10"
        assert manifest["options"]["images_per_class"] is None


class TestErrors:
    @pytest.mark.parametrize(
        "wrong",
        [{"protocol": "leaky"}, {"images_per_class": 1}, {"num_foreground_classes": 10}, {"background_share": 2.0}],
    )
    def test_impossible_options(self, options: dict[str, Any], wrong: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=rf"Expected `{next(iter(wrong))}` .*but got "):
            CifarMosaics(**{**options, **wrong})

    @pytest.mark.parametrize(
        ("cell", "label", "message"),
        [
            (b"no image", 0, "encoded image, but got UnidentifiedImageError.* in train.parquet, row 3"),
            (None, 0, "encoded image, but got TypeError.* in train.parquet, row 3"),
            (png(np.zeros((31, 32, 3), np.uint8)), 0, "32 x 32 pixels, but got 32 x 31 in train.parquet, row 3"),
            (png(picture(0)), 10, "a label out of airplane, .*but got 10 in train.parquet, row 3"),
            (png(picture(0))[:200], 0, "encoded image, but got .* in train.parquet, row 3"),
        ],
    )
    def test_bad_rows(
        self, options: dict[str, Any], root: Path, tmp_path: Path, cell: bytes | None, label: int, message: str
    ) -> None:
        good = png(picture(0))
        write(tmp_path / "cifar10/train.parquet", [good, good, cell], [0, 1, label])
        (tmp_path / "cifar10/test.parquet").write_bytes((root / "cifar10/test.parquet").read_bytes())
        with pytest.raises(DataFormatError, match=message):
            ready(options, root=tmp_path)

    def test_a_missing_column(self, options: dict[str, Any], root: Path, tmp_path: Path) -> None:
        (tmp_path / "cifar10").mkdir()
        pq.write_table(pa.table({"image": [b""], "label": [0]}), tmp_path / "cifar10/train.parquet")
        (tmp_path / "cifar10/test.parquet").write_bytes((root / "cifar10/test.parquet").read_bytes())
        with pytest.raises(DataFormatError, match=r"a column 'img', but got 'image', 'label' in train.parquet, row 1"):
            ready(options, root=tmp_path)

    def test_a_class_without_images(self, options: dict[str, Any], root: Path, tmp_path: Path) -> None:
        labels = [label for label in range(9) for _ in range(2)]
        write(tmp_path / "cifar10/train.parquet", [png(picture(row)) for row in range(18)], labels)
        (tmp_path / "cifar10/test.parquet").write_bytes((root / "cifar10/test.parquet").read_bytes())
        with pytest.raises(DataFormatError, match=r"two images of every class in train.parquet, but got .*'truck': 0"):
            ready(options, root=tmp_path)

    def test_a_missing_file(self, options: dict[str, Any], tmp_path: Path) -> None:
        write(tmp_path / "cifar10/train.parquet", [png(picture(0))], [0])
        with pytest.raises(ConfigurationError, match="to hold test"):
            ready(options, root=tmp_path)

    def test_no_copy_anywhere_names_both_ways_out(self, options: dict[str, Any], monkeypatch: Any) -> None:
        monkeypatch.delenv("ATTN_LIGHTNING_DATA", raising=False)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)

        def unreachable(*_: Any, **__: Any) -> None:
            raise ConnectionError("no network")

        monkeypatch.setattr("datasets.load_dataset", unreachable)
        with pytest.raises(ConfigurationError, match=r"uoft-cs/cifar10.*cifar10/train\.parquet.*`--data Blobs`"):
            ready({**options, "root": None})


def test_the_hub_gives_decoded_images(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` decodes the column itself; the mosaics are those of the local copy."""
    local = ready(options)

    def of_hub(split: str) -> Split:
        rows = [
            {"img": Image.fromarray(picture(first_number(split) + row)), "label": label}
            for row, label in enumerate(labels_of(split))
        ]
        return Split(f"hub {split}", "row", lambda: enumerate(rows, start=1))

    source = Source("hub", "uoft-cs/cifar10", "abc", {split: of_hub(split) for split in PER_CLASS})
    monkeypatch.setattr(cifar_module, "find", lambda *_: source)
    module = ready({**options, "root": None, "cache": tmp_path})
    assert module.manifest["splits"] == local.manifest["splits"]
    assert module.manifest["source"] == {"kind": "hub", "location": "uoft-cs/cifar10", "revision": "abc"}


@pytest.mark.real_data
def test_real_images(real_data_root: Path, tmp_path: Path) -> None:
    if not (real_data_root / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {real_data_root}")
    module = ready({"root": real_data_root, "cache": tmp_path})
    released = ready({"root": real_data_root, "cache": tmp_path, "protocol": "released"})
    assert [len(module.examples(split)) for split in ("train", "validation", "test")] == [30_000, 1000, 10_000]
    assert module.manifest["splits"]["test"]["overlap"] == 0
    assert released.manifest["splits"]["test"]["overlap"] > 9900
    batch = module.examples("test")[list(range(50))]
    assert batch.rationale is not None
    # Photographs are neither constant nor noise: neighbouring pixels agree.
    pixels = batch.tokens[batch.rationale]
    assert (pixels[..., 1:] - pixels[..., :-1]).abs().mean() < 0.5 * pixels.std()
    assert set(batch.labels.tolist()) == {0, 1, 2}
    assert CLASSES[:3] == module.label_names
