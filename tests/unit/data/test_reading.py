"""What a frozen encoder reads before a training: every text of every split, and every second text, once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from lightning.pytorch import Trainer

from attn_lightning.backbone.encoders import Average
from attn_lightning.data import Planted, RandomEmbeddings
from attn_lightning.data.reading import all_texts, prepare_encoder


def test_all_splits_are_read_once_by_one_process_and_found_by_the_others(tmp_path: Path) -> None:
    data = Planted(
        train_documents=8, validation_documents=4, test_documents=4, cache=tmp_path, embeddings=RandomEmbeddings(4)
    )
    data.prepare_data()
    data.setup()
    texts = list(all_texts(data))
    assert sum(len(tokens) for tokens, _, _ in texts) == 16
    assert all(torch.equal(mask, tokens > 0) and second is None for tokens, mask, second in texts)
    seen: list[Any] = []

    class Recording(Average):
        def prepare(self, batches: Any, folder: Path, name: str) -> None:
            seen.append((sum(len(tokens) for tokens, _, _ in batches), folder, name))

    strategy = SimpleNamespace(barrier=lambda: seen.append("barrier"))
    model = torch.nn.Module()
    model.encoder = Recording(4)
    for is_first in (True, False):
        trainer = SimpleNamespace(datamodule=data, is_global_zero=is_first, strategy=strategy)
        prepare_encoder(model, cast(Trainer, trainer))
    read = (16, tmp_path / "states", data.digest)
    assert seen == [read, "barrier", "barrier", "barrier", read, "barrier"]
    prepare_encoder(model, cast(Trainer, SimpleNamespace(datamodule=None)))
