"""One text far longer than the others costs its own length in every command, and not its length in every row."""

import json
import random

import pytest

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.data import datamodule
from attn_lightning.evaluation import prediction

pytestmark = pytest.mark.slow

LONG, BUDGET = 1500, 600

OPTIONS = (
    "--data.embeddings=RandomEmbeddings", "--data.embeddings.dimension=8", "--model.backbone.encoder.hidden_size=4",
    "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--run.report=false", "--run.suite=none",
    "--run.version=long",
)  # fmt: skip


def write_texts(path, seed, long):
    draws = random.Random(seed)
    lines = []
    for row in range(90):
        words = draws.choices("abcdefghijklmnop", k=long if row == 40 else draws.randint(3, 30))
        words[1] = ("good", "bad")[row % 2]
        lines.append(json.dumps({"text": " ".join(words), "label": row % 2}))
    path.write_text("\n".join([*lines, ""]))


@pytest.fixture
def passes(monkeypatch):
    """The places of every pass through the model, padding included, by command."""
    monkeypatch.setattr(datamodule, "TRAINING_TOKENS", BUDGET)
    monkeypatch.setattr(datamodule, "EVALUATION_TOKENS", BUDGET)
    monkeypatch.setattr(prediction, "TOKEN_BUDGET", BUDGET)
    seen, embed = [], AttentionClassifier.embed

    def noted(self, tokens):
        seen.append(tuple(tokens.shape))
        return embed(self, tokens)

    monkeypatch.setattr(AttentionClassifier, "embed", noted)
    return seen


def test_no_pass_has_more_places_than_the_budget_or_the_longest_text(cli, tmp_path, passes):
    for seed, split in enumerate(("train", "validation", "test")):
        write_texts(tmp_path / f"{split}.jsonl", seed, LONG)
    data = [f"--data.{split}={tmp_path / split}.jsonl" for split in ("train", "validation", "test")]
    checkpoint = tmp_path / "runs" / "run" / "long" / "checkpoints" / "best.ckpt"
    budget, answers = ("--token_budget", BUDGET), tmp_path / "answers.jsonl"
    commands = {
        "fit": ["fit", "--data=TextFiles", *data, "--method=WordIVAT", *OPTIONS, f"--run.root={tmp_path / 'runs'}"],
        "validate": ["validate", "--ckpt_path", checkpoint],
        "test": ["test", "--ckpt_path", checkpoint],
        "evaluate": ["evaluate", "--ckpt_path", checkpoint, "--suite=fast", "--explainers=attention,gradient", *budget],
        "predict": ["predict", "--ckpt_path", checkpoint, "--input", tmp_path / "test.jsonl", "--output", answers],
    }
    for name, command in commands.items():
        passes.clear()
        outcome = cli(*command)
        assert outcome.code == 0, f"{name}: {outcome.err}"
        assert max(rows for rows, _ in passes) > 4, "short texts share a pass"
        assert {shape for shape in passes if shape[0] * shape[1] > max(BUDGET, LONG)} == set(), name
        assert max(width for _, width in passes) == LONG, f"{name} has not seen the long text"
