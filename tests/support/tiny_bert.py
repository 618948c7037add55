"""A tiny BERT with random weights in a folder, as one from a hub would lie there."""

import json
from pathlib import Path

import pytest
import torch

SIZE, LAYERS = 12, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *LETTERS, *(f"##{letter}" for letter in LETTERS))
WORDS = ("good", "bad", "film", "the", "was")


def make_tiny_bert(folder: Path, max_length: int = 64, seed: int = 0) -> Path:
    """Write configuration, tokenizer and weights; words that are not in the list fall into letters."""
    pytest.importorskip("transformers", reason="needs the extra `transformers`")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*PIECES, *WORDS]), "utf-8")
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=max_length)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(PIECES) + len(WORDS),
        hidden_size=SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=max_length,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def broken(folder: Path, name: str) -> Path:
    """The folder without one of its files."""
    (folder / name).unlink()
    return folder


def config_of(folder: Path) -> dict[str, object]:
    """Its configuration."""
    content: dict[str, object] = json.loads((folder / "config.json").read_text("utf-8"))
    return content
