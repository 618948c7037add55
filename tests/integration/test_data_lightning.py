"""The data module under Lightning's Trainer and command line."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

from attn_lightning.data.corpora import TextFiles
from attn_lightning.data.datamodule import TextDataModule
from attn_lightning.data.embeddings import RandomEmbeddings
from attn_lightning.errors import ConfigurationError


class Watching(LightningModule):
    """Notes the rows it sees; its one parameter makes it trainable."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[int]] = {}
        self.tested: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.setdefault(self.current_epoch, []).extend(batch.rows.tolist())
        return (batch.mask.sum() * self.weight).sum()

    def test_step(self, batch, batch_idx):
        self.tested.extend(batch.rows.tolist())

    def predict_step(self, batch, batch_idx):
        return batch.rows

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-6)


@pytest.fixture
def options(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 90), ("test", 31)):
        rows = [
            {"text": "word " * int(generator.integers(1, 20)) + f"end {place}", "label": place % 2}
            for place in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "train": tmp_path / "train.jsonl",
        "test": tmp_path / "test.jsonl",
        "cache": tmp_path / "cache",
        "embeddings": RandomEmbeddings(4),
        "batch_size": 8,
        "eval_batch_size": 8,
    }


def trainer(tmp_path, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options.setdefault("callbacks", [ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, every_n_epochs=1)])
    return Trainer(default_root_dir=tmp_path, **quiet, **options)


def test_every_epoch_sees_every_row_in_another_order(options, tmp_path):
    model = Watching()
    trainer(tmp_path, max_epochs=3).fit(model, TextFiles(**options))
    assert all(sorted(rows) == list(range(81)) for rows in model.seen.values())
    assert len({tuple(rows) for rows in model.seen.values()}) == 3


def test_a_resumed_run_goes_on_with_the_same_batches(options, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")
    whole, resumed = Watching(), Watching()
    trainer(tmp_path, max_epochs=3).fit(whole, TextFiles(**options))
    (checkpoint,) = (tmp_path / "checkpoints").glob("epoch=1-*")
    trainer(tmp_path, max_epochs=3).fit(resumed, TextFiles(**options), ckpt_path=checkpoint, weights_only=False)
    assert resumed.seen[2] == whole.seen[2]


def test_test_and_predict_see_every_row_once(options, tmp_path):
    model, data = Watching(), TextFiles(**options)
    trainer(tmp_path).test(model, data, verbose=False)
    assert sorted(model.tested) == list(range(31))
    predicted = torch.cat(trainer(tmp_path).predict(model, data))
    assert sorted(predicted.tolist()) == list(range(31))


def test_overfit_batches_is_refused_with_a_way_out(options, tmp_path):
    with pytest.raises(ConfigurationError, match="max_examples"):
        trainer(tmp_path, max_epochs=1, overfit_batches=2).fit(Watching(), TextFiles(**options))


def test_the_command_line_knows_all_options(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(SystemExit):
        LightningCLI(
            BoringModel,
            TextDataModule,
            subclass_mode_data=True,
            args=["fit", "--data.help", "attn_lightning.data.corpora.IMDB"],
        )
    shown = capsys.readouterr().out
    for option in ("protocol", "root", "cache", "min_count", "unknown", "embeddings", "token_budget", "max_examples"):
        assert f"--data.{option}" in shown
    assert "are cut off after this number of words" in " ".join(shown.split())


SCRIPT = """
    import json, sys
    from pathlib import Path
    from attn_lightning.data.corpora import TextFiles
    from attn_lightning.data.embeddings import RandomEmbeddings
    sys.path.insert(0, {folder!r})
    from test_data_lightning import Watching, Trainer

    folder = Path({tmp!r})
    data = TextFiles(folder / "train.jsonl", test=folder / "test.jsonl", cache=folder / "cache", batch_size=4,
                     eval_batch_size=4, embeddings=RandomEmbeddings(4))
    model = Watching()
    options = dict(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
                   enable_progress_bar=False, enable_model_summary=False)
    trainer = Trainer(max_epochs=2, **options)
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    (folder / f"rank{{trainer.global_rank}}.json").write_text(json.dumps([model.seen, model.tested]))
"""


@pytest.mark.slow
def test_two_processes_share_every_row(options, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent), tmp=str(tmp_path))))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (first, tested), (second, tested_too) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    for epoch in ("0", "1"):
        assert sorted(first[epoch] + second[epoch]) == list(range(81))
    assert first["0"] != first["1"]
    assert sorted(tested + tested_too) == list(range(31))
