"""Models that were trained before: found by file or run folder, built as they were, refused where they do not fit."""

from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from attn_lightning.backbone.classifier import AttentionClassifier
from attn_lightning.backbone.word_selector import WordSelector
from attn_lightning.errors import ConfigurationError
from attn_lightning.methods import L2X, VIBI, Combined, Diversity, ModelConsistentAdversary
from attn_lightning.methods.trained import black_box, existing_checkpoint, model_origins, twin
from attn_lightning.module import AttentionModule
from attn_lightning.types import DataSpec

SPEC = DataSpec(2, 20, 6, ("a", "b"))


def module_of(backbone: Any, spec: DataSpec = SPEC) -> AttentionModule:
    module = AttentionModule(backbone)
    module.build(spec)
    return module


def saved(module: AttentionModule, path: Path) -> Path:
    """A checkpoint as Lightning writes it, without its trainer."""
    checkpoint: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pytorch-lightning_version": "2.6.0",
    }
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    found = [existing_checkpoint(path, "M", "o") for path in (tmp_path, tmp_path / "checkpoints" / "best.ckpt")]
    assert found == [tmp_path / "checkpoints" / "best.ckpt"] * 2


@pytest.mark.parametrize("name", [None, "missing.ckpt", "empty"])
def test_what_is_not_there_is_named(name: str | None, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"`teacher_checkpoint` of L2X .* RUN/checkpoints/best\.ckpt"):
        existing_checkpoint(None if name is None else tmp_path / name, "L2X", "teacher_checkpoint")


def test_what_a_method_begins_from_is_recorded_by_its_content(tmp_path: Path) -> None:
    base, teacher = tmp_path / "base.ckpt", tmp_path / "run" / "checkpoints" / "best.ckpt"
    teacher.parent.mkdir(parents=True)
    base.write_bytes(b"base")
    teacher.write_bytes(b"teacher")
    inside = Combined([Diversity(), ModelConsistentAdversary(base_checkpoint=base)])
    expected = {"base_checkpoint": (str(base), sha256(b"base").hexdigest())}
    assert {option: (o["location"], o["revision"]) for option, o in model_origins([inside]).items()} == expected
    found = model_origins([VIBI(teacher_checkpoint=tmp_path / "run")])["teacher_checkpoint"]
    assert (found["location"], found["revision"]) == (str(teacher), sha256(b"teacher").hexdigest())
    # Switched off, not given, and not there: nothing that a result could rest on.
    off = [L2X(0.0, base), L2X(), L2X(teacher_checkpoint=tmp_path / "gone"), Diversity()]
    assert [model_origins([method]) for method in off] == [{}] * 4


def test_a_black_box_is_of_any_architecture_and_draws_nothing(tmp_path: Path) -> None:
    path = saved(made := module_of(AttentionClassifier), tmp_path / "a.ckpt")
    module = module_of(WordSelector)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found = black_box(path, module, "teacher_checkpoint")
    assert torch.equal(torch.rand(1), expected)
    assert type(found) is AttentionClassifier
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    for name, value in made.backbone.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(found.state_dict()[name], value)
    with pytest.raises(ConfigurationError, match="same architecture"):
        twin(path, module, "base_checkpoint")


def test_a_model_without_a_name_must_be_a_twin(tmp_path: Path) -> None:
    make = partial(WordSelector, encoder=lambda size: WordSelector(SPEC).encoder)
    path = saved(module_of(make), tmp_path / "a.ckpt")
    assert type(black_box(path, module_of(make), "teacher_checkpoint")) is WordSelector
    with pytest.raises(ConfigurationError, match="same architecture"):
        black_box(path, module_of(AttentionClassifier), "teacher_checkpoint")


def test_other_data_is_refused(tmp_path: Path) -> None:
    path = saved(module_of(AttentionClassifier, DataSpec(3, 20, 6, ("a", "b", "c"))), tmp_path / "a.ckpt")
    with pytest.raises(ConfigurationError, match="`num_classes` = 2"):
        black_box(path, module_of(WordSelector), "teacher_checkpoint")
    words = module_of(WordSelector)
    words.tokenizer_state = "other words"
    with pytest.raises(ConfigurationError, match=r"`teacher_checkpoint` .* another vocabulary"):
        black_box(path, words, "teacher_checkpoint")
    with pytest.raises(ConfigurationError, match=r"`base_checkpoint` .* another vocabulary"):
        twin(path, words, "base_checkpoint")
