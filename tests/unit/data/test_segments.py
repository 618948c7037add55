"""A run on mosaics leaves its record and resumes exactly."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from attn_lightning.backbone.protocol import Backbone
from attn_lightning.callbacks.run_record import RunRecord
from attn_lightning.data import ErrorMode
from attn_lightning.module import AttentionModule
from attn_lightning.types import AttentionOutput, DataSpec

SMALL: dict[str, Any] = {"train_mosaics": 40, "validation_mosaics": 20, "test_mosaics": 30}


class TinySegments(Backbone):
    """A linear focus on flat segments, averaged and classified."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.focus = nn.Linear(spec.embedding_size, 1)
        self.classifier = nn.Linear(spec.embedding_size, spec.num_classes)

    def embed(self, tokens: Tensor) -> Tensor:
        return tokens.flatten(2)

    def encode(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        return embeddings

    def score(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return self.focus(hidden).squeeze(-1)

    def attend(self, hidden: Tensor, scores: Tensor, mask: Tensor, attention: Tensor | None = None) -> AttentionOutput:
        weights = scores.softmax(-1) if attention is None else attention
        context = (weights.unsqueeze(-1) * hidden).sum(1)
        return AttentionOutput(self.classifier(context), weights, scores, hidden, context, mask)


def fitted(folder: Path, epochs: int, resumed: Path | None = None) -> tuple[AttentionModule, Trainer]:
    seed_everything(3, verbose=False)
    model = AttentionModule(TinySegments, class_weights="balanced")
    callbacks = [RunRecord(folder), ModelCheckpoint(folder / "checkpoints", save_top_k=-1)]
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=epochs, callbacks=callbacks, logger=False, use_distributed_sampler=False, **quiet)
    data = ErrorMode(**SMALL, batch_size=8)
    trainer.fit(model, data, ckpt_path=resumed, weights_only=False)
    return model, trainer


def test_a_run_leaves_its_record_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    whole, trainer = fitted(tmp_path / "whole", 3)
    trainer.test(whole, datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    record = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert record["status"] == "complete"
    assert record["data"]["name"] == "em1"
    assert record["data"]["splits"]["test"]["rows"] == 30
    table = pq.read_table(tmp_path / "whole" / "predictions.parquet")
    assert table.num_rows == 30
    assert {len(weights) for weights in table["attention"].to_pylist()} == {9}
    assert "text" not in table.column_names
    (checkpoint,) = (tmp_path / "whole" / "checkpoints").glob("epoch=1-*")
    resumed, _ = fitted(tmp_path / "resumed", 3, checkpoint)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
