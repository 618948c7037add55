"""Blobs, ellipses and error modes against the authors' recipe, written out with NumPy's global generator."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from attn_lightning.data import Blobs, Ellipses, ErrorMode
from attn_lightning.data.sdc import BOXES, blob_points, ellipse_points
from attn_lightning.data.segments import SegmentDataModule
from attn_lightning.errors import ConfigurationError
from attn_lightning.types import Batch

SMALL: dict[str, Any] = {"train_mosaics": 40, "validation_mosaics": 20, "test_mosaics": 30}
MODULES: tuple[type[SegmentDataModule], ...] = (Blobs, Ellipses, ErrorMode)


def ready(module: Any) -> Any:
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def global_generator() -> Iterator[Any]:
    """The reference may use the global generator; nobody else notices."""
    state = np.random.get_state()  # noqa: NPY002
    yield np.random
    np.random.set_state(state)  # noqa: NPY002


class TestBlobs:
    def test_points(self, global_generator: Any) -> None:
        points, classes = blob_points()
        assert np.bincount(classes).tolist() == [530, 463, 494, 517, 488, 497, 493, 507, 492, 519]
        means = [(4, 6.5), (5.5, 6), (4.5, 4.5), (3, 3.5), (2.5, 5.5), (3.5, 8), (5.5, 8), (7, 6.5), (6.5, 4.5), (5, 3)]
        global_generator.seed(12)
        assert (classes == global_generator.randint(0, 10, 5000)).all()
        global_generator.seed(12)
        for of_class, mean in enumerate(means):
            count = int((classes == of_class).sum())
            drawn = global_generator.multivariate_normal(mean, [[0.01, 0], [0, 0.01]], count)
            np.testing.assert_array_equal(points[classes == of_class], drawn)
            np.testing.assert_allclose(drawn.mean(0), mean, atol=0.02)

    @pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 3000), ("validation", 6000)])
    def test_mosaics(self, global_generator: Any, blobs: Blobs, split: str, first: int) -> None:
        points, classes = blob_points()
        examples = blobs.examples(split)
        pools = [np.where(classes == of_class)[0] for of_class in range(10)]
        for row in [*range(25), len(examples) - 1]:
            global_generator.seed(first + row)
            label = global_generator.randint(0, 3)
            position = global_generator.randint(0, 9)
            places = []
            for segment in range(9):
                of_class = label if segment == position else global_generator.randint(3, 10)
                places.append(int(global_generator.choice(pools[of_class], size=1)[0]))
            batch = examples[[row]]
            assert (batch.labels.item(), batch.rationale[0].nonzero().item()) == (label, position)
            np.testing.assert_array_equal(batch.tokens[0].numpy(), points[places].astype(np.float32))

    def test_golden_hash_of_the_published_mosaics(self, blobs: Blobs) -> None:
        # Integers only: the points go through a decomposition whose last bits may differ between machines.
        digest = hashlib.sha256()
        for split in ("train", "test"):
            digest.update(blobs.examples(split).mosaics.places.astype("<i8").tobytes())
        assert digest.hexdigest() == "c5d33c65dffff30f97934456df630dde37e5cb8388281a845b289a773b847bd5"

    def test_overlap_is_what_drawing_from_the_same_points_gives(self, blobs: Blobs) -> None:
        splits = blobs.manifest["splits"]
        foreground = {split: blobs.examples(split).mosaics.foreground_places.tolist() for split in splits}
        seen = set(foreground["train"])
        assert splits["test"]["overlap"] == sum(place in seen for place in foreground["test"])
        assert 0.8 < splits["test"]["overlap"] / 3000 < 0.95
        assert "overlap" not in splits["train"]


class TestEllipses:
    def test_points(self) -> None:
        points, classes = ellipse_points()
        np.testing.assert_allclose(points[0], [2.20218134, 1.32290141, 2.20218134, 2.20218134, -0.79781866], atol=5e-9)
        np.testing.assert_allclose(points[500], [12.65418869, 5.7937588, 5.7937588, 5.7937588, 1.7937588], atol=5e-9)
        assert classes.tolist() == [of_class for of_class in range(10) for _ in range(500)]
        wide = [int(np.cov(points[classes == of_class].T).diagonal().argmax()) for of_class in range(10)]
        assert wide == [1, 0, 1, 1, 0, 1, 0, 0, 1, 1]

    @pytest.mark.parametrize(("split", "first"), [("train", 0), ("test", 3000), ("validation", 6000)])
    def test_mosaics(self, global_generator: Any, split: str, first: int) -> None:
        points, classes = ellipse_points()
        examples = ready(Ellipses()).examples(split)
        for row in [*range(25), len(examples) - 1]:
            global_generator.seed(first + row)
            background = global_generator.randint(0, 3500, 8)
            foreground = global_generator.randint(0, 1500)
            position = global_generator.randint(0, 9)
            expected = np.insert(points[1500:][background], position, points[foreground], axis=0)
            batch = examples[[row]]
            assert (batch.labels.item(), batch.rationale[0].nonzero().item()) == (classes[foreground], position)
            np.testing.assert_array_equal(batch.tokens[0].numpy(), expected.astype(np.float32))


class TestErrorMode:
    @pytest.mark.parametrize(
        ("kind", "label", "x", "y"),
        [
            ("em1", 0, (5, 6), (2, 4)),
            ("em1", 1, (5, 6), (-5, -3)),
            ("em1", 2, (8, 9), (-2, 0)),
            ("em1", None, (1, 2), (-1, 5)),
            ("em2", 2, (-3, -2), (-2, 0)),
            ("em2", None, (1, 2), (-8, 5)),
            ("em3", 0, (1.5, 1.6), (7, 7.1)),
            ("em3", 5, (1.5, 1.6), (-3, -2.9)),
            ("em3", None, (2.1, 2.2), (2.0, 2.1)),
        ],
    )
    def test_points_fill_their_box(
        self, kind: Any, label: int | None, x: tuple[float, float], y: tuple[float, float]
    ) -> None:
        batch = everything(ready(ErrorMode(kind=kind)), "train")
        assert batch.rationale is not None
        chosen = ~batch.rationale if label is None else batch.rationale & (batch.labels == label)[:, None]
        for values, (low, high) in zip(batch.tokens[chosen].T.double(), (x, y), strict=True):
            tolerance = 1e-6
            assert low - tolerance <= values.min() < low + 0.05 * (high - low)
            assert high - 0.05 * (high - low) < values.max() <= high + tolerance
            assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)

    def test_sizes_and_balance(self) -> None:
        module = ready(ErrorMode("em3"))
        assert [len(module.examples(split)) for split in ("train", "test")] == [3000, 1000]
        assert module.spec.num_classes == 6 == len(BOXES["em3"].foreground)
        batch = everything(module, "train")
        assert batch.rationale is not None
        counts = torch.bincount(batch.labels, minlength=6), batch.rationale.sum(0)
        assert all((count.float() / count.sum() * len(count) - 1).abs().max() < 0.15 for count in counts)

    def test_seed_and_split_decide(self) -> None:
        first = ready(ErrorMode(**SMALL)).manifest["splits"]
        assert ready(ErrorMode(**SMALL)).manifest["splits"] == first
        assert ready(ErrorMode(**SMALL, seed=1)).manifest["splits"] != first
        module = ready(ErrorMode(train_mosaics=30, test_mosaics=30))
        assert not torch.equal(module.examples("train")[[0]].tokens, module.examples("test")[[0]].tokens)

    def test_golden_hash(self) -> None:
        splits = ready(ErrorMode("em1")).manifest["splits"]
        assert splits["train"]["sha256"] == "2be5e6105c6d61569545632c3d9b1253040c5df67a0c3caceec66e5cda42af0b"


@pytest.fixture(scope="module")
def blobs() -> Blobs:
    return ready(Blobs())


def everything(module: SegmentDataModule, split: str) -> Batch:
    examples = module.examples(split)
    return examples[list(range(len(examples)))]


@pytest.mark.parametrize("make", MODULES)
class TestEveryModule:
    def test_batches(self, make: Any) -> None:
        module = ready(make(**SMALL, num_segments=5))
        batch = module.examples("train")[[7, 0, 7]]
        assert batch.tokens.shape == (3, 5, *module.spec.segment_shape)
        assert batch.tokens.dtype == torch.float32
        assert batch.mask.all()
        assert batch.mask.shape == batch.rationale.shape == (3, 5)
        assert batch.rows.tolist() == [7, 0, 7]
        assert torch.equal(batch.tokens[0], batch.tokens[2])
        assert batch.has_rationale.tolist() == [True] * 3
        assert batch.shortcut is None
        assert len(module.examples("train")) == 40
        assert module.examples("train").lengths.tolist() == [5] * 40

    def test_only_the_foreground_segment_is_of_the_label(self, make: Any) -> None:
        module = ready(make())
        for split in ("train", "validation", "test"):
            batch, examples = everything(module, split), module.examples(split)
            classes = examples.pool.classes[examples.mosaics.places]
            assert batch.rationale is not None
            assert (batch.rationale.sum(1) == 1).all()
            assert (classes[batch.rationale.numpy()] == batch.labels.numpy()).all()
            assert (classes[~batch.rationale.numpy()] >= module.spec.num_classes).all()
            assert set(batch.labels.tolist()) == set(range(module.spec.num_classes))

    def test_spec_and_manifest(self, make: Any) -> None:
        module = make(**SMALL)
        assert module.spec.vocabulary_size == 0
        assert module.spec.embedding_size == np.prod(module.spec.segment_shape)
        module.setup()
        assert module.spec.label_names == module.label_names
        manifest = json.loads(json.dumps(module.manifest))
        assert manifest == module.manifest
        for split, count in (("train", 40), ("validation", 20), ("test", 30)):
            labels = everything(module, split).labels
            assert manifest["splits"][split]["rows"] == count == sum(manifest["splits"][split]["classes"].values())
            assert list(manifest["splits"][split]["classes"]) == list(module.label_names)
            assert list(manifest["splits"][split]["classes"].values()) == torch.bincount(labels).tolist()
        assert manifest["source"]["revision"] != ready(make(**SMALL, num_segments=4)).manifest["source"]["revision"]

    def test_the_hash_is_of_what_the_batches_hold(self, make: Any) -> None:
        first, again, other = (ready(make(**(SMALL | {"test_mosaics": count}))).manifest for count in (30, 30, 31))
        assert first == again
        hashes = [{split: manifest["splits"][split]["sha256"] for split in SMALL_SPLITS} for manifest in (first, other)]
        assert hashes[0]["train"] == hashes[1]["train"]
        assert hashes[0]["test"] != hashes[1]["test"]

    def test_a_smaller_split_is_the_beginning_and_leaves_the_others_alone(self, make: Any) -> None:
        small, whole = ready(make(**SMALL)), ready(make())
        for split in SMALL_SPLITS:
            part = everything(small, split)
            beginning = whole.examples(split)[list(range(len(part.labels)))]
            assert torch.equal(part.tokens, beginning.tokens)
            assert torch.equal(part.labels, beginning.labels)

    def test_a_larger_split_shares_no_mosaic_with_the_others(self, make: Any) -> None:
        module = ready(make(train_mosaics=3300, validation_mosaics=300, test_mosaics=3300))
        tokens = [everything(module, split).tokens.flatten(1) for split in SMALL_SPLITS]
        assert len({row.numpy().tobytes() for part in tokens for row in part}) == 6900

    def test_no_global_generator_is_used(self, make: Any) -> None:
        numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        ready(make(**SMALL))
        assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torch_state)

    def test_loaders(self, make: Any) -> None:
        module = ready(make(**SMALL, batch_size=16, eval_batch_size=7))
        loader = module.train_dataloader()
        epochs = []
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            epochs.append([row for batch in loader for row in batch.rows.tolist()])
            assert sorted(epochs[-1]) == list(range(40))
        assert epochs[0] != epochs[1] != epochs[2]
        loader.sampler.set_epoch(1)
        assert [row for batch in loader for row in batch.rows.tolist()] == epochs[1]
        for found, count in ((module.val_dataloader(), 20), (module.test_dataloader(), 30)):
            assert [row for batch in found for row in batch.rows.tolist()] == list(range(count))
            assert max(len(batch.rows) for batch in found) == 7
        assert torch.cat([batch.rows for batch in module.predict_dataloader()]).tolist() == list(range(30))

    def test_two_processes_share_every_row(self, make: Any) -> None:
        shares = []
        for rank in range(2):
            module = ready(make(**SMALL, batch_size=8))
            strategy = SimpleNamespace(broadcast=lambda seed: 5, root_device=torch.device("cpu"))
            module.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=strategy)
            shares.append([row for batch in module.train_dataloader() for row in batch.rows.tolist()])
        assert sorted(shares[0] + shares[1]) == list(range(40))
        assert len(shares[0]) == len(shares[1])

    def test_workers_give_the_same_batches(self, make: Any) -> None:
        module = ready(make(**SMALL))
        examples = pickle.loads(pickle.dumps(module.examples("test")))
        assert torch.equal(examples[[3, 4]].tokens, module.examples("test")[[3, 4]].tokens)

    @pytest.mark.parametrize(
        "options",
        [
            {"num_segments": 1},
            {"train_mosaics": 0},
            {"validation_mosaics": 0},
            {"test_mosaics": -1},
            {"batch_size": 0},
            {"eval_batch_size": 0},
            {"num_workers": -1},
        ],
    )
    def test_impossible_options(self, make: Any, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=rf"Expected `{next(iter(options))}` .*but got "):
            make(**options)

    def test_before_setup(self, make: Any) -> None:
        for use in (lambda m: m.manifest, lambda m: m.examples("train"), lambda m: m.train_dataloader()):
            with pytest.raises(ConfigurationError, match="before `setup`"):
                use(make())

    def test_wrong_uses(self, make: Any) -> None:
        module = ready(make(**SMALL))
        with pytest.raises(ConfigurationError, match="train, validation, test, but got 'dev'"):
            module.examples("dev")
        with pytest.raises(ConfigurationError, match="train_mosaics"):
            module.examples("train")[0]
        with pytest.raises(ConfigurationError, match="mosaics of every class, but got none of"):
            make(train_mosaics=2).setup()


SMALL_SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("make", [Blobs, Ellipses])
class TestClasses:
    @pytest.mark.parametrize(
        ("num_foreground", "share", "background"),
        [(3, 1.0, range(3, 10)), (2, 0.5, range(2, 6)), (5, 0.2, range(5, 6)), (9, 1.0, range(9, 10))],
    )
    def test_foreground_and_background(self, make: Any, num_foreground: int, share: float, background: range) -> None:
        module = ready(make(num_foreground_classes=num_foreground, background_share=share, num_segments=4))
        for split in SMALL_SPLITS:
            batch, examples = everything(module, split), module.examples(split)
            classes = examples.pool.classes[examples.mosaics.places]
            assert batch.rationale is not None
            assert set(classes[batch.rationale.numpy()]) == set(range(num_foreground))
            assert set(classes[~batch.rationale.numpy()]) == set(background)
        assert len(module.label_names) == module.spec.num_classes == num_foreground

    @pytest.mark.parametrize(
        "options",
        [
            {"num_foreground_classes": 1},
            {"num_foreground_classes": 10},
            {"background_share": 0.0},
            {"background_share": 1.1},
            {"background_share": float("nan")},
        ],
    )
    def test_impossible_options(self, make: Any, options: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=rf"Expected `{next(iter(options))}` .*but got "):
            make(**options)


@pytest.mark.parametrize("options", [{"kind": "em4"}, {"seed": -1}])
def test_impossible_error_modes(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"Expected `{next(iter(options))}` .*but got "):
        ErrorMode(**options)


def test_the_command_line_knows_short_names_and_options(cli: Any) -> None:
    outcome = cli("fit", "--data=ErrorMode", "--data.kind=em3", "--data.num_segments=4", "--print_config")
    assert outcome.code == 0, outcome.err
    assert "attn_lightning.data.sdc.ErrorMode" in outcome.out or "ErrorMode" in outcome.out
    assert "num_segments: 4" in outcome.out
    refused = cli("fit", "--data=ErrorMode", "--data.kind=em4", "--print_config")
    assert refused.code == 2
    assert "em4" in refused.err
