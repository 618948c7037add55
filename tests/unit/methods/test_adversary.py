"""The adversary's objective against scipy, and the base model: loaded, frozen, run along, required."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy.stats import entropy
from torch.nn import functional as F

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.encoders import Average, Encoder
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.data.planted import Planted
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import ModelConsistentAdversary
from attn_lightning.methods.adversary import imitation_loss, total_variation
from attn_lightning.module import AttentionModule
from attn_lightning.types import AttentionOutput, DataSpec
from support.defaults import defaults

LENGTHS = torch.tensor([6, 4, 1])
MASK = torch.arange(6) < LENGTHS[:, None]


def make_output(seed: int, padding: float = 0.0) -> AttentionOutput:
    torch.manual_seed(seed)
    model = AttentionClassifier(DataSpec(3, 10, 4, ("a", "b", "c")), encoder=Average).double()
    hidden = torch.randn(3, 6, 256, dtype=torch.float64).masked_fill(~MASK.unsqueeze(-1), padding)
    scores = 3 * torch.randn(3, 6, dtype=torch.float64)
    return model.attend(hidden, scores.masked_fill(~MASK, padding), MASK)


def train(folder: Path, *callbacks: Any, max_epochs: int = 1, width: int = 8, seed: int = 0) -> AttentionModule:
    def encoder(size: int) -> Encoder:
        return Average(size, hidden_size=width)

    torch.manual_seed(0)
    data = Planted(
        train_documents=32, validation_documents=8, test_documents=8, embeddings=RandomEmbeddings(dimension=6),
        cache=folder / "cache", seed=seed,
    )  # fmt: skip
    module = AttentionModule(lambda spec: AttentionClassifier(spec, encoder=encoder), num_probe_examples=0)
    trainer = Trainer(
        max_epochs=max_epochs, callbacks=list(callbacks), logger=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    train(folder, ModelCheckpoint(folder, "base"))
    return folder / "base.ckpt"


def test_objective_equals_scipy_row_by_row() -> None:
    output, base = make_output(0), make_output(1)
    values = imitation_loss(output, base, divergence_weight=0.3)
    for index, length in enumerate(LENGTHS.tolist()):
        p, q = (F.softmax(o.logits[index], -1).detach().numpy() for o in (output, base))
        a, b = (o.attention[index, :length].detach().numpy() for o in (output, base))
        assert values[index].item() == pytest.approx(abs(p - q).sum() / 2 - 0.3 * entropy(a, b))


def test_total_variation_is_between_equal_and_disjoint() -> None:
    certain = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    torch.testing.assert_close(total_variation(certain, certain), torch.zeros(2))
    torch.testing.assert_close(total_variation(certain, certain.flip(0)), torch.ones(2))


def test_padding_changes_nothing_and_zeros_of_attention_stay_finite() -> None:
    values = [imitation_loss(make_output(0, padding), make_output(1), 0.3) for padding in (0.0, 50.0)]
    torch.testing.assert_close(*values)
    hidden, scores = torch.randn(1, 2, 256, requires_grad=True), torch.zeros(1, 2)
    model = AttentionClassifier(DataSpec(2, 10, 4, ("a", "b")), encoder=Average)
    mask = torch.ones(1, 2, dtype=torch.bool)
    sparse, other = (model.attend(hidden, scores, mask, torch.eye(2)[[i]]) for i in range(2))
    value = imitation_loss(sparse, other, 1.0)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(hidden.grad).all()  # type: ignore[arg-type]


class Watch(ModelCheckpoint):
    """Keeps the base model that the method holds while it trains."""

    def __init__(self, method: ModelConsistentAdversary) -> None:
        super().__init__(save_top_k=0)
        self.method = method
        self.found: list[Any] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.found.append(self.method.base)


def test_the_base_model_is_that_of_the_checkpoint_and_does_not_learn(base: Path) -> None:
    method = ModelConsistentAdversary(base_checkpoint=base)
    watch = Watch(method)
    module = train(base.parent, method, watch)
    stored = torch.load(base, weights_only=False)["state_dict"]
    (kept,) = watch.found
    assert not kept.training
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    for name, value in kept.state_dict().items():
        assert torch.equal(value, stored[f"backbone.{name}"])
    assert not torch.equal(module.backbone.state_dict()["classifier.weight"], stored["backbone.classifier.weight"])  # type: ignore[union-attr]
    assert method.base is None, "the base model is let go after the training"


def test_weight_zero_is_the_baseline_and_needs_no_base(base: Path) -> None:
    found = train(base.parent, ModelConsistentAdversary(weight=0.0))
    wanted = torch.load(base, weights_only=False)["state_dict"]
    assert all(torch.equal(value, wanted[f"backbone.{name}"]) for name, value in found.backbone.state_dict().items())  # type: ignore[union-attr]


def test_a_missing_base_is_refused(base: Path) -> None:
    for path in (None, base.parent / "missing.ckpt"):
        with pytest.raises(ConfigurationError, match="base_checkpoint"):
            train(base.parent, ModelConsistentAdversary(base_checkpoint=path))


def test_a_base_of_another_architecture_or_vocabulary_is_refused(base: Path) -> None:
    with pytest.raises(ConfigurationError, match="same architecture"):
        train(base.parent, ModelConsistentAdversary(base_checkpoint=base), width=9)
    with pytest.raises(ConfigurationError, match="vocabulary"):
        train(base.parent, ModelConsistentAdversary(base_checkpoint=base), seed=1)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="divergence_weight"):
        ModelConsistentAdversary(divergence_weight=-1.0)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (ModelConsistentAdversary, {"weight": 1.0, "divergence_weight": 0.1, "base_checkpoint": None}),
    ],
)
def test_options_that_are_left_out_are_the_documented_ones(cls: Any, expected: dict[str, Any]) -> None:
    assert defaults(cls) == expected
