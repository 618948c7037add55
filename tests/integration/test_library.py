"""As a library: plain Lightning, without the command line."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import AttentionAT, AttentionIAT, AttentionIVAT, AttentionRP, AttentionVAT
from attn_lightning.module import AttentionModule
from attn_lightning.numerics import masked_softmax
from attn_lightning.types import AttentionOutput, DataSpec


class MeanBackbone(Backbone):
    """A model of the user's own: four functions."""

    def __init__(self, spec: DataSpec, width: int = 6) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.vocabulary_size, width)
        self.query = nn.Parameter(torch.randn(width))
        self.output = nn.Linear(width, spec.num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(embeddings)

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return hidden @ self.query

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        attention = masked_softmax(scores, mask) if attention is None else attention
        context = (attention.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.output(context), attention, scores, hidden, context, mask)


@pytest.fixture
def data() -> Planted:
    return Planted(
        train_documents=48,
        validation_documents=16,
        test_documents=16,
        max_length=20,
        batch_size=16,
        embeddings=RandomEmbeddings(8),
    )


@pytest.fixture
def trainer(tmp_path):
    """Lightning's own defaults, inference mode included, apart from where files go and how long it takes."""

    def make(*callbacks, **options) -> Trainer:
        warnings.filterwarnings("ignore", module="lightning")
        return Trainer(
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            max_epochs=1,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )

    return make


def test_the_line_of_the_readme(trainer, data):
    module = AttentionModule()
    ours = trainer(AttentionIVAT(epsilon=1.0))
    ours.fit(module, data)
    assert ours.callback_metrics["train/attention_ivat"] >= 0
    (tested,) = ours.test(module, data, verbose=False)
    (validated,) = ours.validate(module, data, verbose=False)
    assert {"test/accuracy", "test/gradient_kendall_mean", "test/hidden_kendall_mean"} <= set(tested)
    assert {"val/accuracy", "val/gradient_kendall_mean"} <= set(validated)


@pytest.mark.parametrize("method", [AttentionAT, AttentionIAT, AttentionVAT, AttentionIVAT, AttentionRP])
def test_a_backbone_of_ones_own_works_with_every_method(trainer, data, method):
    module = AttentionModule(backbone=MeanBackbone)
    ours = trainer(method())
    ours.fit(module, data)
    (tested,) = ours.test(module, data, verbose=False)
    assert 0 <= tested["test/accuracy"] <= 1
    assert -1 <= tested["test/gradient_kendall_mean"] <= 1


def test_several_methods_add_up(trainer, data):
    ours = trainer(AttentionAT(weight=0.5), AttentionVAT(weight=2.0))
    ours.fit(AttentionModule(backbone=MeanBackbone), data)
    logged = ours.callback_metrics
    expected = logged["train/task"] + 0.5 * logged["train/attention_at"] + 2.0 * logged["train/attention_vat"]
    assert float(logged["train/loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_load_from_checkpoint_gives_the_same_model(trainer, data, tmp_path):
    module = AttentionModule(learning_rate=0.01)
    ours = trainer(AttentionAT())
    ours.fit(module, data)
    ours.save_checkpoint(tmp_path / "model.ckpt")
    loaded = AttentionModule.load_from_checkpoint(tmp_path / "model.ckpt").eval()
    assert loaded.learning_rate == 0.01
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(batch.tokens, batch.mask).logits, module.eval()(batch.tokens, batch.mask).logits
        )


def test_a_loaded_model_can_be_trained_further(trainer, data, tmp_path):
    first = trainer()
    first.fit(AttentionModule(), data)
    first.save_checkpoint(tmp_path / "model.ckpt")
    trainer(AttentionIVAT()).fit(AttentionModule.load_from_checkpoint(tmp_path / "model.ckpt"), data)


def test_predict_gives_what_the_docstring_says(trainer, data):
    module = AttentionModule(backbone=MeanBackbone)
    ours = trainer()
    ours.fit(module, data)
    batches = ours.predict(module, data)
    assert sum(len(batch["probabilities"]) for batch in batches) == 16
    for batch in batches:
        torch.testing.assert_close(batch["attention"].sum(-1), torch.ones(len(batch["attention"])))
        assert set(batch) == {"probabilities", "attention", "gradient", "hidden"}


def test_the_run_record_is_an_ordinary_callback(trainer, data, tmp_path):
    folder = tmp_path / "record"
    folder.mkdir()
    module = AttentionModule(backbone=MeanBackbone)
    ours = trainer(RunRecord(folder))
    ours.fit(module, data)
    ours.test(module, data, verbose=False)
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions.parquet"}


def test_without_a_data_module_the_model_is_built_by_hand(trainer, data):
    data.prepare_data()
    data.setup()
    module = AttentionModule(backbone=MeanBackbone)
    with pytest.raises(ConfigurationError, match="build"):
        trainer().fit(module, data.train_dataloader())
    module.build(data.spec)
    trainer().fit(module, data.train_dataloader(), data.val_dataloader())


def test_the_trainers_module_is_an_ordinary_one():
    assert isinstance(AttentionModule(), LightningModule)
    assert not list(AttentionModule().parameters())


@pytest.mark.parametrize("options", [{"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.1}])
def test_accumulation_and_clipping_work_untouched(trainer, data, options):
    trainer(AttentionIVAT(), **options).fit(AttentionModule(backbone=MeanBackbone), data)


def test_accumulated_gradients_are_those_of_the_mean(trainer, data, tmp_path: Path):
    """Three batches accumulated move plain SGD as the mean of their gradients does."""

    class Plain(AttentionModule):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    module = Plain(backbone=MeanBackbone)
    module.build(data.spec)
    before = [parameter.detach().clone() for parameter in module.backbone.parameters()]
    batches = list(data.train_dataloader())
    losses = [nn.functional.cross_entropy(module(batch.tokens, batch.mask).logits, batch.labels) for batch in batches]
    gradients = torch.autograd.grad(sum(losses) / len(losses), list(module.backbone.parameters()))
    trainer(accumulate_grad_batches=len(batches)).fit(module, DataLoader(batches, batch_size=None))
    for old, gradient, new in zip(before, gradients, module.backbone.parameters(), strict=True):
        torch.testing.assert_close(new, old - gradient, atol=1e-6, rtol=1e-5)
