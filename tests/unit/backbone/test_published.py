"""Encoders that cannot be had: one clear error for each, and nothing unsafe is read."""

import sys
from pathlib import Path

import pytest

from attn_lightning.backbone.published import folder_of, load, rebuild, transformers
from attn_lightning.errors import ConfigurationError
from support.tiny_bert import make_tiny_bert

# They need the extra `transformers`, which makes every import of Lightning slower: not for the fast suite.
pytestmark = pytest.mark.slow


def load_from(folder: Path) -> None:
    load(str(folder), None, {"dropout": 0.0}, None)


def test_a_folder_without_weights_or_with_others_than_safetensors(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"`\*\.safetensors` .* but got pytorch_model\.bin"):
        load_from(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match="but got none"):
        load_from(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_from(folder)


def test_weights_that_are_damaged(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigurationError, match="AutoModel"):
        load_from(folder)


def test_a_tokenizer_without_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    library = transformers()
    slow = library.CanineTokenizer()
    monkeypatch.setattr(library.AutoTokenizer, "from_pretrained", lambda *_, **__: slow)
    with pytest.raises(ConfigurationError, match=r"offsets .* CanineTokenizer"):
        load_from(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    for path in [path for path in folder.iterdir() if path.name.startswith(("tokenizer", "vocab", "special"))]:
        path.unlink()
    with pytest.raises(ConfigurationError, match=r"words of a tokenizer.*`tokenizer\.json`"):
        load_from(folder)


def test_names_that_are_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder here.*revision"):
        folder_of("nobody/nothing", None)
    with pytest.raises(ConfigurationError, match="Expected a folder"):
        folder_of("/no/such/folder", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"on the hub or an earlier download.*but got neither"):
        folder_of("nobody/nothing", "0" * 40)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"attn-lightning\[transformers\]"):
        transformers()


def test_a_shape_can_be_built_again_with_fewer_layers(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "bert")
    model, pieces = load(str(folder), None, {"dropout": 0.25}, 1)
    assert pieces.max_length == 64
    assert {module.p for module in model.modules() if type(module).__name__ == "Dropout"} == {0.25}
    again = rebuild(model.config.to_json_string(use_diff=False), {"dropout": 0.0}, None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in again.state_dict().items()} == shapes
    assert not any("layer.1" in name or "pooler" in name for name in shapes)
